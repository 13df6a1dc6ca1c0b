"use strict";
// Everything works on what the page already holds: no data is fetched, nothing is stored elsewhere.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const tip = document.getElementById("tip");

function startTheme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const show = (on) => {
    root.dataset.theme = on ? "dark" : "light";
    all("dialog[open] canvas.matrix").forEach(drawMatrix);
  };
  show(dark.matches);
  dark.addEventListener("change", (event) => show(event.matches));
  document.getElementById("theme").addEventListener("click", () => show(root.dataset.theme !== "dark"));
}

function sortKey(row, column) {
  const cell = row.cells[column];
  return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
}

function compare(a, b) {
  const numbers = [typeof a, typeof b].filter((type) => type === "number").length;
  if (numbers === 2) return a - b;
  return numbers === 0 ? a.localeCompare(b) : 0;
}

// Cells without a figure stay below, whichever way the figures are sorted.
function sortTable(table, heading) {
  const column = heading.cellIndex;
  const down = heading.classList.contains("figure")
    ? heading.getAttribute("aria-sort") !== "descending"
    : heading.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows].map((row) => [sortKey(row, column), row]);
  const figures = rows.some(([key]) => typeof key === "number");
  const isEmpty = ([key]) => figures && typeof key !== "number";
  const full = rows.filter((row) => !isEmpty(row)).sort((a, b) => compare(a[0], b[0]));
  if (down) full.reverse();
  table.tBodies[0].append(...[...full, ...rows.filter(isEmpty)].map(([, row]) => row));
  all("th", table.tHead).forEach((other) => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  sortFigures(table);
}

// Figures of all rows follow the first table of their section: its order and its filter.
function rowsOf(table) {
  const rows = all("tr[data-row]", table);
  const figures = rows.length ? all(".shared figure", table.closest("section")) : [];
  return [rows, figures];
}

function seriesOf(figure, row) {
  const groups = all(`svg g[data-row="${row}"]`, figure);
  const buttons = groups.flatMap((g) => all(`.legend [data-series="${g.dataset.series}"]`, figure));
  return [groups, buttons];
}

function sortFigures(table) {
  const [rows, figures] = rowsOf(table);
  figures.forEach((figure) => rows.forEach((row) => {
    const [groups, buttons] = seriesOf(figure, row.dataset.row);
    [...groups, ...buttons].forEach((part) => part.parentElement.append(part));
  }));
}

function filterFigures(table) {
  const [rows, figures] = rowsOf(table);
  figures.forEach((figure) => rows.forEach((row) => {
    seriesOf(figure, row.dataset.row).flat()
      .forEach((part) => part.classList.toggle("filtered", row.hidden));
  }));
}

// A table that is too wide becomes a list of cards, so that nothing lies beyond the edge.
function startCards(table) {
  table.setAttribute("role", "table");
  all("tr", table).forEach((row) => row.setAttribute("role", "row"));
  const labels = table.tHead ? [...table.tHead.rows].at(-1).cells : [];
  all("tbody tr", table).forEach((row) => [...row.cells].forEach((cell, place) => {
    cell.setAttribute("role", cell.tagName === "TH" ? "rowheader" : "cell");
    cell.dataset.label = labels[place]?.textContent || "";
  }));
  all("thead th", table).forEach((head) => head.setAttribute("role", "columnheader"));
}

function fit(table) {
  table.classList.remove("cards");
  table.classList.toggle("cards", table.offsetWidth > table.parentElement.clientWidth + 1);
}

const fitAll = () => all(".table table").forEach((table) => { if (table.offsetWidth) fit(table); });


function startSorting(table) {
  all("thead th button", table).forEach((button) => {
    button.addEventListener("click", () => sortTable(table, button.closest("th")));
  });
}

function startFilter(table) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 5) return; // short enough to see at once
  const line = document.createElement("div");
  line.className = "filter";
  line.innerHTML = '<label>Filter <input type="search"></label><span role="status"></span>';
  const [input, status] = [line.querySelector("input"), line.querySelector("span")];
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    });
    filterFigures(table);
    status.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  });
  table.parentElement.before(line);
}

function showTip(text, x, y) {
  tip.textContent = text;
  const dialog = document.querySelector("dialog[open]");
  (dialog || document.body).append(tip); // a modal dialog lies above everything else
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - box.width - 8))}px`;
  tip.style.top = `${y - box.height - 12 < 4 ? y + 16 : y - box.height - 12}px`;
}

// Marks may lie on top of each other: all of them speak.
function underPointer(event) {
  const marks = document.elementsFromPoint(event.clientX, event.clientY);
  return marks.map((mark) => mark.dataset.tip).filter(Boolean).join("\n");
}

function step(svg, forward) {
  const marks = all("[data-tip]", svg).filter((mark) => !mark.closest(".off, .filtered"));
  if (!marks.length) return;
  const here = marks.findIndex((mark) => mark.classList.contains("here"));
  const next = marks[(here + (forward ? 1 : -1) + marks.length) % marks.length];
  all(".here", svg).forEach((mark) => mark.classList.remove("here"));
  next.classList.add("here");
  const box = next.getBoundingClientRect();
  showTip(next.dataset.tip, box.x, box.y);
}

function startFigure(svg) {
  svg.tabIndex = 0;
  svg.addEventListener("pointermove", (event) => {
    showTip(underPointer(event), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => showTip("", 0, 0));
  svg.addEventListener("blur", () => showTip("", 0, 0));
  svg.addEventListener("keydown", (event) => {
    if (!["ArrowRight", "ArrowLeft"].includes(event.key)) return;
    event.preventDefault();
    step(svg, event.key === "ArrowRight");
  });
}

function startLegend(button) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    all(`svg [data-series="${button.dataset.series}"]`, button.closest("figure"))
      .forEach((series) => series.classList.toggle("off", !on));
  });
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const half = planes.length / 2;
  return Array.from({ length: half }, (_, i) => planes[i] + 256 * planes[i + half]);
}

const NO_VALUE = 0xffff;

// Cells are tenths of a per cent.
async function drawMatrix(canvas) {
  canvas.cells ??= await unpack(canvas.dataset.cells);
  const [rows, columns] = [Number(canvas.dataset.size), canvas.cells.length / canvas.dataset.size];
  const side = Math.max(1, Math.round(500 / rows));
  [canvas.width, canvas.height] = [columns * side, rows * side];
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const paint = (name) => { pen.fillStyle = style.getPropertyValue(name); };
  paint("--tint");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  paint("--heat");
  canvas.cells.forEach((value, place) => {
    if (!value || value === NO_VALUE) return;
    pen.globalAlpha = 0.1 + 0.0009 * value;
    pen.fillRect((place % columns) * side, Math.floor(place / columns) * side, side, side);
  });
}

function cellText(canvas, row, column) {
  const value = canvas.cells[row * (canvas.cells.length / canvas.dataset.size) + column];
  if (value === undefined || value === NO_VALUE) return "";
  if (!canvas.dataset.totals) {
    return `after task ${row + 1}, on task ${column + 1}: ${(value / 10).toFixed(1)}`;
  }
  const lists = all("script.names", canvas.closest("section"));
  const names = JSON.parse(lists[Number(canvas.dataset.names)].textContent);
  const total = Number(canvas.dataset.totals.split(",")[row]);
  const count = total > 1000 ? `${(value / 10).toFixed(1)} %` : Math.round((value * total) / 1000);
  return `${names[row]} classified as ${names[column]}: ${count} of ${total}`;
}

function startMatrix(canvas) {
  const size = Number(canvas.dataset.size);
  const here = { row: 0, column: 0 };
  const show = () => {
    const [box, columns] = [canvas.getBoundingClientRect(), canvas.cells.length / size];
    here.row = Math.max(0, Math.min(size - 1, here.row));
    here.column = Math.max(0, Math.min(columns - 1, here.column));
    const x = box.x + ((here.column + 0.5) / columns) * box.width;
    showTip(cellText(canvas, here.row, here.column), x, box.y + ((here.row + 0.5) / size) * box.height);
  };
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.cells) return;
    const [box, columns] = [canvas.getBoundingClientRect(), canvas.cells.length / size];
    here.row = Math.floor(((event.clientY - box.y) / box.height) * size);
    here.column = Math.floor(((event.clientX - box.x) / box.width) * columns);
    show();
  });
  ["pointerleave", "blur"].forEach((name) => canvas.addEventListener(name, () => showTip("", 0, 0)));
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!moves[event.key] || !canvas.cells) return;
    event.preventDefault();
    here.row += moves[event.key][0];
    here.column += moves[event.key][1];
    show();
  });
}

function openDetails(dialog) {
  dialog.showModal();
  all("canvas.matrix", dialog).forEach(drawMatrix);
  fitAll();
}

startTheme();
all(".table table").forEach((table) => { startCards(table); startSorting(table); startFilter(table); });
fitAll();
addEventListener("resize", fitAll);
all("svg[role=img]").forEach(startFigure);
all("canvas.matrix").forEach(startMatrix);
all(".legend button").forEach(startLegend);
all("[data-opens]").forEach((button) => {
  button.addEventListener("click", () => openDetails(document.getElementById(button.dataset.opens)));
});

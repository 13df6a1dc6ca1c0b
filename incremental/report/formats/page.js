"use strict";
// Everything works on what the page already holds: no data is fetched, nothing is stored elsewhere.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const tip = document.getElementById("tip");

function startTheme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const show = (on) => { root.dataset.theme = on ? "dark" : "light"; };
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
}

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
  const marks = all("[data-tip]", svg).filter((mark) => !mark.closest(".off"));
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

startTheme();
all(".table table").forEach((table) => { startSorting(table); startFilter(table); });
all("svg").forEach(startFigure);
all(".legend button").forEach(startLegend);
all("[data-opens]").forEach((button) => {
  button.addEventListener("click", () => document.getElementById(button.dataset.opens).showModal());
});

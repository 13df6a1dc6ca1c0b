"""Run folders to tables, figures and pages. Reads files only: no torch, no cache.

gather      run folders -> the ones that count, and why the others do not
rows        a row and its statistics, a benchmark and its protocol
labels      what rows are called
group       runs -> rows -> benchmarks; what only repeats another run
tables      rows -> tables of marked cells, the same for every format
published   figures of the papers, and targets of one's own
paper       the paper's tables
compare     pairs of methods, and caches
statistics  bootstrap, and whose the variation is
check       do re-run figures hold?
text        tables -> terminal, Markdown
latex       tables -> LaTeX
export      rows -> CSV, JSON
curves      rows -> curves, matrices, points
svg         curves -> drawings for the page
page        everything -> one HTML file
attention   which sounds guided which frames, as a run kept it
make        all of it in one call
"""

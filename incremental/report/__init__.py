"""Run folders to tables, figures and pages. Reads files only: no torch, no cache.

make        all of it in one call
select      run folders -> runs -> rows -> benchmarks, and why a run is left out
rows        a row and its statistics, a benchmark and its protocol
labels      names of rows
tables/     rows -> tables of marked cells, the same for every format
  table       cells, columns, notes, the overview
  paper       the paper's tables
  compare     pairs of methods, and caches
  statistics  bootstrap, analysis of variance
  targets     published figures, and targets from a CSV file
  check       comparison with targets
figures/    rows -> curves -> figure files, and drawings for the page
formats/    tables -> terminal, Markdown, LaTeX, CSV, JSON, HTML
"""

"""Run folders to tables, figures and pages. Reads files only: no torch, no cache.

gather      run folders -> the ones that count, and why the others do not
rows        runs that differ in seed and class order only -> one row with its statistics
tables      rows -> tables of marked cells, the same for every format
formats     tables -> terminal, Markdown, CSV
make        all of it in one call
"""

"""How tables are written: text, Markdown, LaTeX, CSV, JSON, HTML."""

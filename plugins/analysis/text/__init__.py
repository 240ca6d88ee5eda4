"""How anything is written: Markdown, units, figures, statistics, schemas, stored files. Imports no other wing."""

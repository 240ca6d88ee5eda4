"""Documents: read, checked by schema, stored, and their errors. Imports no other package of the project."""

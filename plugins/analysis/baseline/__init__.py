"""One host's measured run: result document in, report out. Imports `text` alone."""

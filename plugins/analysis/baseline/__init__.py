"""One host's measured run: result document in, report out. Imports `documents`, `statistics` and `render` alone."""

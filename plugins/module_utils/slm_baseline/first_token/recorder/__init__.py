"""Recording a start: what its processes open, and which parts of it are in memory when it is ready."""

"""Recording a start: what its processes open, and what of it lies in memory at readiness."""

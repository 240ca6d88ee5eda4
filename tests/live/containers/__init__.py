"""First-token targets in real containers: a daemon of the tests' own, and an image that they make."""

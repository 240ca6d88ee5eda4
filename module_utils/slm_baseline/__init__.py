"""Target-side code of slm-baseline: what its modules run on a host. Standard library only, Python 3.9 and later."""

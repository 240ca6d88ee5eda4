"""The fleet on one page: stored results and the last audit in, `reports/index.html` out.

Imports `documents`, `statistics` and `render` alone.
"""

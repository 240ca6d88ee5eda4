"""The sweep's analysis: samples by arm in, comparisons, report and pictures out.

Imports `documents`, `statistics` and `render` alone.
"""

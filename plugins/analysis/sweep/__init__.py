"""The sweep's analysis: samples by arm in, comparisons, report and pictures out. Imports `text` alone."""

"""The fleet's tuning audit: hosts' answers in, verdict and files out.

Imports `documents`, `statistics` and `render` alone.
"""

"""Measuring: one loader run in a verified state of the page cache becomes one sample.

Takes in a request and the host, gives out samples and what they share. Imports `host` alone, never `settings`: what is
measured must not depend on what was set.
"""

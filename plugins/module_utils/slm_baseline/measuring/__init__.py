"""Measuring: runs the loader in a verified state of the page cache and makes one sample of each run.

Takes a request and the host, gives samples and what they share. Imports `host` alone, never `settings`: what is
measured must not depend on what was set.
"""

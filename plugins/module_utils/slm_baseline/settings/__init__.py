"""Kernel settings: what is wanted, what the kernel has, the changes between, the snapshot before, the way back.

Takes in the user's variables and the host, gives out changes, rows and snapshots. Imports `host` alone.
"""

"""Kernel settings: the wanted and runtime values, the changes between them, the snapshot, and the rollback.

Takes in the user's variables and the host, gives out changes, rows and snapshots. Imports `host` alone.
"""

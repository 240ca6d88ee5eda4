"""What a run prints for the user: rejected input before it, progress during it, a closing summary after it.

Imports `documents`, `statistics` and `render` alone.
"""

"""Shortening the time to first token: record what a start reads, prefetch it for the next start, and cache bytecode.

Takes in a target (how to start it, how to tell that it is ready) and the host, gives out a plan and a bytecode folder.
Imports `host` alone.
"""

"""The first-token path: what a start reads, recorded once and replayed before the next start asks; and its bytecode.

Takes in a target (how to start it, how to tell that it is ready) and the host, gives out a plan and a bytecode folder.
Imports `host` alone.
"""

"""Other programs that write the wanted settings of a host: one rule for each place, and two kinds of results.

*Certain*: a declarative place, read as its own program reads it, or a plain command that a boot runs, holds another
value. *Possible*: a script or tool may write the setting. Only the certain ones refuse a tuning.
"""

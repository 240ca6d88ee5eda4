"""Who else writes the settings that are wanted of a host: a rule for each place, and two kinds of answers.

*Certain*: a declarative place, read as its own program reads it, or a plain command that a boot runs, holds another
value. *Possible*: a script or tool may write the setting. Only the certain ones refuse a tuning.
"""

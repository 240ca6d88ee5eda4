"""Where the targets of a host are. Apart from target.py: an audit of a host without targets needs no more than this."""

from __future__ import annotations

HOME = "/var/lib/slm-baseline/first-token"
PROGRAMS = f"{HOME}/bin"
TARGETS = f"{HOME}/targets"

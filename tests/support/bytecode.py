"""A unit's command lines as systemd shows them, and a host with a cache that fits."""

from __future__ import annotations


def command_lines(*flags: str) -> str:
    """The value of `ExecStartEx` for a command line with each of these flags (systemd 252)."""
    line = "{{ path=/bin/x ; argv[]=/bin/x --flags=y ; flags={} ; start_time=[n/a] ; pid=0 ; status=0/0 }}"
    return "\n".join(line.format(each) for each in flags)

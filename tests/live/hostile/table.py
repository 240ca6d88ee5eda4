"""The attacks as the page a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_INTRODUCTION = """\
# The list of attacks

Written by `tests/live/hostile` itself (`make test-hostile ARGS=--write-attacks`); not to be edited. What is trusted,
and why, is in [security.md](security.md).

Each attack runs against the real modules, and the last one against the real plays, as root on a real kernel: in mount
and process namespaces of their own, with throw-away `/etc`, `/var/lib`, `/run`, `/mnt`, `/opt`, `/srv`, `/home` and
`/tmp`. A second, hostile user works there, and other people's files lie there. After every attack this must hold too:

- no file, folder or link of anybody else's has changed: type, mode, owner, content or target;
- root has executed nothing that the hostile user could have changed: every execve(2) is held by fanotify(7) until owner
  and mode of the program and of every folder above it have been looked at;
- no process of the loader's user is left;
- every module and play ended in time, with success or one error that names knob, wanted, found, why and next step.
"""


_WING = """\
# The attacks on the first-token wing

Written by `tests/live/hostile/test_wing.py` itself (`make test-hostile ARGS=--write-attacks`); not to be edited. The
others are in [attacks.md](attacks.md); what is trusted, and why, is in [security.md](security.md).

Each attack runs against the real module, as root, under a real systemd in namespaces of its own, with a service of the
user `app` whose modules have no bytecode, and a second, hostile user. After every attack this must hold too:

- every module ended in time, with success or one error;
- the service runs, unless the attack still keeps it from it;
- a rollback succeeds and leaves nothing of ours.
"""

_CONTAINERS = """\
# The attacks from inside a container

Written by `tests/live/hostile/test_containers.py` itself (`make test-hostile ARGS=--write-attacks`); not to be edited.
The others are in [attacks.md](attacks.md) and [attacks-first-token.md](attacks-first-token.md); what is trusted, and
why, is in [security.md](security.md).

Each attack runs against the real module, as root, with containers of a real docker daemon on a real kernel. The
attacker is root in a container with docker's usual rights and a folder of the host as its volume. After every attack
this must hold too:

- nobody has opened, read or changed the host's secrets: fanotify(7) reports every opening of them, by whatever name;
- every module ended in time, with success or one error, and with less than 500 MiB of memory;
- a rollback succeeds and leaves nothing of ours, and no note of something that was stopped.
"""


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page of the attacks on tuning and measuring."""
    return _page(_INTRODUCTION, results)


def wing_page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page of the attacks on the first-token wing."""
    return _page(_WING, results)


def containers_page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page of the attacks from inside a container."""
    return _page(_CONTAINERS, results)


def _page(introduction: str, results: Sequence[Mapping[str, Any]]) -> str:
    held = sum(not result["broken"] for result in results)
    lines = [introduction, f"{held} of {len(results)} held.", ""]
    for who in dict.fromkeys(str(result["who"]) for result in results):
        lines += [f"## What {who} does", "", "| attack | what is done | what must hold | result |", "|---|---|---|---|"]
        for result in results:
            if result["who"] == who:
                verdict = "**broken**" if result["broken"] else "held"
                cells = (result["does"], result["holds"], verdict)
                lines.append("| " + " | ".join([result["name"], *map(str, cells)]) + " |")
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"

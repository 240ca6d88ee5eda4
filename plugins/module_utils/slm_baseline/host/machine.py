"""The identity of a machine, to tell a clone from the host that it was cloned from."""

from __future__ import annotations

import hashlib
import re

from .files import Host

_MACHINE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def machine_key(host: Host) -> str:
    """Return an identifier unique to this machine, from /etc/machine-id; "" where there is none yet.

    Hashed, since machine-id(5) asks to keep the id itself confidential.
    """
    text = (host.read_or_none("/etc/machine-id") or "").strip()
    return hashlib.sha256(f"slm-baseline\n{text}".encode()).hexdigest()[:32] if _MACHINE_ID.fullmatch(text) else ""

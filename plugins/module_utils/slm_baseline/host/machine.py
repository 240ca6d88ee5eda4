"""Which machine this is, for telling a clone from the host it was made of."""

from __future__ import annotations

import hashlib
import re

from .files import Host

_MACHINE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def machine_key(host: Host) -> str:
    """A name that no other machine has, from /etc/machine-id; "" where there is none yet.

    Hashed, since machine-id(5) wants the id itself kept from others.
    """
    text = (host.read_or_none("/etc/machine-id") or "").strip()
    return hashlib.sha256(f"slm-baseline\n{text}".encode()).hexdigest()[:32] if _MACHINE_ID.fullmatch(text) else ""

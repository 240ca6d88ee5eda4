"""How documents are stored on the control node: their JSON text, and a host's folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path


def as_json(value: object) -> str:
    """Indented JSON in the document's own order; ValueError for NaN and infinities, which JSON has no word for."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def folder_name(host: str) -> str:
    """A folder name for an inventory name: itself where it is harmless, else a cleaned one with the true one's digest.

    Harmless is up to 100 letters, digits, dots, dashes and underscores, starting with a letter or digit. Two different
    hosts never share a folder.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", host, re.ASCII):
        return str(host)
    digest = hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", host).lstrip("._-")[:60]
    return f"{cleaned or 'host'}-{digest}"


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts under `folder`, made where it is missing: temporary file, rename; OSError as the system gave it.

    Each is replaced as a whole, so that a collector never reads half of one. Readable by all, as umask allows: the
    exporter runs as another user.
    """
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix keeps the exporter, which reads *.prom, away from a temporary file.
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

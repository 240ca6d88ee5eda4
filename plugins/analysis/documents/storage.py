"""How documents are stored on the control node: their JSON text, and a host's folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

_LINE_EACH = ("samples", "measurements")
"""Lists of a document whose entries have a line each: hundreds of entries of a hundred fields each."""


def as_json(value: object) -> str:
    """Return indented JSON in the document's own order, one sample a line; raise ValueError for NaN and infinities."""
    if not isinstance(value, Mapping):
        return _dumps(value, indent=2) + "\n"
    entries = [f"  {_dumps(str(name))}: {_indented(str(name), part)}" for name, part in value.items()]
    return "{\n" + ",\n".join(entries) + "\n}\n" if entries else "{}\n"


def _indented(name: str, part: object) -> str:
    """Return one entry of a document as JSON, indented by two spaces."""
    if name in _LINE_EACH and isinstance(part, list) and part:
        return "[\n" + ",\n".join(f"    {_dumps(one)}" for one in part) + "\n  ]"
    # JSON text contains no line ends of its own.
    return _dumps(part, indent=2).replace("\n", "\n  ")


def _dumps(value: object, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def folder_name(host: str) -> str:
    """Return a folder name for an inventory name: the name itself if it is safe, else a cleaned one with its digest.

    Safe is up to 100 letters, digits, dots, dashes and underscores, starting with a letter or digit. Two different
    hosts never share a folder.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", host, re.ASCII):
        return str(host)
    digest = hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", host).lstrip("._-")[:60]
    return f"{cleaned or 'host'}-{digest}"


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts under `folder`, which is made if missing: temporary file, rename; raise OSError unchanged.

    Each file is replaced as a whole, so that a collector never reads half of one. All users may read it, within the
    umask: the exporter runs as another user.
    """
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # The exporter reads *.prom; the suffix keeps it away from a temporary file.
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_changed(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Write the files that differ from the existing ones, as write_files does; return the names that were written."""
    changed = {name: text for name, text in files.items() if _text(folder / name) != text}
    write_files(folder, changed)
    return list(changed)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None

"""The audit's files on the control node, each replaced as a whole, so that a collector never reads half of one."""

from __future__ import annotations

import os
from pathlib import Path

from analysis.audit.fleet import Audit
from analysis.audit.junit import junit
from analysis.audit.prometheus import fleet_metrics, host_metrics
from analysis.audit.summary import markdown
from analysis.text.storage import as_json, folder_name


def audit_files(audit: Audit) -> dict[str, str]:
    """Every file of an audit: path in the audit's folder -> text.

    The fleet's textfile starts with an underscore because no host's does, not even that of a host named `fleet`.
    """
    return {
        "audit.json": as_json(audit.document()),
        "audit.md": markdown(audit),
        "audit.xml": junit(audit),
        "metrics/_fleet.prom": fleet_metrics(audit),
        **{f"metrics/{folder_name(name)}.prom": host_metrics(audit, name) for name in audit.hosts},
    }


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write texts under `folder`, made where it is missing: temporary file, rename; OSError as the system gave it.

    Readable by all, as umask allows: the exporter runs as another user.
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

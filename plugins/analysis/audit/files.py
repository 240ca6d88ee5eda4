"""The audit's files on the control node."""

from __future__ import annotations

from analysis.audit.fleet import Audit
from analysis.audit.junit import junit
from analysis.audit.prometheus import fleet_metrics, host_metrics
from analysis.audit.summary import markdown
from analysis.documents.storage import as_json, folder_name


def audit_files(audit: Audit) -> dict[str, str]:
    """Return every file of an audit as a mapping of its path in the audit's folder to its text.

    The fleet's textfile starts with an underscore because no host's does, not even that of a host named `fleet`.
    """
    return {
        "audit.json": as_json(audit.document()),
        "audit.md": markdown(audit),
        "audit.xml": junit(audit),
        "metrics/_fleet.prom": fleet_metrics(audit),
        **{f"metrics/{folder_name(name)}.prom": host_metrics(audit, name) for name in audit.hosts},
    }

"""The audit as textfiles for node_exporter's textfile collector: one a host, one for the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from analysis.audit.fleet import STATUSES, Audit
from analysis.render.prometheus import family

_PREFIX = "slm_baseline_audit"


def fleet_metrics(audit: Audit) -> str:
    """Return the totals of the fleet as a textfile."""
    totals = audit.totals()
    return "".join(
        [
            _family(
                "fleet_hosts",
                "Hosts by status in the last audit.",
                [({"status": status}, totals[status]) for status in STATUSES],
            ),
            _family("fleet_drifted_knobs", "Knobs that drifted, over all hosts.", [({}, totals["drifted_rows"])]),
            _family("fleet_competing_writers", "Competing writers, over all hosts.", [({}, totals["competitors"])]),
            _family("fleet_timestamp_seconds", "When the last audit ended, in Unix time.", [({}, _finished(audit))]),
        ]
    )


def host_metrics(audit: Audit, name: str) -> str:
    """Return one host's status, knobs and conflicts as a textfile."""
    host = audit.hosts[name]
    # A host that names a knob twice must not make the whole textfile invalid.
    knobs = {row.knob: any(other.drifted for other in host.rows if other.knob == row.knob) for row in host.rows}
    label = {"host": name}
    return "".join(
        [
            _family(
                "host_status",
                "1 for the host's status in the last audit, 0 for the others.",
                [({**label, "status": status}, int(host.status == status)) for status in STATUSES],
            ),
            _family(
                "knob_drift",
                "1 where the knob drifted, 0 where it is clean.",
                [({**label, "knob": knob}, int(drifted)) for knob, drifted in knobs.items()],
            ),
            _family(
                "competing_writers",
                "Other writers on the host that want another value of a knob.",
                [(label, len(host.competitors))],
            ),
            _family("timestamp_seconds", "When the host was last audited, in Unix time.", [(label, _finished(audit))]),
        ]
    )


def _family(name: str, text: str, samples: list[tuple[Mapping[str, str], int]]) -> str:
    return family(f"{_PREFIX}_{name}", text, samples)


def _finished(audit: Audit) -> int:
    return int(datetime.fromisoformat(audit.finished_at).timestamp())

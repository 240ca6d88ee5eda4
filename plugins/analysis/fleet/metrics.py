"""Metrics of every host's latest run as one textfile, for the same collector that reads the audit's.

There is one file for all hosts, because it is always made from all that is stored: a host without results drops out.
"""

from __future__ import annotations

from analysis.fleet.fleet import Fleet
from analysis.fleet.outliers import groups
from analysis.fleet.run import COMPARED_METRICS, COUNTS, KINDS, Run
from analysis.render.prometheus import family

FILE = "_baseline.prom"
"""Begins with an underscore, because no host's textfile does."""
_TIMES = {
    "time_to_first_token_s": ("time_to_first_token_seconds", "Process start to first token, median of the latest run."),
    "load_real_s": ("load_seconds", "Process start to weights loaded, median of the latest run."),
    "steady_token_s": (
        "steady_token_seconds",
        "A token once nothing is done for the first time, median of the latest run.",
    ),
}


def metrics(fleet: Fleet) -> str:
    """Return the textfile; "" for a fleet that was never measured."""
    latest = [host.latest for host in fleet.hosts if host.latest]
    return "".join(
        [
            *(_times(metric, name, text, latest) for metric, (name, text) in _TIMES.items()),
            family(
                "slm_baseline_disk_bytes_per_second",
                "What the disk gives, measured beside the latest run.",
                [(_host(run), run.disk_bytes_per_s) for run in latest if run.disk_bytes_per_s is not None],
            ),
            family(
                "slm_baseline_memory_bytes",
                "Resident set while the model is held, median of the latest run.",
                [({**_host(run), **_model(run)}, run.memory_bytes) for run in latest if run.memory_bytes is not None],
            ),
            family(
                "slm_baseline_first_token_lower_bound_seconds",
                "How soon a cold first token could come: what disk and remaining work allow, from the latest run.",
                [({**_host(run), **_model(run)}, bound) for run in latest if (bound := run.first_token.lower_bound_s)],
            ),
            _savings(latest),
            family(
                "slm_baseline_idle_pool_bytes",
                "Huge pages that are reserved and used by nobody, as the latest run found them.",
                [(_host(run), run.idle_pool_bytes) for run in latest if run.idle_pool_bytes is not None],
            ),
            family(
                "slm_baseline_noisy_samples",
                "Valid samples of the latest run that other work on the host may have disturbed.",
                [(_host(run), run.noisy) for run in latest if run.noisy is not None],
            ),
            family(
                "slm_baseline_samples",
                "Samples of the latest run by what they turned out to be.",
                [
                    ({**_host(run), "kind": kind}, count)
                    for run in latest
                    for kind, count in zip(COUNTS, run.counts, strict=True)
                ],
            ),
            family(
                "slm_baseline_rollback_timestamp_seconds",
                "When the host was put back, in Unix time, where that is newer than its latest run and audit.",
                [
                    ({"host": host.name}, int(host.rolled_back_at.timestamp()))
                    for host in fleet.hosts
                    if host.rolled_back_at
                ],
            ),
            family(
                "slm_baseline_run_timestamp_seconds",
                "When the latest run began, in Unix time.",
                [(_host(run), int(run.started_at.timestamp())) for run in latest],
            ),
            _likeness(fleet, latest),
            family(
                "slm_baseline_change_ratio",
                "After over before, where a host has become slower or faster beyond noise.",
                [({"host": change.host, "metric": change.metric}, round(change.ratio, 4)) for change in fleet.changes],
            ),
        ]
    )


def _times(metric: str, name: str, text: str, latest: list[Run]) -> str:
    samples = [
        ({**_host(run), **_model(run), "kind": kind}, value)
        for run in latest
        for kind in KINDS
        if (value := run.figure(f"{kind}_{metric}")) is not None
    ]
    return family(f"slm_baseline_{name}", text, samples)


def _savings(latest: list[Run]) -> str:
    """Return the possible savings, in all and by remedy; 0 if the gap may be noise."""
    samples = []
    for run in latest:
        if (saving := run.first_token.saving_s) is not None:
            parts = run.first_token.saves if saving else {}
            for name, seconds in {"all": saving, **parts}.items():
                samples.append(({**_host(run), **_model(run), "by": name}, round(seconds, 6)))
    return family(
        "slm_baseline_first_token_saving_seconds",
        "Seconds that a cold first token could come sooner, in all and by remedy, from the latest run.",
        samples,
    )


def _likeness(fleet: Fleet, latest: list[Run]) -> str:
    """Return a sample for every host that has like hosts: 0 if it is no outlier, so that an alert ends."""
    compared = [run for group in groups([run for run in latest if run.times]) for run in group]
    odd = {(each.host, odd.metric): odd.share for each in fleet.outliers for odd in each.odd}
    return family(
        "slm_baseline_outlier_share",
        "How far a host is off the median of its like, where it is an outlier; 0 where it is none.",
        [
            ({**_host(run), "metric": metric}, round(odd.get((run.host, metric), 0.0), 4))
            for run in compared
            for metric in COMPARED_METRICS
            if run.figure(metric) is not None
        ],
    )


def _host(run: Run) -> dict[str, str]:
    return {"host": run.host}


def _model(run: Run) -> dict[str, str]:
    return {"model": run.environment.model or ""}

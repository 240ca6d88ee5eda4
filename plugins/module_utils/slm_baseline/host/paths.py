"""Every path of ours on a host, once. Whoever asks what this project leaves where finds it here.

Drop-ins and units carry our mark and stand in the system's own folders (settings/boot, first_token/unit_files.py).
"""

from __future__ import annotations

STATE = "/var/lib/slm-baseline"
"""What must outlive a reboot: prior state, samples, recorded starts."""
SNAPSHOT = f"{STATE}/snapshot.json"
ARCHIVE = f"{STATE}/archive"
INSTALL_DIRS = f"{STATE}/homes.json"
"""Which folders the measurement was installed in, so that a purge finds each."""
RUNS = f"{STATE}/runs"
SWEEP_PLAN = f"{RUNS}/sweep.json"

FIRST_TOKEN = f"{STATE}/first-token"
PROGRAMS = f"{FIRST_TOKEN}/bin"
TARGETS = f"{FIRST_TOKEN}/targets"
STOPPED_NOTE = f"{FIRST_TOKEN}/stopped.json"
"""What a recording has stopped and is to be started again, whoever comes next."""

VOLATILE = "/run/slm-baseline"
"""What a reboot must take with it."""
FIT = f"{VOLATILE}/first-token"
"""What the next start of each recorded unit is given."""
RECORDING = f"{FIT}/recording"
"""While it is there, neither a replay nor a cache of ours takes part in a start."""
LEASE = f"{VOLATILE}/lease.json"
LOCK = f"{VOLATILE}/lock"
NAMES = f"{VOLATILE}/names.json"
"""Under which names of the inventory the latest run works on this host, and what it wants under each."""
TAKEN_OVER = f"{VOLATILE}/taken-over.json"
"""Runs whose host another run took over, each with that one's name."""
SWEEP_PRIOR = f"{VOLATILE}/sweep-prior.json"
"""What a sweep found before its arms changed anything; the same document as a snapshot, gone once it is restored.

Arms set run-time values alone. A reboot undoes these, and must take their prior state with them: on disk it would wait
there to put old values over whatever was set since.
"""

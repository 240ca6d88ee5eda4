"""Every path of this project on a host, defined once: the list of what it leaves there.

Drop-ins and units carry our mark and are in the system's own folders (settings/boot, first_token/unit_files.py).
"""

from __future__ import annotations

STATE = "/var/lib/slm-baseline"
"""What must survive a reboot: prior state, samples, recorded starts."""
SNAPSHOT = f"{STATE}/snapshot.json"
ARCHIVE = f"{STATE}/archive"
INSTALL_DIRS = f"{STATE}/homes.json"
"""The folders in which the measurement was installed, so that a purge finds each."""
RUNS = f"{STATE}/runs"
SWEEP_PLAN = f"{RUNS}/sweep.json"

FIRST_TOKEN = f"{STATE}/first-token"
PROGRAMS = f"{FIRST_TOKEN}/bin"
TARGETS = f"{FIRST_TOKEN}/targets"
STOPPED_NOTE = f"{FIRST_TOKEN}/stopped.json"
"""What a recording has stopped and the next task must start again."""

VOLATILE = "/run/slm-baseline"
"""What must not survive a reboot."""
FIT = f"{VOLATILE}/first-token"
"""The environment for the next start of each recorded unit."""
RECORDING = f"{FIT}/recording"
"""While this file exists, no start uses a replay or a cache of ours."""
LEASE = f"{VOLATILE}/lease.json"
LOCK = f"{VOLATILE}/lock"
CONTAINERS_NOTE = f"{VOLATILE}/measured-in-containers"
"""Which runtime a measurement has run its loader with, so that a purge finds a container that is left."""
NAMES = f"{VOLATILE}/names.json"
"""The inventory names under which the latest run works on this host, and what it wants under each."""
TAKEN_OVER = f"{VOLATILE}/taken-over.json"
"""Runs from which another run took this host over, each with the name of the new one."""
SWEEP_PRIOR = f"{VOLATILE}/sweep-prior.json"
"""What a sweep found before its arms changed anything; the same document as a snapshot, gone once it is restored.

Arms set only runtime values. A reboot undoes these, and must also remove their prior state: on disk it would later
restore old values over whatever was set since.
"""

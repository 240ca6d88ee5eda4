"""How a sweep measures: the samples of the benchmark, one for each arm, dtype and state of the page cache."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass, field
from typing import Any

from ..host.clock import now
from ..host.files import Host
from ..measuring.disk_ceiling import Ceiling
from ..measuring.gpu import DRIVER_VERSION
from ..measuring.protocol import Subject, ceiling_passes, ceiling_record, empty_sample, measure_sample
from ..measuring.run import LOADER, Request, whole_run
from ..measuring.store import Block, close_block, read_lines
from .design import Arm


@dataclass
class Bench:
    """Measures the samples of one block, beside that block's own disk ceiling."""

    host: Host
    subject: Subject
    number: int
    passes: list[Ceiling] = field(default_factory=list)
    software: dict[str, Any] | None = None

    def measure(self, arm: Arm, dtype: str, wanted: str) -> dict[str, Any]:
        if not self.passes:
            # A second pass, in the first block alone, shows whether a layer below this host caches.
            self.passes = ceiling_passes(self.subject, 2 if self.number == 1 else 1)
        sample, said = measure_sample(
            self.host,
            self.subject,
            wanted,
            block=self.number,
            order=0,
            dtype=dtype,
            arm=arm.name,
            env=arm.env,
            settings=arm.settings(),
            ceiling=self.passes[0],
        )
        self.software = said["software"] if said else self.software
        return sample

    def failed(self, wanted: str, reason: str) -> dict[str, Any]:
        return empty_sample(self.number, wanted, "failed", reason, now())

    def close(self, run_id: str) -> None:
        """Keep what the block's samples share, for the result document."""
        if self.passes:
            close_block(
                self.host, run_id, self.number, {"ceiling": ceiling_record(self.passes), "software": self.software}
            )


def subject_record(host: Host, request: Request, subject: Subject) -> dict[str, Any]:
    """What must stay the same while a sweep lasts, for its plan."""
    loader = host.path(f"{request.environment.home}/{LOADER}").read_bytes()
    return {
        "model": subject.model.as_dict(),
        "python": request.environment.interpreter,
        "packages": subject.interpreter.packages,
        "scope": subject.scope,
        "timeout_s": subject.loader.timeout_s,
        "user": request.user,
        # A reboot in between may have brought others.
        "kernel": platform.release(),
        "gpu_driver": (host.read_or_none(DRIVER_VERSION) or "").partition("\n")[0],
        "loader_sha256": hashlib.sha256(loader).hexdigest(),
    }


def record(host: Host, request: Request, subject: Subject, run_id: str) -> dict[str, Any]:
    """The parts of the sweep's document that the measurement knows: host, model, software, protocol, ceiling."""
    shared = {
        line["block"]: line["shared"] for line in read_lines(host, run_id) if isinstance(line.get("shared"), dict)
    }
    whole = whole_run(host, request, subject, {number: Block(number, [], each) for number, each in shared.items()})
    protocol = {name: whole["protocol"][name] for name in ("cold_scope", "timeout_s", "user", "loader_sha256")}
    return {**{name: whole[name] for name in ("host", "model", "software", "ceiling")}, "protocol": protocol}

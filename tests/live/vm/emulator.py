"""How QEMU emulates each architecture that the machines have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Emulator:
    """The program, a board and a processor that it knows, and the device that the kernel calls its first console."""

    program: str
    board: str
    processor: str
    console: str

    def words(self, use_kvm: bool = False) -> list[str]:
        """The beginning of its command: a machine without anything but board and processor."""
        plain = ["-nodefaults", "-no-user-config", "-display", "none"]
        how = ["-accel", "kvm", "-cpu", "host"] if use_kvm else ["-accel", "tcg,thread=multi", "-cpu", self.processor]
        return [self.program, *plain, "-machine", self.board, *how]


EMULATORS: Mapping[str, Emulator] = {
    "amd64": Emulator("qemu-system-x86_64", "q35", "max", "ttyS0"),
    # Its own algorithm for pointer authentication: the architecture's takes half of the emulation's time.
    "arm64": Emulator("qemu-system-aarch64", "virt,gic-version=3", "max,pauth-impdef=on", "ttyAMA0"),
}

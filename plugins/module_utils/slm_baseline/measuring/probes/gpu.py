"""NVIDIA GPUs of a host as `nvidia-smi -q -x` reports them, whatever state their driver is in.

Source: nvsmi_device_v13.dtd, which comes with the driver. nvidia-smi rather than NVML: no structure here depends on the
library's version, and a driver that hangs blocks only nvidia-smi's process.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any
from xml.etree import ElementTree

from ...host.errors import ParseError
from ...host.files import Host
from ...host.trust import find_program
from ..loader.events import LoaderGpu

DRIVER_VERSION = "/proc/driver/nvidia/version"
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/opt/nvidia/bin")
_NO_DEVICES = "No devices were found"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_BYTES = re.compile(r"([0-9]{1,12}) (B|KiB|MiB|GiB)", re.ASCII)
_NUMBER = re.compile(r"([0-9]{1,9})x?", re.ASCII)
_MODULE_VERSION = re.compile(r"NVRM version:.*?\s([0-9]+(?:\.[0-9]+)+)\s", re.ASCII)


@dataclass(frozen=True)
class GpuProcess:
    """A process with a context on a GPU. `used_bytes` is None where the driver does not report it."""

    pid: int
    name: str | None
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One GPU; None for what it does not support or the driver does not report.

    `index` is nvidia-smi's, by PCI bus; CUDA's differs unless CUDA_DEVICE_ORDER=PCI_BUS_ID, so match by `uuid`. The
    PCIe link drops to a lower generation while the GPU idles.
    """

    index: int
    name: str
    uuid: str | None
    memory_bytes: int | None
    memory_used_bytes: int | None
    persistence_mode: bool | None
    pcie_generation: int | None
    pcie_generation_max: int | None
    pcie_width: int | None
    pcie_width_max: int | None
    compute_mode: str | None
    mig_mode: bool | None
    processes: tuple[GpuProcess, ...]

    def as_dict(self, own_pids: Collection[int] = ()) -> dict[str, Any]:
        """Return the GPU as the result document has it: `foreign_processes` instead of all processes."""
        facts = {name: value for name, value in asdict(self).items() if name != "processes"}
        return {**facts, "foreign_processes": [asdict(process) for process in self.foreign_processes(own_pids)]}

    def foreign_processes(self, own_pids: Collection[int]) -> list[GpuProcess]:
        """Return its processes that are not ours. In a container the driver reports the host's pids, or none."""
        return [process for process in self.processes if process.pid not in own_pids]


@dataclass(frozen=True)
class GpuFacts:
    """A host's GPUs. `driver` is None without one; `note` says in a sentence why GPUs could not be read."""

    driver: str | None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class GpuUse:
    """A sample's facts of one GPU in bytes: the driver's view before the run and while the model is held, and torch's.

    `index` is torch's, `driver_index` nvidia-smi's: they differ where CUDA_VISIBLE_DEVICES hides devices. None for what
    the driver or torch does not report.
    """

    index: int
    driver_index: int | None
    name: str
    memory_before_bytes: int | None
    memory_after_bytes: int | None
    allocated_bytes: int | None
    reserved_bytes: int | None
    peak_bytes: int | None
    foreign_processes: tuple[GpuProcess, ...]


def parse_nvidia_smi(text: str) -> GpuFacts:
    """Parse the output of `nvidia-smi -q -x`; ParseError where it is another document."""
    expected = "XML with the root nvidia_smi_log"
    # The document needs no entities; a hostile one could grow without bound through them.
    if "<!ENTITY" in text:
        raise ParseError("nvidia-smi -q -x", expected, text)
    # Warnings, such as that of a corrupted infoROM, may follow the document.
    document, end, _ = text.partition("</nvidia_smi_log>")
    try:
        root = ElementTree.fromstring(document + end)
    except (ElementTree.ParseError, ValueError):
        raise ParseError("nvidia-smi -q -x", expected, text) from None
    if root.tag != "nvidia_smi_log":
        raise ParseError("nvidia-smi -q -x", expected, text)
    gpus = tuple(_gpu(index, element) for index, element in enumerate(root.findall("gpu")))
    return GpuFacts(_text(root, "driver_version"), _text(root, "cuda_version"), gpus)


class _FirstElement(ElementTree.TreeBuilder):
    """A tree builder that keeps the root while it grows: ElementTree does not return it once the text is damaged."""

    first: ElementTree.Element | None = None

    def start(self, tag: str, attrs: dict[str, str], /) -> ElementTree.Element:
        element = super().start(tag, attrs)
        self.first = element if self.first is None else self.first
        return element


def parse_damaged_nvidia_smi(text: str) -> GpuFacts:
    """Parse what precedes the damage in incomplete XML, as some drivers write it, with a note on it.

    ParseError where not even one GPU's name precedes it.
    """
    error = ParseError("nvidia-smi -q -x", "XML with the root nvidia_smi_log and a GPU in it", text)
    if "<!ENTITY" in text:
        raise error
    builder, where = _FirstElement(), "its end"
    try:
        ElementTree.XMLParser(target=builder).feed(text)
    except (ElementTree.ParseError, ValueError) as damage:
        where = f"line {damage.position[0]}" if isinstance(damage, ElementTree.ParseError) else where
    root = builder.first
    if root is None or root.tag != "nvidia_smi_log":
        raise error
    gpus = [element for element in root.findall("gpu") if _text(element, "product_name")]
    if not gpus:
        raise error
    return GpuFacts(
        _text(root, "driver_version"),
        _text(root, "cuda_version"),
        tuple(_gpu(index, element) for index, element in enumerate(gpus)),
        f"nvidia-smi answered, and its XML is damaged at {where}: what stands behind that is not known",
    )


def parse_module_version(text: str) -> str:
    """Parse the driver's version from /proc/driver/nvidia/version; ParseError where it has none."""
    match = _MODULE_VERSION.search(text)
    if not match:
        raise ParseError(DRIVER_VERSION, "`NVRM version: NVIDIA ... 580.95.05 ...`", text)
    return match[1]


def read_gpus(host: Host, timeout_s: float = 60.0) -> GpuFacts:
    """Read the host's GPUs; never an error, since measuring goes on without them. Takes seconds on an idle driver."""
    loaded = host.read_or_none(DRIVER_VERSION)
    try:
        driver = parse_module_version(loaded) if loaded is not None else None
    except ParseError:
        driver = None
    program = _nvidia_smi(host)
    if program is None:
        return GpuFacts(driver, note="there is an NVIDIA driver but no nvidia-smi to ask it" if loaded else None)
    status, output = _run([program, "-q", "-x"], timeout_s)
    if status is None:
        return GpuFacts(driver, note=output)
    if _NO_DEVICES in output:
        return GpuFacts(driver, note="the NVIDIA driver finds no device")
    try:
        facts = _parse_any(output, is_whole=status == 0)
    except ParseError:
        return GpuFacts(driver, note=f"nvidia-smi ended with status {status}: {' '.join(output.split())[:200]}")
    if not facts.gpus:
        return GpuFacts(facts.driver or driver, facts.cuda, note="the NVIDIA driver finds no device")
    return facts


def _parse_any(text: str, is_whole: bool) -> GpuFacts:
    """Parse a document, or the readable part of a damaged one where nvidia-smi reported success."""
    try:
        return parse_nvidia_smi(text)
    except ParseError:
        if not is_whole:
            raise
        return parse_damaged_nvidia_smi(text)


def gpu_use(
    devices: Iterable[LoaderGpu], before: GpuFacts, held: GpuFacts, own_pids: Collection[int]
) -> tuple[GpuUse, ...]:
    """Combine torch's view of each GPU with the driver's.

    `before` was read before the loader started, `held` while it held the model; `own_pids` are the loader's.
    """
    return tuple(_one_use(device, before, held, own_pids) for device in devices)


def _one_use(device: LoaderGpu, before: GpuFacts, held: GpuFacts, own_pids: Collection[int]) -> GpuUse:
    earlier, now = _matching(before, device), _matching(held, device)
    seen = [*(earlier.processes if earlier else ()), *(now.foreign_processes(own_pids) if now else ())]
    known = earlier or now
    return GpuUse(
        index=device.index,
        driver_index=known.index if known else None,
        name=device.name,
        memory_before_bytes=earlier.memory_used_bytes if earlier else None,
        memory_after_bytes=now.memory_used_bytes if now else None,
        allocated_bytes=device.allocated_bytes,
        reserved_bytes=device.reserved_bytes,
        peak_bytes=device.peak_allocated_bytes,
        foreign_processes=tuple({process.pid: process for process in seen}.values()),
    )


def _matching(facts: GpuFacts, device: LoaderGpu) -> Gpu | None:
    """Return the GPU that torch calls `device`: by UUID, which torch gives without the prefix, else the only one.

    In MIG mode torch sees a slice with its own UUID, and the whole GPU's values would include its neighbours.
    """
    uuid = (device.uuid or "").rpartition("GPU-")[2]
    found = [gpu for gpu in facts.gpus if uuid and gpu.uuid == f"GPU-{uuid}"]
    if not found and len(facts.gpus) == 1 and not facts.gpus[0].mig_mode:
        return facts.gpus[0]
    return found[0] if found else None


def _gpu(index: int, element: ElementTree.Element) -> Gpu:
    link = "pci/pci_gpu_link_info"
    return Gpu(
        index=index,
        name=_text(element, "product_name") or "unknown",
        uuid=_text(element, "uuid"),
        memory_bytes=_bytes(element, "fb_memory_usage/total"),
        memory_used_bytes=_bytes(element, "fb_memory_usage/used"),
        persistence_mode=_switch(element, "persistence_mode"),
        pcie_generation=_number(element, f"{link}/pcie_gen/current_link_gen"),
        pcie_generation_max=_number(element, f"{link}/pcie_gen/max_link_gen"),
        pcie_width=_number(element, f"{link}/link_widths/current_link_width"),
        pcie_width_max=_number(element, f"{link}/link_widths/max_link_width"),
        compute_mode=_text(element, "compute_mode"),
        mig_mode=_switch(element, "mig_mode/current_mig"),
        processes=tuple(_processes(element)),
    )


def _processes(gpu: ElementTree.Element) -> Iterable[GpuProcess]:
    for element in gpu.findall("processes/process_info"):
        pid = _number(element, "pid")
        if pid is not None:
            yield GpuProcess(pid, _text(element, "process_name"), _bytes(element, "used_memory"))


def _text(element: ElementTree.Element, path: str) -> str | None:
    text = (element.findtext(path) or "").strip()
    return None if text in ("", "N/A", "[N/A]", "Not Supported", "[Not Supported]") else text


def _number(element: ElementTree.Element, path: str) -> int | None:
    match = _NUMBER.fullmatch(_text(element, path) or "")
    return int(match[1]) if match else None


def _bytes(element: ElementTree.Element, path: str) -> int | None:
    match = _BYTES.fullmatch(_text(element, path) or "")
    return int(match[1]) * _UNITS[match[2]] if match else None


def _switch(element: ElementTree.Element, path: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(_text(element, path) or "")


def _nvidia_smi(host: Host) -> str | None:
    """Find nvidia-smi, also beyond PATH, which sudo shortens; only in folders where only root can write."""
    path = find_program(host, "nvidia-smi", _FOLDERS)
    return str(host.path(path)) if path else None


def _run(command: list[str], timeout_s: float) -> tuple[int | None, str]:
    """Run a command; return exit status and output: None and the reason where it could not run or timed out."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        return None, f"nvidia-smi cannot be run: {error.strerror}"
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        # A hanging driver keeps nvidia-smi in an uninterruptible sleep, so waiting for it would hang too.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return None, f"nvidia-smi gave no answer in {timeout_s:g} s: the driver may hang"
    return process.returncode, (output or errors).decode(errors="replace")

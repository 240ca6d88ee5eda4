"""The next boot's command line: settings of boot loaders and image builders that the running kernel does not have.

None of it is certain: another entry may be chosen, and most files take effect only once a boot loader's own file is
regenerated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .conflict import Conflict, Scanner
from .declared import cmdline_values

KIND = "pending: the next boot's command line"

_ASSIGNED = re.compile(r"^\s*(?:export\s+)?(?:set\s+)?(\w+)\s*(\+?)=\s*(.*)$", re.ASCII)
_GRUB_ARGUMENTS = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX_XEN_REPLACE", "kernelopts")
_LINUX = re.compile(r"^\s*linux(?:efi|16)?\s+\S+\s+(.*)$")
_OPTIONS = re.compile(r"^\s*(?:options|append|APPEND|cmdline)\s*[=\s]\s*(.*)$", re.IGNORECASE)
_TOML = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_ENTRIES = ("/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries")
_KERNEL_INSTALL = ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline")
"""The first one that exists counts: kernel-install(8)."""
_PLAIN = ("/boot/cmdline.txt", "/boot/firmware/cmdline.txt")
_PLAIN_FOLDERS = ("/etc/kernel/cmdline.d", "/etc/cmdline.d", "/usr/lib/kernel/cmdline.d")
_MADE = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
_EFI = "/boot/efi/EFI"
_ENVIRONMENTS = ("/boot/grub2/grubenv", "/boot/grub/grubenv")
_VARIABLES = ("kernelopts", "tuned_params")
"""What BLS entries of RHEL take from grubenv or grub.cfg."""
_OEM = ("/oem/grub.cfg", "/usr/share/oem/grub.cfg")
_EXTLINUX = ("/boot/extlinux/extlinux.conf", "/extlinux/extlinux.conf")
_KARGS = ("/usr/lib/bootc/kargs.d", "/etc/bootc/kargs.d")
_ARCHITECTURES = {"ppc64le": "powerpc64", "ppc64": "powerpc64", "i686": "x86", "armv7l": "arm"}
"""Names of machines that Rust, in which bootc is written, calls otherwise."""
_DRACUT = ("/usr/lib/dracut/dracut.conf.d", "/etc/dracut.conf.d")
_ASSIGNING = {
    "/etc/tuned/bootcmdline": ("TUNED_BOOT_CMDLINE",),
    "/etc/zipl.conf": ("parameters",),
    "/etc/dracut.conf": ("kernel_cmdline",),
    "/etc/kernel/uki.conf": ("Cmdline",),
    "/etc/systemd/ukify.conf": ("Cmdline",),
    "/etc/default/u-boot": ("U_BOOT_PARAMETERS",),
    "/etc/default/flash-kernel": ("LINUX_KERNEL_CMDLINE", "LINUX_KERNEL_CMDLINE_DEFAULTS"),
    **dict.fromkeys(_OEM, ("linux_append", "linux_console")),
}
"""Files that assign command lines to variables, and which."""


@dataclass(frozen=True)
class Piece:
    """A part of a command line, and where it stands."""

    path: str
    line: int
    text: str


def next_boot(scanner: Scanner) -> Iterator[Conflict]:
    """Yield every place that sets the next kernel's command line, except what the running kernel was given too."""
    running = cmdline_values(scanner, scanner.host.read_or_none("/proc/cmdline") or "")
    seen = set()
    for pieces in _command_lines(scanner):
        for found in read_pieces(scanner, pieces):
            if running.get(found.knob) != found.value and found not in seen:
                seen.add(found)
                yield found


def read_pieces(scanner: Scanner, pieces: Sequence[Piece]) -> Iterator[Conflict]:
    """Yield what a command line sets that stands in several places; each setting at the place that completes it."""
    whole = cmdline_values(scanner, " ".join(piece.text for piece in pieces)) if pieces else {}
    for knob, value in whole.items():
        for count, piece in enumerate(pieces, 1):
            so_far = " ".join(each.text for each in pieces[:count])
            if count == len(pieces) or cmdline_values(scanner, so_far).get(knob) == value:
                yield Conflict(piece.path, piece.line, knob, value, KIND, False)
                break


def _command_lines(scanner: Scanner) -> Iterator[list[Piece]]:
    """Yield command lines, each in the pieces of which it is made."""
    yield from _grub(scanner)
    yield from _entries(scanner)
    plain = [f"{folder}/{name}" for folder in _PLAIN_FOLDERS for name in scanner.host.names(folder)]
    kernel_install = [path for path in _KERNEL_INSTALL if scanner.text(path)][:1]
    for path in (*_PLAIN, *kernel_install, *plain):
        yield [Piece(path, number, text) for number, text in scanner.lines(path, joined=False)]
    for path in (f"{folder}/{name}" for folder in _KARGS for name in scanner.host.names(folder)):
        if path.endswith(".toml"):
            yield list(_kargs(scanner, path))
    for path in _EXTLINUX:
        yield from ([piece] for piece in _matching(scanner, path, _OPTIONS))
    dracut = {f"{folder}/{name}": ("kernel_cmdline",) for folder in _DRACUT for name in scanner.host.names(folder)}
    for path, names in {**_ASSIGNING, **dracut}.items():
        variables = _assigned(scanner, [path], names)
        yield from variables.values()


def _grub(scanner: Scanner) -> Iterator[list[Piece]]:
    """Yield what grub-mkconfig joins, the first entry of the generated file, and the variables that BLS entries use."""
    folder = "/etc/default/grub.d"
    more = [f"{folder}/{name}" for name in scanner.host.names(folder) if name.endswith(".cfg")]
    variables = _assigned(scanner, ["/etc/default/grub", *more], _GRUB_ARGUMENTS)
    yield [piece for name in _GRUB_ARGUMENTS for piece in variables.get(name, ())]
    on_efi = [f"{_EFI}/{name}/grub.cfg" for name in scanner.host.names(_EFI)]
    for path in (*_MADE, *on_efi):
        yield list(_matching(scanner, path, _LINUX))[:1]
        yield from _assigned(scanner, [path], _VARIABLES).values()
    for path in _ENVIRONMENTS:
        for number, text in enumerate(scanner.text(path).splitlines(), 1):
            name, _, value = text.partition("=")
            if name in _VARIABLES:
                yield [Piece(path, number, value)]


def _entries(scanner: Scanner) -> Iterator[list[Piece]]:
    """Yield entries of the Boot Loader Specification: the chosen one if known, else all but the rescue ones."""
    chosen = ""
    for path in _ENVIRONMENTS:
        for line in scanner.text(path).splitlines():
            if line.startswith("saved_entry="):
                chosen = f"{line.partition('=')[2].strip()}.conf"
    for folder in _ENTRIES:
        names = [name for name in scanner.host.names(folder) if name.endswith(".conf") and "rescue" not in name]
        for name in [chosen] if chosen in names else names:
            yield list(_matching(scanner, f"{folder}/{name}", _OPTIONS))


def _kargs(scanner: Scanner, path: str) -> Iterator[Piece]:
    """Yield `kargs = ["a", "b"]` of bootc, possibly over several lines; nothing for other architectures."""
    machines = re.search(r"^match-architectures\s*=\s*\[([^\]]*)\]", scanner.text(path), re.MULTILINE)
    machine = os.uname().machine
    if machines and _ARCHITECTURES.get(machine, machine) not in _strings(machines[1]):
        return
    inside = False
    for number, text in scanner.lines(path, joined=False):
        if re.match(r"kargs\s*=", text):
            inside = True
        elif re.match(r"[\w-]+\s*=|\[", text):
            inside = inside and text.startswith("[") and not text.startswith("[[")
        if inside:
            yield Piece(path, number, " ".join(_strings(text)))
            inside = "]" not in text


def _strings(text: str) -> list[str]:
    return [first or second for first, second in _TOML.findall(text)]


def _matching(scanner: Scanner, path: str, expression: re.Pattern[str]) -> Iterator[Piece]:
    for number, text in scanner.lines(path, joined=False):
        match = expression.match(text)
        if match:
            yield Piece(path, number, match[1])


def _assigned(scanner: Scanner, paths: Iterable[str], names: Sequence[str]) -> dict[str, list[Piece]]:
    """Return the last values of shell variables, in pieces: `+=` and `X="$X ..."` add to what was there."""
    variables: dict[str, list[Piece]] = {}
    for path in paths:
        for number, text in scanner.lines(path):
            match = _ASSIGNED.match(text)
            if match and match[1] in names:
                name, value = match[1], _unquoted(match[3])
                adds = match[2] or re.search(rf"\$(?:{name}\b|\{{{name}\}})", value)
                before = variables.get(name, []) if adds else []
                variables[name] = [*before, Piece(path, number, value)]
    return variables


def _unquoted(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"'):
        quote = text[0]
        end = text.find(quote, 1)
        inner = text[1 : end if end > 0 else len(text)]
        return inner.replace('\\"', '"')
    return text.partition(" #")[0]

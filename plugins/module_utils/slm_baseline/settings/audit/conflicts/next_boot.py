"""The next boot's command line: settings of boot loaders and image builders that the running kernel does not have.

None of it is certain: another entry may be chosen, and most files take effect only once a boot loader's own file is
regenerated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .conflict import Conflict, Scanner
from .declared import cmdline_values

KIND = "pending: the next boot's command line"

_ASSIGNED = re.compile(r"^\s*(?:export\s+)?(?:set\s+)?(\w+)\s*\+?=\s*(.*)$", re.ASCII)
_GRUB_ARGUMENTS = frozenset(
    ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX_XEN_REPLACE", "kernelopts")
)
_LINUX = re.compile(r"^\s*linux(?:efi|16)?\s+\S+\s+(.*)$")
_OPTIONS = re.compile(r"^\s*(?:options|append|APPEND|cmdline)\s*[=\s]\s*(.*)$", re.IGNORECASE)
_TOML = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_ENTRIES = ("/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries")
_PLAIN = ("/etc/kernel/cmdline", "/usr/lib/kernel/cmdline", "/boot/cmdline.txt", "/boot/firmware/cmdline.txt")
_PLAIN_FOLDERS = ("/etc/kernel/cmdline.d", "/etc/cmdline.d", "/usr/lib/kernel/cmdline.d")
_MADE = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
_OEM = ("/oem/grub.cfg", "/usr/share/oem/grub.cfg")
_EXTLINUX = ("/boot/extlinux/extlinux.conf", "/extlinux/extlinux.conf")
_KARGS = ("/usr/lib/bootc/kargs.d", "/etc/bootc/kargs.d")


def next_boot(scanner: Scanner) -> Iterator[Conflict]:
    """Yield every place that sets the next kernel's command line, except what the running kernel was given too."""
    running = cmdline_values(scanner, scanner.host.read_or_none("/proc/cmdline") or "")
    seen = set()
    for path, number, text in _command_lines(scanner):
        for knob, value in cmdline_values(scanner, text).items():
            if running.get(knob) != value and (path, knob, value) not in seen:
                seen.add((path, knob, value))
                yield Conflict(path, number, knob, value, KIND, False)


def _command_lines(scanner: Scanner) -> Iterator[tuple[str, int, str]]:
    yield from _grub(scanner)
    yield from _entries(scanner)
    plain = [f"{folder}/{name}" for folder in _PLAIN_FOLDERS for name in scanner.host.names(folder)]
    for path in (*_PLAIN, *plain):
        for number, text in scanner.lines(path, joined=False):
            yield path, number, text
    for path in (f"{folder}/{name}" for folder in _KARGS for name in scanner.host.names(folder)):
        if path.endswith(".toml"):
            yield from _kargs(scanner, path)
    for number, name, value in _assignments(scanner, "/etc/tuned/bootcmdline"):
        if name == "TUNED_BOOT_CMDLINE":
            yield "/etc/tuned/bootcmdline", number, value
    for path in _EXTLINUX:
        yield from _matching(scanner, path, _OPTIONS)
    for number, name, value in _assignments(scanner, "/etc/zipl.conf"):
        if name == "parameters":
            yield "/etc/zipl.conf", number, value
    for path in _OEM:
        for number, name, value in _assignments(scanner, path):
            if name in ("linux_append", "linux_console"):
                yield path, number, value


def _grub(scanner: Scanner) -> Iterator[tuple[str, int, str]]:
    """Yield the sources of grub.cfg, the first entry of the generated file, and the variables that BLS entries use."""
    more = [
        f"/etc/default/grub.d/{name}" for name in scanner.host.names("/etc/default/grub.d") if name.endswith(".cfg")
    ]
    for path in ("/etc/default/grub", *more):
        for number, name, value in _assignments(scanner, path):
            if name in _GRUB_ARGUMENTS:
                yield path, number, value
    for path in _MADE:
        yield from list(_matching(scanner, path, _LINUX))[:1]
        for number, name, value in _assignments(scanner, path):
            if name in ("tuned_params", "kernelopts"):
                yield path, number, value
    for path in ("/boot/grub/grubenv", "/boot/grub2/grubenv"):
        for number, text in enumerate(scanner.text(path).splitlines(), 1):
            if text.startswith("kernelopts="):
                yield path, number, text.partition("=")[2]


def _entries(scanner: Scanner) -> Iterator[tuple[str, int, str]]:
    """Yield entries of the Boot Loader Specification: the chosen one if known, else all but the rescue ones."""
    chosen = ""
    for path in ("/boot/grub2/grubenv", "/boot/grub/grubenv"):
        for line in scanner.text(path).splitlines():
            if line.startswith("saved_entry="):
                chosen = f"{line.partition('=')[2].strip()}.conf"
    for folder in _ENTRIES:
        names = [name for name in scanner.host.names(folder) if name.endswith(".conf") and "rescue" not in name]
        for name in [chosen] if chosen in names else names:
            yield from _matching(scanner, f"{folder}/{name}", _OPTIONS)


def _kargs(scanner: Scanner, path: str) -> Iterator[tuple[str, int, str]]:
    """Yield `kargs = ["a", "b"]` of bootc, possibly over several lines."""
    inside = False
    for number, text in scanner.lines(path, joined=False):
        if re.match(r"kargs\s*=", text):
            inside = True
        elif re.match(r"[\w-]+\s*=|\[", text):
            inside = inside and text.startswith("[") and not text.startswith("[[")
        if inside:
            words = [first or second for first, second in _TOML.findall(text)]
            yield path, number, " ".join(words)
            inside = "]" not in text


def _matching(scanner: Scanner, path: str, expression: re.Pattern[str]) -> Iterator[tuple[str, int, str]]:
    for number, text in scanner.lines(path, joined=False):
        match = expression.match(text)
        if match:
            yield path, number, match[1]


def _assignments(scanner: Scanner, path: str) -> Iterator[tuple[int, str, str]]:
    """Yield `NAME="value"` lines of a file that a shell reads."""
    for number, text in scanner.lines(path):
        match = _ASSIGNED.match(text)
        if match:
            yield number, match[1], _unquoted(match[2])


def _unquoted(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"'):
        quote = text[0]
        end = text.find(quote, 1)
        inner = text[1 : end if end > 0 else len(text)]
        return inner.replace('\\"', '"')
    return text.partition(" #")[0]

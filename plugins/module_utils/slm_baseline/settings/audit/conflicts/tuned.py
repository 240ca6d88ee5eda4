"""TuneD: what its active profile sets on this host, with profiles merged and variables expanded as TuneD does it.

Source: tuned/profiles (loader, merger, variables), units/manager and plugins of TuneD 2.10 to 2.25. Where TuneD itself
can be asked, ask.py does so; this parser finds which line to name, and whether asking is worthwhile.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .conflict import Conflict, Scanner, sysctl_value
from .declared import read_sysctl, sysctl_files
from .next_boot import KIND, Piece, read_pieces

FOLDERS = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
_MAIN = "/etc/tuned/tuned-main.conf"
_TRUE = ("True", "true", "1")
_NO = ("0", "no", "off", "false")
_PROFILE = re.compile(r"[a-zA-Z0-9_.-]+", re.ASCII)
_VARIABLE = re.compile(r"(?<!\\)\$\{(\w+)\}", re.ASCII)
_FUNCTION = re.compile(r"\$\{f:(\w+)((?::(?:\\:|[^:{}])*)*)\}", re.ASCII)
_UNIT_OPTIONS = ("type", "enabled", "replace", "drop", "cpuinfo_regex", "uname_regex", "priority", "devices",
                 "devices_udev_regex", "script_pre", "script_post")  # fmt: skip
_MOST_PROFILES = 32


@dataclass(frozen=True)
class Setting:
    """An option of a profile, with its file and line."""

    value: str
    path: str
    line: int


@dataclass
class Unit:
    """A section of the merged profiles: an instance of a plugin. `sure` is False where an include is uncertain."""

    name: str
    type: str
    enabled: bool = True
    conditions: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    options: dict[str, Setting] = field(default_factory=dict)
    scripts: list[Setting] = field(default_factory=list)
    sure: bool = True


@dataclass
class _Loading:
    """The merged state of one host's profiles so far."""

    units: dict[str, Unit] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def tuned(scanner: Scanner) -> Iterator[Conflict]:
    """Yield what an active TuneD sets."""
    profiles = Profiles(scanner)
    names, sure = profiles.active()
    if names and not profiles.load(names, sure):
        return
    found = list(profiles.conflicts())
    if scanner.host.is_live and any(scanner.contradicts(conflict) for conflict in found):
        from .ask import ask_tuned

        told = ask_tuned(scanner.host, names)
        if told is not None:
            profiles.take(told)
            found = list(profiles.conflicts())
    yield from found


class Profiles:
    """The profiles of one host, loaded and merged."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._main = {key: setting.value for key, setting in self._sections(_MAIN, headless=True).get("", {}).items()}
        more = [folder.strip() for folder in self._main.get("profile_dirs", "").split(",") if folder.strip()]
        # The last folder of the list has priority (profiles/locator.py).
        self._folders = [*more[::-1], *(folder for folder in FOLDERS if folder not in more)]
        self._loading = _Loading()
        self._variables: dict[str, str] = {}
        self._cmdline = scanner.host.read_or_none("/proc/cmdline") or ""

    def active(self) -> tuple[list[str], bool]:
        """Return the profiles' names in loading order, and whether they are certain: not where TuneD recommends one."""
        names = self._scanner.text("/etc/tuned/active_profile").split()
        last = self._scanner.text("/etc/tuned/post_loaded_profile").split()
        sure = True
        if not names and self._scanner.text("/etc/tuned/profile_mode").strip() != "manual":
            names, sure = self._recommended(), False
        return [name for name in [*names, *last] if _PROFILE.fullmatch(name)], sure

    def _recommended(self) -> list[str]:
        """Return the first profile of recommend.d that no checked condition excludes: many conditions name programs."""
        paths = ["/etc/tuned/recommend.conf"]
        for folder in ("/etc/tuned/recommend.d", "/usr/lib/tuned/recommend.d"):
            paths += [f"{folder}/{name}" for name in self._scanner.host.names(folder) if name.endswith(".conf")]
        for path in paths:
            for section, options in self._sections(path).items():
                if self._may_be_recommended({key: setting.value for key, setting in options.items()}):
                    return [section.partition(",")[0]]
        return ["balanced"]

    def _may_be_recommended(self, options: Mapping[str, str]) -> bool:
        is_virtual = self._is_virtual()
        if "virt" in options and is_virtual is not None and bool(options["virt"]) is not is_virtual:
            return False
        for key, pattern in options.items():
            if key.startswith("/"):
                text = self._scanner.text(key)
                if not (pattern and text and _search(pattern, text)) and not (not pattern and not text):
                    return False
            if key == "system" and not _search(pattern, self._scanner.text("/etc/system-release-cpe")):
                return False
        return not any(key in options for key in ("process", "chassis_type", "syspurpose_role"))

    def load(self, names: Sequence[str], sure: bool) -> bool:
        """Load and merge profiles; return False where TuneD would refuse them and set nothing."""
        for name in names:
            if not self._load(name, sure):
                return False
        variables = self._loading.units.pop("variables", None)
        if variables:
            for key, setting in variables.options.items():
                if key == "include":
                    self._include_variables(setting.value)
                else:
                    self._variables[key] = self.expand(setting.value)
        return True

    def _include_variables(self, path: str) -> None:
        text = self.expand(path)
        for key, setting in self._sections(os.path.normpath(text), headless=True).get("", {}).items():
            self._variables[key] = self.expand(setting.value)

    def _file(self, name: str) -> str | None:
        paths = [f"{folder}/{os.path.basename(name)}/tuned.conf" for folder in self._folders]
        known = [path for path in paths if path not in self._loading.files]
        found = next((path for path in known if self._scanner.host.exists(self._scanner.resolve(path))), None)
        # A profile that includes its own name means the one in the next folder.
        return found or ("" if len(known) < len(paths) else None)

    def _load(self, name: str, sure: bool) -> bool:
        optional = name.startswith("-")
        path = self._file(name.lstrip("-") if optional else name)
        if not path or len(self._loading.files) > _MOST_PROFILES:
            return path == "" or optional
        self._loading.files.append(path)
        sections = self._sections(path)
        if not sections and self._scanner.text(path).strip():
            return False
        main = sections.pop("main", {})
        if "include" in main:
            for alternatives, one_sure in self._includes(main["include"].value):
                if not self._load(alternatives, sure and one_sure) and one_sure:
                    return False
        for section, options in sections.items():
            self._merge(section, options, path, sure)
        return True

    def _includes(self, text: str) -> Iterator[tuple[str, bool]]:
        expanded = self.expand(text)
        functions = list(_FUNCTION.finditer(expanded))
        if not functions:
            yield from ((name, "${" not in name) for name in re.split(r"\s*[,;]\s*", expanded) if name)
            return
        # Unknown which one: try each value that a function may return.
        for match in functions[:1]:
            for choice in match[2].split(":")[1:]:
                text = f"{expanded[: match.start()]}{choice}{expanded[match.end() :]}"
                yield from ((name, False) for name in re.split(r"\s*[,;]\s*", text) if name)

    def _merge(self, section: str, options: dict[str, Setting], path: str, sure: bool) -> None:
        """Add a section to the unit of that name, or replace that unit: profiles/merger.py."""
        values = {key: setting.value for key, setting in options.items()}
        folder = os.path.dirname(path)
        unit = Unit(
            section,
            values.get("type", section),
            values.get("enabled", "True") in _TRUE,
            {key: values[key] for key in ("cpuinfo_regex", "uname_regex") if key in values},
            int(values["priority"]) if values.get("priority", "").lstrip("-").isdecimal() else 0,
            {key: setting for key, setting in options.items() if key not in _UNIT_OPTIONS and key != "script"},
            [
                replace(setting, value=os.path.normpath(os.path.join(folder, setting.value)))
                for key, setting in options.items()
                if key in ("script", "script_pre", "script_post")
            ],
            sure,
        )
        known = self._loading.units.get(section)
        if known is None or (values.get("replace") in _TRUE and sure):
            self._loading.units[section] = unit
            return
        for option in re.split(r"\s*[,;]\s*", values.get("drop", "")):
            known.options.pop(option, None)
        known.sure = known.sure and sure
        known.type, known.enabled, known.priority = unit.type, unit.enabled, unit.priority or known.priority
        known.conditions |= unit.conditions
        known.scripts += unit.scripts
        known.options |= unit.options

    def expand(self, text: str) -> str:
        """Return a value with variables and the functions known here expanded; others stay unchanged."""
        text = _VARIABLE.sub(lambda match: self._variables.get(match[1], match[0]), text)
        for _ in range(4):
            changed = _FUNCTION.sub(self._called, text)
            if changed == text:
                break
            text = changed
        return text.replace("\\${", "${")

    def _called(self, match: re.Match[str]) -> str:
        arguments = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", match[2])[1:]]
        if match[1] == "virt_check" and len(arguments) == 2:
            is_virtual = self._is_virtual()
            return match[0] if is_virtual is None else arguments[0] if is_virtual else arguments[1]
        if match[1] == "cpuinfo_check" and len(arguments) > 1:
            text = self._cpuinfo()
            pairs = zip(arguments[::2], arguments[1::2])
            otherwise = arguments[-1] if len(arguments) % 2 else ""
            return next((value for pattern, value in pairs if _search(pattern, text)), otherwise)
        if match[1] == "regex_search_ternary" and len(arguments) == 4:
            return arguments[2] if _search(arguments[1], arguments[0]) else arguments[3]
        if match[1] == "strip":
            return "".join(arguments).strip()
        return match[0]

    def _cpuinfo(self) -> str:
        return self._main.get("cpuinfo_string") or self._scanner.host.read_or_none("/proc/cpuinfo") or ""

    def _is_virtual(self) -> bool | None:
        """Return whether this is a virtual machine, by the flag of x86 processors; None on others."""
        flags = re.search(r"^flags\s*:(.*)$", self._scanner.host.read_or_none("/proc/cpuinfo") or "", re.MULTILINE)
        return None if flags is None else " hypervisor" in flags[1]

    def _applies(self, unit: Unit) -> bool:
        """Return whether an instance's expressions match this machine; it is skipped otherwise: units/manager.py."""
        texts = {
            "cpuinfo_regex": self._cpuinfo(),
            "uname_regex": self._main.get("uname_string") or " ".join(os.uname()),
        }
        return unit.enabled and all(
            _search(self.expand(pattern), texts[key]) for key, pattern in unit.conditions.items()
        )

    def take(self, told: Sequence[Mapping[str, object]]) -> None:
        """Replace the parsed units by TuneD's own result; lines stay those of our parser."""
        known, self._loading.units = self._loading.units, {}
        for one in told:
            name, options = str(one["name"]), one["options"]
            before = known.get(name, Unit(name, str(one["type"])))
            unit = replace(before, type=str(one["type"]), enabled=True, conditions={}, options={}, sure=True)
            if isinstance(options, Mapping):
                for key, value in options.items():
                    place = before.options.get(key, Setting("", (self._loading.files or [_MAIN])[-1], 1))
                    unit.options[key] = replace(place, value=str(value))
            self._loading.units[name] = unit

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what the units set, by knob: of two, the one that runs later counts."""
        last: dict[str, Conflict] = {}
        active = [unit for unit in self._loading.units.values() if self._applies(unit)]
        has_sysctl = False
        for unit in sorted(active, key=lambda unit: unit.priority):
            rule = {"vm": self._vm, "sysctl": self._sysctl, "sysfs": self._sysfs, "bootloader": self._bootloader}
            for conflict in rule[unit.type](unit) if unit.type in rule else ():
                sure = conflict if unit.sure else replace(conflict, certain=False)
                if conflict.kind == KIND:
                    yield sure
                elif conflict.certain or conflict.knob not in last:
                    last[conflict.knob] = sure
            has_sysctl = has_sysctl or unit.type == "sysctl"
            for script in unit.scripts:
                yield from self._script(script)
        if has_sysctl and self._main.get("reapply_sysctl", "1").lower() not in _NO:
            # plugin_sysctl: the administrator's files are applied again, after the profile's values.
            paths = [*sysctl_files(self._scanner, ("/run/sysctl.d", "/etc/sysctl.d")), "/etc/sysctl.conf"]
            for conflict in read_sysctl(self._scanner, paths):
                last[conflict.knob] = replace(conflict, kind="sysctl, applied by TuneD,")
        yield from last.values()

    def _conflict(self, setting: Setting, knob: str, value: str | None, certain: bool = True) -> Conflict:
        profile = os.path.basename(os.path.dirname(setting.path))
        return Conflict(
            setting.path, setting.line, knob, value, f"TuneD profile {profile}", certain and value is not None
        )

    def _told(self, setting: Setting) -> str | None:
        value = self.expand(setting.value).strip()
        return None if "${" in value else value

    def _vm(self, unit: Unit) -> Iterator[Conflict]:
        """Yield what plugin_vm sets: `enabled` takes three words, and is ignored where the command line sets it."""
        for key, setting in unit.options.items():
            value = self._told(setting)
            if key in ("transparent_hugepages", "transparent_hugepage"):
                is_taken = value is None or value in ("always", "never", "madvise")
                if is_taken and self._cmdline.find("transparent_hugepage=") <= 0:
                    yield self._conflict(setting, "thp.enabled", value)
            elif key == "transparent_hugepage.defrag":
                yield self._conflict(setting, "thp.defrag", value)

    def _sysctl(self, unit: Unit) -> Iterator[Conflict]:
        for key, setting in unit.options.items():
            knob = self._scanner.knob(f"/proc/sys/{key.replace('.', '/')}") or self._scanner.sysctl_knob(key)
            if knob:
                value = self._told(setting)
                text = None if value is None else re.sub(r'^"(.*)"$', r"\1", value)
                if text and text[0] in "<>":
                    # It sets the larger or the smaller of its value and the current one, which is ours.
                    wanted, bound = self._scanner.wanted.get(knob, ""), sysctl_value(text[1:]) or ""
                    if wanted.isdecimal() and bound.isdecimal():
                        text = str((max if text[0] == ">" else min)(int(wanted), int(bound)))
                count = None if text is None else sysctl_value(text)
                if count is not None or text is None:
                    yield self._conflict(setting, knob, count)

    def _sysfs(self, unit: Unit) -> Iterator[Conflict]:
        for key, setting in unit.options.items():
            for knob in self._scanner.matching(os.path.normpath(key)) if key.startswith("/sys/") else ():
                yield self._conflict(setting, knob, self._told(setting))

    def _bootloader(self, unit: Unit) -> Iterator[Conflict]:
        """Yield what the next boot is given: plugin_bootloader joins all `cmdline...` options."""
        pieces = []
        for key, setting in unit.options.items():
            value = self.expand(setting.value).strip()
            if key.startswith("cmdline") and not value.startswith("-"):
                pieces.append(Piece(setting.path, setting.line, value.lstrip("+\\")))
        yield from read_pieces(self._scanner, pieces)

    def _script(self, setting: Setting) -> Iterator[Conflict]:
        from .commands import read_script

        path = self.expand(setting.value)
        yield from read_script(self._scanner, path, f"a script of TuneD profile {_profile_of(setting)}", certain=False)

    def _sections(self, path: str, headless: bool = False) -> dict[str, dict[str, Setting]]:
        return parse_profile(path, self._scanner.text(path), headless)


def _profile_of(setting: Setting) -> str:
    return os.path.basename(os.path.dirname(setting.path))


def _search(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text, re.MULTILINE) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def parse_profile(path: str, text: str, headless: bool = False) -> dict[str, dict[str, Setting]]:
    """Return the sections of a profile with the line of each option; none where TuneD's parser would refuse the file.

    `headless` puts a file without a first section, such as one of variables, into the section "".
    """
    parser = configparser.RawConfigParser(
        delimiters=("=",), inline_comment_prefixes=("#",), strict=False, allow_no_value=headless
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    head = "[\x01]\n" if headless else ""
    try:
        parser.read_string(head + text.replace("\r\n", "\n"))
    except (configparser.Error, ValueError):
        return {}
    lines = _numbered(text)
    folder = os.path.dirname(path)
    return {
        "" if section == "\x01" else section: {
            key: Setting(
                (value or "").replace("${i:PROFILE_DIR}", folder),
                path,
                lines.get(("" if section == "\x01" else section, key), lines.get(("DEFAULT", key), 1)),
            )
            for key, value in parser.items(section)
        }
        for section in parser.sections()
    }


def _numbered(text: str) -> dict[tuple[str, str], int]:
    """Return the last line of each option, by section."""
    section = ""
    numbers = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r"\[([^\]]+)\]", line)
        if match:
            section = match[1]
        elif line[:1] not in ("#", ";", ""):
            numbers[section, line.partition("=")[0].strip()] = number
    return numbers

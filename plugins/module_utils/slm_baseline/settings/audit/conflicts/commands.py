"""Which settings the commands of a script or unit write: redirections, tee, sysctl, mount, and known tools."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ...boot.tmpfiles import expand_braces
from .conflict import Conflict, Scanner, last_words, sysctl_path, sysctl_value
from .declared import cmdline_values, mount_path, mount_value, read_sysctl, sysctl_files
from .shell import MARK, Command, Word, parse_shell

_SHELLS = frozenset(("sh", "bash", "dash", "ksh", "zsh", "ash", "busybox"))
_PREFIXES = frozenset(
    [
        "sudo",
        "doas",
        "env",
        "nohup",
        "nice",
        "ionice",
        "chrt",
        "taskset",
        "timeout",
        "setsid",
        "stdbuf",
        "command",
        "builtin",
        "exec",
        "time",
        "flock",
        "unshare",
        "nsenter",
        "systemd-run",
        "systemd-cat",
        "systemd-inhibit",
        "runuser",
        "su",
        "eatmydata",
        "logger",
        "xargs",
        "numactl",
    ]
)
_DECLARING = frozenset(("export", "local", "declare", "typeset", "readonly"))
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)\+?=(.*)", re.ASCII | re.DOTALL)
_EXPANSION = re.compile(f"{MARK}([^{MARK}]*){MARK}")
_KERNEL_FILE = re.compile(r"/(?:sys|proc/sys)/[\w/.*+-]+", re.ASCII)
_WRITING = re.compile(r"write|[\"'][wa]b?\+?[\"']|>")
_MOUNT_NAMES = {
    "--types": "-t",
    "--options": "-o",
    "--all": "-a",
    "--rbind": "--bind",
    "-B": "--bind",
    "-R": "--bind",
    "-M": "--move",
}
_MOUNT_VALUES = ("-t", "-o", "--source", "--target", "-L", "-U", "--fstab", "-T")
_MOST_WORDS = 16
_DEEPEST = 3
_LONGEST_WORD = 4096
"""The kernel's limit for a path; without a limit `x=$x$x` would grow without end."""

_TOOLS: dict[str, tuple[str, ...]] = {
    "hugeadm": ("hugepages.", "hugepages_overcommit.", "thp."),
    "rpk": ("thp.enabled",),
    "saptune": ("thp.",),
    "sapconf": ("thp.",),
    "tuned-adm": ("thp.", "hugepages."),
    "dpdk-hugepages.py": ("hugepages.",),
    "dpdk-hugepages": ("hugepages.",),
    "dpdk-setup.sh": ("hugepages.",),
    "virsh": ("hugepages.",),
    "perftune.py": ("thp.",),
    "scylla_setup": ("thp.",),
    "redis_setup": ("thp.",),
}
"""Other tools, and the prefixes of the knobs that they may write."""


@dataclass
class Place:
    """Where commands are: the file, its kind in words, and whether its unconditional commands are sure to run."""

    path: str
    kind: str
    certain: bool = True
    called: list[tuple[str, bool]] = field(default_factory=list)
    """Scripts that the commands call, and whether the call is certain."""


class Reader:
    """Reads commands one after the other, and tracks the variables that they set."""

    def __init__(self, scanner: Scanner, place: Place, depth: int = 0) -> None:
        self._scanner = scanner
        self._place = place
        self._depth = depth
        self._variables: dict[str, list[str]] = {}
        self._folder = ""
        self._sure = place.certain

    def shell(self, text: str, first_line: int = 1) -> Iterator[Conflict]:
        """Yield what a shell script writes."""
        for command in parse_shell(text, first_line):
            if command.words and command.words[0].text in ("exit", "return") and command.words[0].literal:
                if command.plain:
                    return
                # The rest runs only where this command did not.
                self._sure = False
                continue
            yield from self.command(command)

    def command(self, command: Command) -> Iterator[Conflict]:
        """Yield what one simple command writes."""
        plain = command.plain and self._sure
        words = self._without_assignments(command.words)
        for output in command.outputs:
            for target in self.resolved(output):
                yield from self._file(target, output.literal, self._said(command, words), plain, command.line)
        if not words:
            return
        words, known = self._without_prefixes(words)
        plain = plain and known
        if not words:
            return
        name = os.path.basename(words[0].text)
        handler = _HANDLERS.get(name)
        if handler is not None:
            yield from handler(self, replace(command, words=tuple(words), plain=plain))
        elif name in _TOOLS or ("spdk" in words[0].text and name == "setup.sh"):
            for knob in self._scanner.wanted:
                if knob.startswith(_TOOLS.get(name, ("hugepages.",))) and self._speaks_of(name, words, knob):
                    yield self._conflict(knob, None, False, command.line)
        elif name.startswith(("python", "perl", "ruby")):
            for word in words[1:]:
                yield from mentions(self._scanner, self._place, word.text, command.line)
            self._call(words[1:], plain)
        else:
            self._call(words, plain)

    def resolved(self, word: Word) -> list[str]:
        """Return the texts that a word may expand to; `*` for an unknown part."""
        texts = [word.text]
        while any(MARK in text for text in texts):
            texts = [one for text in texts for one in self._expanded(text)][:_MOST_WORDS]
        if not word.literal:
            texts = [one for text in texts for one in expand_braces(text)][:_MOST_WORDS]
        return [text[:_LONGEST_WORD] for text in texts]

    def _expanded(self, text: str) -> list[str]:
        match = _EXPANSION.search(text)
        if not match:
            return [text.replace(MARK, "*")]
        # What a command prints is unknown, but `ls /sys/…/node*/…` prints names of kernel files.
        values = _KERNEL_FILE.findall(match[1]) if match[1][:1] == "(" else self._variables.get(match[1], [])
        values = values or ["*"]
        return [f"{text[: match.start()]}{value}{text[match.end() :]}" for value in values]

    def _without_assignments(self, words: Sequence[Word]) -> list[Word]:
        """Return the command behind `NAME=VALUE ...`; store the variables where there is no command."""
        if words and words[0].text in ("for", "select") and len(words) > 1:
            values = [text for word in words[3:] for text in self.resolved(word)]
            self._variables[words[1].text] = values[:_MOST_WORDS] or ["*"]
            return []
        rest = list(words)
        if rest and rest[0].text in _DECLARING:
            rest = [word for word in rest[1:] if not word.text.startswith("-")]
            for word in rest:
                self._assign(word)
            return []
        count = next((at for at, word in enumerate(rest) if not _ASSIGNMENT.fullmatch(word.text)), len(rest))
        if count == len(rest):
            for word in rest:
                self._assign(word)
        return rest[count:]

    def _assign(self, word: Word) -> None:
        match = _ASSIGNMENT.fullmatch(word.text)
        if match:
            values = self.resolved(Word(match[2], word.literal))
            # Branches of a condition may set different values.
            before = self._variables.get(match[1], [])
            self._variables[match[1]] = [*before, *(value for value in values if value not in before)][-_MOST_WORDS:]

    def _without_prefixes(self, words: list[Word]) -> tuple[list[Word], bool]:
        """Return the command that `sudo`, `timeout 5` and the like run, and whether only its words decide what runs."""
        known = True
        while words and os.path.basename(words[0].text) in _PREFIXES:
            prefix = os.path.basename(words[0].text)
            known = known and prefix in ("sudo", "env", "nohup", "nice", "command", "builtin", "exec", "time")
            rest = words[1:]
            if prefix in ("su", "runuser") and any(word.text == "-c" for word in rest):
                at = next(index for index, word in enumerate(rest) if word.text == "-c")
                return [Word("sh"), *rest[at:]], known
            while rest and (rest[0].text.startswith(("-", "+")) or _ASSIGNMENT.fullmatch(rest[0].text)):
                rest = rest[1:]
            if prefix in ("timeout", "chrt", "taskset", "flock") and rest:
                rest = rest[1:]
            words = rest
        return words, known

    def _said(self, command: Command, words: Sequence[Word]) -> Word | None:
        """Return what a command prints; None where that is unknown."""
        if not words:
            return command.stdin
        name = os.path.basename(words[0].text)
        if name == "echo":
            rest = list(itertools.dropwhile(lambda word: re.fullmatch(r"-[neE]+", word.text), words[1:]))
            # With -e, and without it in dash, an escaped newline is one.
            text = re.sub(r"(?:\\[nc])+$", "", " ".join(word.text for word in rest))
            return Word(text, "\\" not in text and all(word.literal for word in rest))
        if name == "printf" and len(words) > 1:
            return self._printed(words[1], words[2:])
        if name in ("cat", "tee") and (name == "tee" or len(words) == 1):
            source = command.source
            return command.stdin or (self._said(source, self._plain_words(source)) if source else None)
        return None

    def _plain_words(self, command: Command) -> list[Word]:
        words = list(command.words)
        return list(itertools.dropwhile(lambda word: _ASSIGNMENT.fullmatch(word.text), words))

    @staticmethod
    def _printed(form: Word, words: Sequence[Word]) -> Word | None:
        text = form.text.replace("\\n", "\n")
        for word in words:
            text = re.sub(r"%[sdi]", lambda _, word=word: word.text, text, count=1)  # type: ignore[misc]
        literal = form.literal and all(word.literal for word in words) and "%" not in text and "\\" not in text
        return Word(text, literal)

    def _configured(self, path: str, value: Word | None, line: int) -> Iterator[Conflict]:
        """Yield what a sysctl.d file will set after `echo "vm.nr_hugepages=64" >> /etc/sysctl.conf`."""
        for text in self.resolved(value) if value is not None and path.startswith("/etc/sysctl") else ():
            key, equals, count = text.partition("=")
            for knob in self._scanner.matching(sysctl_path(key.strip())) if equals else ():
                yield self._conflict(knob, sysctl_value(count) if "*" not in count else None, False, line)

    def _file(self, target: str, literal: bool, value: Word | None, plain: bool, line: int) -> Iterator[Conflict]:
        """Yield the conflicts that result from writing a value to this file."""
        path = self._absolute(target)
        yield from self._configured(path, value, line)
        texts = self.resolved(value) if value is not None else []
        told = texts[0].strip() if len(texts) == 1 and "*" not in texts[0] else None
        if told and _KERNEL_FILE.fullmatch(told):
            # A command that named the file printed its content.
            told = None
        knows = literal and value is not None and value.literal and told is not None
        if path.startswith("/proc/sys/") and told is not None:
            told = sysctl_value(told)
        for knob in self._scanner.matching(path):
            yield self._conflict(knob, told, plain and knows, line)

    def _absolute(self, target: str) -> str:
        if target.startswith("/"):
            return os.path.normpath(target)
        return os.path.normpath(f"{self._folder}/{target}") if self._folder and not target.startswith("*") else target

    def _conflict(self, knob: str, value: str | None, certain: bool, line: int) -> Conflict:
        return Conflict(self._place.path, line, knob, value, self._place.kind, certain and value is not None)

    def read_tee(self, command: Command) -> Iterator[Conflict]:
        said = self._said(command, command.words)
        for word in command.words[1:]:
            if not word.text.startswith("-"):
                for target in self.resolved(word):
                    yield from self._file(target, word.literal, said, command.plain, command.line)

    def read_boot_arguments(self, command: Command) -> Iterator[Conflict]:
        """Yield what `grubby --args=…` or `rpm-ostree kargs --append=…` sets for the next boot."""
        for word, following in itertools.zip_longest(command.words[1:], command.words[2:]):
            for text in self.resolved(word):
                option, equals, value = text.partition("=")
                if option in ("--args", "--append", "--append-if-missing"):
                    told = value if equals or following is None else self.resolved(following)[0]
                    for knob, one in cmdline_values(self._scanner, told).items():
                        yield self._conflict(knob, one, False, command.line)

    def read_copy(self, command: Command) -> Iterator[Conflict]:
        """Yield the targets of `dd of=FILE` and `cp FROM TO`: the values that they write are unknown."""
        for word in command.words[1:]:
            for target in self.resolved(word):
                if target.startswith("of=") or word is command.words[-1]:
                    yield from self._file(target.replace("of=", "", 1), word.literal, None, False, command.line)

    def read_sysctl(self, command: Command) -> Iterator[Conflict]:
        """Yield what `sysctl -w KEY=VALUE`, `sysctl -p FILE` or `sysctl --system` sets: sysctl(8)."""
        words = list(command.words[1:])
        for at, word in enumerate(words):
            for text in self.resolved(word):
                if text in ("-p", "--load", "-f") or text.startswith("--load="):
                    following = words[at + 1] if at + 1 < len(words) else None
                    named = text.partition("=")[2] or (self.resolved(following)[0] if following else "/etc/sysctl.conf")
                    yield from self._loaded([self._absolute(named)])
                elif text == "--system":
                    yield from self._loaded([*sysctl_files(self._scanner), "/etc/sysctl.conf"])
                elif not text.startswith("-") and "=" in text:
                    key, _, value = text.partition("=")
                    count = sysctl_value(value) if "*" not in value else None
                    if count is None and "*" not in value:
                        continue
                    for knob in self._scanner.matching(sysctl_path(key.strip())):
                        yield self._conflict(knob, count, command.plain and word.literal, command.line)

    def _loaded(self, paths: list[str]) -> Iterator[Conflict]:
        for conflict in read_sysctl(self._scanner, paths, certain=False):
            yield replace(conflict, kind=f"sysctl, called by {self._place.kind},")

    def read_mount(self, command: Command) -> Iterator[Conflict]:
        """Yield a second mount on a path of ours, which would hide ours, and a move of ours: mount(8)."""
        options, operands = _mount_options(command.words[1:])
        fstype = options.get("-t", Word(""))
        given = options.get("-o", Word("", True))
        place = options.get("--target") or (operands[-1] if operands else None)
        if "--move" in options and operands:
            yield from self._unmounted(operands[0], command.line)
        # A path alone is mounted as fstab says, and hugetlbfs ignores new options.
        is_alone = len(operands) < 2 and not {"-t", "--bind", "--target"} & set(options)
        if place is None or is_alone or "remount" in given.text.split(","):
            return
        for target in self.resolved(place):
            path = mount_path(target)
            knobs = [f"hugetlbfs.{path}"] if "*" not in path else []
            for knob in knobs if knobs and knobs[0] in self._scanner.wanted else []:
                literal = all(word.literal for word in (fstype, given, place))
                value = mount_value(self._scanner, path, fstype.text, given.text) if literal else None
                if value == self._scanner.wanted[knob]:
                    value = f"a second mount ({value})"
                yield self._conflict(knob, value, command.plain and literal, command.line)

    def read_umount(self, command: Command) -> Iterator[Conflict]:
        options, operands = _mount_options(command.words[1:])
        for word in operands:
            yield from self._unmounted(word, command.line)
        if "-a" in options and options.get("-t", Word("hugetlbfs")).text == "hugetlbfs":
            for knob in self._scanner.wanted:
                if knob.startswith("hugetlbfs."):
                    yield self._conflict(knob, None, False, command.line)

    def _unmounted(self, word: Word, line: int) -> Iterator[Conflict]:
        knob = f"hugetlbfs.{mount_path(self.resolved(word)[0])}"
        if knob in self._scanner.wanted:
            yield self._conflict(knob, None, False, line)

    def read_nested(self, command: Command) -> Iterator[Conflict]:
        """Yield what `sh -c TEXT` writes, and remember the script of `sh FILE`."""
        words = list(command.words[1:])
        if words and os.path.basename(command.words[0].text) == "busybox":
            words = words[1:]
        for at, word in enumerate(words):
            if re.fullmatch(r"-[a-z]*c[a-z]*", word.text) and at + 1 < len(words):
                yield from self._text(words[at + 1], command)
                return
            if not word.text.startswith(("-", "+")):
                break
        yield from self._document(command, words)
        self._call(words, command.plain)

    def _document(self, command: Command, words: Sequence[Word]) -> Iterator[Conflict]:
        if command.stdin is not None and not [word for word in words if not word.text.startswith("-")]:
            yield from self._text(command.stdin, command)

    def _text(self, word: Word, command: Command) -> Iterator[Conflict]:
        if self._depth < _DEEPEST:
            place = replace(self._place, certain=command.plain)
            reader = Reader(self._scanner, place, self._depth + 1)
            reader._variables = self._variables
            # Variables that the outer shell, or systemd, has not expanded yet are expanded by the inner shell.
            text = _EXPANSION.sub(lambda match: f"${{{match[1]}}}" if match[1].isidentifier() else "${?}", word.text)
            for conflict in reader.shell(text, command.line):
                yield replace(conflict, line=command.line)
            self._place.called += [one for one in place.called if one not in self._place.called]

    def read_find(self, command: Command) -> Iterator[Conflict]:
        """Yield the kernel files that `find FOLDER -name NAME -exec ...` may write."""
        texts = [self.resolved(word)[0] for word in command.words[1:]]
        if not {"-exec", "-execdir", "-ok"} & set(texts):
            return
        names = [name for option, name in zip(texts, texts[1:]) if option == "-name"] or [""]
        for folder in itertools.takewhile(lambda text: not text.startswith("-"), texts):
            for name in names:
                yield from self._file(f"{folder}/*{name}", False, None, False, command.line)

    def read_once(self, command: Command) -> Iterator[Conflict]:
        """Yield what `cloud-init-per FREQUENCY NAME COMMAND ...` runs."""
        yield from self.command(replace(command, words=command.words[3:], outputs=()))

    def read_contained(self, command: Command) -> Iterator[Conflict]:
        """Yield what a shell may write that runs below another root, or in a privileged container."""
        words = command.words
        is_chroot = os.path.basename(words[0].text) == "chroot"
        if not is_chroot and "--privileged" not in [word.text for word in words]:
            return
        at = next((at for at, word in enumerate(words) if os.path.basename(word.text) in _SHELLS), None)
        if at:
            yield from self.command(replace(command, words=words[at:], outputs=(), plain=False))

    def read_eval(self, command: Command) -> Iterator[Conflict]:
        text = Word(" ".join(word.text for word in command.words[1:]), False)
        yield from self._text(text, replace(command, plain=False))

    def read_cd(self, command: Command) -> Iterator[Conflict]:
        targets = self.resolved(command.words[1]) if len(command.words) > 1 else []
        self._folder = self._absolute(targets[0]) if targets else ""
        yield from ()

    def read_source(self, command: Command) -> Iterator[Conflict]:
        self._call(command.words[1:], command.plain)
        yield from ()

    def _call(self, words: Sequence[Word], plain: bool) -> None:
        """Remember the script that is called: the first word that is a path."""
        for word in words:
            if word.text.startswith("-"):
                continue
            path = self._absolute(self.resolved(word)[0])
            if path.startswith("/") and "*" not in path and not path.startswith(("/sys/", "/proc/", "/dev/")):
                self._place.called.append((path, plain and word.literal))
            return

    def _speaks_of(self, name: str, words: Sequence[Word], knob: str) -> bool:
        """Return whether a tool's options can be about this knob; without options they may be about any."""
        text = " ".join(word.text for word in words[1:])
        if name == "hugeadm":
            if knob.startswith("thp."):
                return "--thp-" in text
            return "--pool-pages" in text or "--obey" in text
        if name == "virsh":
            return "allocpages" in text
        if name == "rpk":
            return "tune" in text
        if name == "tuned-adm":
            return any(word.text in ("profile", "auto_profile", "on") for word in words[1:2])
        return True


_Handler = Callable[[Reader, Command], Iterator[Conflict]]
_HANDLERS: dict[str, _Handler] = {
    "tee": Reader.read_tee,
    **dict.fromkeys(("chroot", "docker", "podman", "nerdctl"), Reader.read_contained),
    "find": Reader.read_find,
    "cloud-init-per": Reader.read_once,
    "grubby": Reader.read_boot_arguments,
    "rpm-ostree": Reader.read_boot_arguments,
    "dd": Reader.read_copy,
    "cp": Reader.read_copy,
    "sysctl": Reader.read_sysctl,
    "mount": Reader.read_mount,
    "umount": Reader.read_umount,
    "eval": Reader.read_eval,
    "cd": Reader.read_cd,
    ".": Reader.read_source,
    "source": Reader.read_source,
    **dict.fromkeys(_SHELLS, Reader.read_nested),
}
"""Programs whose arguments show what they write."""


def mentions(scanner: Scanner, place: Place, text: str, first_line: int = 1) -> Iterator[Conflict]:
    """Yield lines that name a kernel file, in text of another language, such as Python, that writes files."""
    if not _WRITING.search(text):
        return
    for number, line in enumerate(text.splitlines(), first_line):
        for match in _KERNEL_FILE.finditer(line):
            for knob in scanner.matching(match[0]):
                yield Conflict(place.path, number, knob, None, place.kind, False)


def read_script(scanner: Scanner, path: str, kind: str, certain: bool = True, depth: int = 0) -> Iterator[Conflict]:
    """Yield what a script writes, and the scripts that it calls."""
    text = scanner.text(path)
    if not scanner.leads_to_interest(text):
        return
    place = Place(path, kind, certain)
    first = text.partition("\n")[0]
    if first.startswith("#!") and not any(re.search(rf"\b{shell}\b", first) for shell in _SHELLS):
        yield from mentions(scanner, place, text)
        return
    yield from last_words(Reader(scanner, place).shell(text))
    yield from read_called(scanner, place, depth)


def read_called(scanner: Scanner, place: Place, depth: int = 0) -> Iterator[Conflict]:
    """Yield what is written by the scripts that the commands of a place call."""
    if depth < _DEEPEST:
        for path, plain in dict(place.called).items():
            if path != place.path:
                yield from read_script(scanner, path, place.kind, plain and place.certain, depth + 1)


def _mount_options(words: Sequence[Word]) -> tuple[dict[str, Word], list[Word]]:
    """Return the options of mount(8) or umount(8) by their short names, each with its value, and the operands."""
    options: dict[str, Word] = {}
    operands: list[Word] = []
    waiting = ""
    for word in words:
        name, equals, value = word.text.partition("=")
        short = _MOUNT_NAMES.get(name, name)
        if waiting:
            options[waiting], waiting = word, ""
        elif word.text[:2] in ("-t", "-o") and len(word.text) > 2:
            options[word.text[:2]] = Word(word.text[2:], word.literal)
        elif not word.text.startswith("-"):
            operands.append(word)
        elif short in _MOUNT_VALUES:
            options[short] = Word(value, word.literal)
            waiting = "" if equals else short
        else:
            options[short] = word
    return options, operands

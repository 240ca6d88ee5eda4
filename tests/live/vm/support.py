"""The table of what is supported, in docs/support.md: each cell is what a scenario saw."""

from __future__ import annotations

from collections.abc import Mapping

from tests.live.vm.image import REPOSITORY

PAGE = REPOSITORY / "docs/support.md"
BEGIN = "<!-- Written by `make test-vm-all ARGS=--write-support`; not to be edited. -->"
END = "<!-- The support table ends. -->"

Cell = tuple[str, str]
"""A row and a column."""

ARM64 = "Debian 13, arm64, pages of 16 KiB"
SYSTEMS = ("Debian 11", "Debian 12", "Debian 13", ARM64)
VERSIONS = "kernel, Python, systemd"
TUNED = "tuned; a second run changes nothing"
AUDITED = "audit clean; a drift named"
KEPT = "kept over a reboot"
RESTORED = "rollback exact, also after a reboot"
LACKING = "settings of newer kernels"
MEASURED = "measured cold and warm"
LIFE = (VERSIONS, TUNED, AUDITED, KEPT, RESTORED, LACKING, MEASURED)

SEEN = "seen on"
NOT_SEEN = "not seen"
BECOME = "an ssh user whose sudo asks for a password"
NOEXEC = "`noexec` on /tmp, /var/tmp and Ansible's remote folder, without pipelining"
C_LOCALE = "locale C"
LATIN_LOCALE = "locale en_US.ISO-8859-1, drop-ins of others in UTF-8"
READ_ONLY_USR = "read-only /usr"
APPARMOR = "AppArmor enforcing"
SELINUX = "SELinux enforcing"
UPGRADE = "tuned on one release, rolled back on the next"
CONDITIONS = (BECOME, NOEXEC, C_LOCALE, LATIN_LOCALE, READ_ONLY_USR, APPARMOR, SELINUX, UPGRADE)


def table(cells: Mapping[Cell, str]) -> str:
    """The two tables: the life of a host by system, and the conditions it was seen under."""
    lines = [_line("", *SYSTEMS), _line(*["---"] * (len(SYSTEMS) + 1))]
    lines += [_line(row, *(cells.get((row, system), NOT_SEEN) for system in SYSTEMS)) for row in LIFE]
    lines += ["", _line("condition", SEEN), _line("---", "---")]
    lines += [_line(row, cells.get((row, SEEN), NOT_SEEN)) for row in CONDITIONS]
    return "\n".join(lines)


def parse(text: str) -> dict[Cell, str]:
    """The cells of `table`'s text."""
    cells: dict[Cell, str] = {}
    columns: list[str] = []
    for line in text.splitlines():
        row, *values = (part.strip() for part in line.strip().strip("|").split("|")) if line.startswith("|") else ("",)
        if values and row in ("", "condition"):
            columns = values
        elif row and set(row) != {"-"}:
            cells |= {(row, column): value for column, value in zip(columns, values, strict=True)}
    return cells


def shown() -> dict[Cell, str]:
    """The cells that the page has now."""
    return parse(_parts()[1])


def renew(seen: Mapping[Cell, str]) -> None:
    """Write what was seen into the page; other cells stay."""
    before, block, after = _parts()
    PAGE.write_text(f"{before}{BEGIN}\n\n{table({**parse(block), **seen})}\n\n{END}{after}", encoding="utf-8")


def _parts() -> tuple[str, str, str]:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    block, _, after = rest.partition(END)
    return before, block, after


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"

"""Checking values from users: one method for each form that a setting can have."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import SettingError
from .sizes import is_number, parse_size


@dataclass(frozen=True)
class Option:
    """One value, and the variable or knob that an error names. Its methods return the value or raise SettingError."""

    knob: str
    value: object

    def error(
        self, wanted: str, found: str | None = None, *, why: str, next_step: str = "correct the value."
    ) -> SettingError:
        """Return the error for this value; `found` defaults to the value itself."""
        return SettingError(self.knob, wanted, repr(self.value) if found is None else found, why, next_step)

    def integer(self, most: int, *, why: str = "Anything else would be rounded or refused by the kernel.") -> int:
        """Return a whole number from 0; text of digits counts, since Ansible templates to text. Booleans do not."""
        value = self.value
        if isinstance(value, str) and is_number(value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
        next_step = "correct the number."
        if isinstance(value, float) and value.is_integer():
            next_step = (
                "end the template that computes it with `| int`: a division gives a fraction, whatever comes out."
            )
        raise self.error(f"a whole number from 0 to {most}", why=why, next_step=next_step)

    def size(self) -> int:
        """Return the bytes of a size such as 2M."""
        return parse_size(self.value, self.knob)

    def fraction(self, of: str, *, why: str) -> float:
        """Return a fraction above 0 and up to 1, given as a number or text. NaN is refused."""
        share = math.nan
        if isinstance(self.value, (int, float, str)) and not isinstance(self.value, bool):
            with contextlib.suppress(ValueError, OverflowError):
                share = float(self.value)
        if not 0 < share <= 1:
            next_step = f"give a fraction, such as 0.5 for half of the {of}."
            raise self.error(f"a share of {of} above 0 and up to 1", why=why, next_step=next_step)
        return share

    def boolean(self) -> bool:
        """Return True or False, given in any of the words that Ansible accepts."""
        text = str(self.value).strip().lower()
        if text in ("y", "yes", "on", "1", "true", "t"):
            return True
        if text in ("n", "no", "off", "0", "false", "f"):
            return False
        raise self.error("true or false", why="It is switched on or off.")

    def text(self) -> str:
        """Return printable text without blanks at its ends."""
        value = self.value
        if isinstance(value, str) and value.strip() == value and value and value.isprintable():
            return value
        yaml = "YAML turns some unquoted words (on, off, yes, no) into booleans."
        why = yaml if isinstance(value, bool) else "It is not a word."
        raise self.error("a word", why=why, next_step=f"put the value of {self.knob} in quotes.")

    def named(self, names: Sequence[str] | None = None) -> dict[str, object]:
        """Return a mapping, with only these keys where given; None is an empty one."""
        if self.value is None:
            return {}
        if not isinstance(self.value, Mapping):
            next_step = f"write {self.knob} as key: value lines."
            raise self.error("a mapping", why="It holds named settings.", next_step=next_step)
        unknown = sorted(set(map(str, self.value)) - set(self.value if names is None else names))
        if names is not None and unknown:
            raise self.error(
                f"only {', '.join(names)}",
                ", ".join(unknown) or repr(unknown),
                why=f"There is no such {self.knob} setting{suggest(unknown, names)}.",
                next_step="correct the name.",
            )
        return {str(name): value for name, value in self.value.items()}

    def entries(self, required: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, object]]:
        """Return a list of mappings with all of the required keys and any optional ones; None is an empty list."""
        form = f"{{{', '.join(required)}}}"
        if self.value is None:
            return []
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            raise self.error(f"a list of {form}", why="Each entry is one mapping.", next_step="write a YAML list.")
        return [Option(self.knob, item)._entry(form, required, optional) for item in self.value]

    def _entry(self, form: str, required: Sequence[str], optional: Sequence[str]) -> dict[str, object]:
        both = " and ".join(required)
        if not isinstance(self.value, Mapping):
            raise self.error(form, why="An entry is a mapping.", next_step=f"give it {both}.")
        names = [str(name) for name in self.value]
        unknown = sorted(set(names) - {*required, *optional})
        if unknown or not set(required) <= set(names):
            raise self.error(
                both + (f", and optionally {', '.join(optional)}" if optional else ""),
                ", ".join(names) or (repr(names) if names else "nothing"),
                why=f"Unknown: {', '.join(unknown)}{suggest(unknown, [*required, *optional])}."
                if unknown
                else f"An entry needs {both}.",
                next_step="correct the entry.",
            )
        return {str(name): value for name, value in self.value.items()}


def suggest(unknown: Sequence[str], names: Sequence[str]) -> str:
    """Return `; did you mean X`, without the question mark, where a name is close to an unknown one; else ""."""
    # Imported late: a host would compile what it hardly ever needs.
    from difflib import get_close_matches

    meant = [match for name in unknown for match in get_close_matches(name.lower(), names, n=1)]
    return f"; did you mean {', '.join(dict.fromkeys(meant))}" if meant else ""

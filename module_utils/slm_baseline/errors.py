"""The one error type a user ever sees: knob, wanted, found, why, next step."""

from __future__ import annotations


class SettingError(Exception):
    """A setting that cannot be had, told so that the reader can act.

    Attributes are plain text for people: `knob` (flat knob name or variable), `wanted`, `found`, `why`, `next_step`.
    """

    def __init__(self, knob: str, wanted: object, found: object, why: str, next_step: str) -> None:
        self.knob = knob
        self.wanted = str(wanted)
        self.found = str(found)
        self.why = why
        self.next_step = next_step
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"{self.knob}: wanted {self.wanted}; found {self.found}. {self.why} Next: {self.next_step}"

    def as_dict(self) -> dict[str, str]:
        """The same for machines: what modules return as `problem`."""
        return {
            "knob": self.knob,
            "wanted": self.wanted,
            "found": self.found,
            "why": self.why,
            "next_step": self.next_step,
        }


class ParseError(SettingError):
    """Kernel text or a stored document that is not what its source documents."""

    def __init__(self, source: str, expected: str, text: str, next_step: str | None = None) -> None:
        super().__init__(
            source,
            expected,
            repr(text if len(text) <= 80 else text[:77] + "..."),
            "The text does not have the documented form.",
            next_step or "check the kernel version; if it is supported, report this text as a bug.",
        )

"""The one error that a user of the control side sees: what, wanted, found, why, next step."""

from __future__ import annotations


class DocumentError(Exception):
    """A document or setting of the control node that cannot be used, worded so that the reader can act.

    Attributes are plain text for people: `knob` (the document or variable), `wanted`, `found`, `why`, `next_step`.
    """

    def __init__(self, knob: str, *, wanted: object, found: object, why: str, next_step: str) -> None:
        self.knob = knob
        self.wanted = str(wanted)
        self.found = str(found)
        self.why = why
        self.next_step = next_step
        super().__init__(f"{knob}: wanted {self.wanted}; found {self.found}. {why} Next: {next_step}")

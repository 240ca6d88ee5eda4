"""The one error type that a user sees: knob, wanted, found, why, next step."""

from __future__ import annotations

import errno


class SettingError(Exception):
    """A setting that cannot be applied, with what the reader needs to act on it.

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
        """Return the same fields for machines: modules return them as `problem`."""
        return {
            "knob": self.knob,
            "wanted": self.wanted,
            "found": self.found,
            "why": self.why,
            "next_step": self.next_step,
        }


class ParseError(SettingError):
    """Kernel text or a stored document that does not have the documented form."""

    def __init__(self, source: str, expected: str, text: str, next_step: str | None = None) -> None:
        super().__init__(
            source,
            expected,
            repr(text if len(text) <= 80 else text[:77] + "..."),
            "The text does not have the documented form.",
            next_step or "check the kernel version; if it is supported, report this text as a bug.",
        )


class NeedsReboot(SettingError):
    """A pool that can only be reserved at boot; `boot_arguments` is what to add to the kernel command line."""

    def __init__(self, short: SettingError, boot_arguments: str) -> None:
        super().__init__(
            short.knob,
            short.wanted,
            short.found,
            short.why,
            f"reserve them at boot: add `{boot_arguments}` to the kernel command line and reboot.",
        )
        self.boot_arguments = boot_arguments


def os_problem(knob: str, wanted: str, error: OSError) -> SettingError:
    """Return the SettingError that explains an operating-system error to the person on call."""
    reasons = {
        errno.EROFS: ("The file system is read-only, as /sys is in most containers.", "run this on the host itself."),
        errno.EACCES: ("The kernel demands root.", "connect as root, or let become do it."),
        errno.EPERM: ("The kernel demands root with CAP_SYS_ADMIN.", "run this on the host itself, as root."),
        errno.ENOSPC: ("The disk is full.", "free some space, then run again."),
        errno.EIO: ("The disk or kernel reported an I/O error.", "look at the kernel log before anything else."),
        errno.EBUSY: ("Something is using it.", "stop what uses it, then run again."),
        errno.ENOMEM: ("The kernel could not get the memory.", "free some memory, then run again."),
        errno.EINVAL: ("The kernel takes no such value.", "choose a value that the file offers."),
        errno.ENOENT: ("There is no such file.", "check that this kernel has the knob."),
    }
    why, next_step = reasons.get(error.errno or 0, ("The operating system refused.", "look at the kernel log."))
    place = f" on {error.filename}" if error.filename else ""
    return SettingError(knob, wanted, f"{error.strerror or error}{place}", why, next_step)

"""The users that unprivileged work runs as."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from typing import Any

from .errors import SettingError


@dataclass(frozen=True)
class Account:
    """The user that a loader runs as."""

    name: str
    uid: int
    gid: int


def find_account(name: str) -> Account:
    """Return the user of that name; SettingError where the user does not exist or is root."""
    try:
        entry = pwd.getpwnam(name)
    # A name with a NUL raises ValueError.
    except (KeyError, ValueError):
        raise SettingError(
            "slm_benchmark_user",
            repr(name),
            "no such user",
            "The loader runs as an unprivileged user of the host.",
            "name an existing user, such as nobody.",
        ) from None
    if entry.pw_uid == 0:
        raise SettingError(
            "slm_benchmark_user",
            "an unprivileged user",
            name,
            "The loader runs code that comes with a model's libraries; it gets no privileges.",
            "name an unprivileged user, such as nobody.",
        )
    return Account(name, entry.pw_uid, entry.pw_gid)


def run_as(account: Account | None) -> dict[str, Any]:
    """Return subprocess arguments that run as that user, without root's groups; none for None (the current user)."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}

"""A target's user that is the test's own: only root may start a process as another."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.slm_baseline.first_token.recorder.start import Identity


class Ourselves(Identity):
    """This process's user and group."""

    def __init__(self) -> None:
        super().__init__(os.getuid(), os.getgid())

    @property
    def arguments(self) -> dict[str, Any]:
        return {}

"""The QEMU monitor of one virtual machine, spoken to over a socket pair (QMP)."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.live.vm.tools import VmTestError


class Monitor:
    """A QMP connection. Snapshots and links go through the human monitor, whose commands answer synchronously."""

    def __init__(self, connection: socket.socket, timeout_s: float = 120) -> None:
        connection.settimeout(timeout_s)
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._receive("QMP")
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """The `return` value of one QMP command; VmTestError carrying QEMU's own words where it refuses."""
        self._connection.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        return self._receive("return")

    def human(self, line: str) -> None:
        """One human-monitor command that prints nothing when it works, such as `savevm NAME` or `set_link ID off`."""
        answer = self.execute("human-monitor-command", **{"command-line": line})
        if answer.strip():
            raise VmTestError(f"QEMU refused `{line}`: {answer.strip()}")

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def _receive(self, key: str) -> Any:
        """The first message that has `key`; events that arrive before it are of no interest."""
        for line in self._lines:
            message = json.loads(line)
            if "error" in message:
                raise VmTestError(f"QEMU: {message['error']['desc']}")
            if key in message:
                return message[key]
        raise VmTestError("QEMU closed its monitor")

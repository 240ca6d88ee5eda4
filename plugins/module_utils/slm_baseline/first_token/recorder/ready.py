"""Whether a target answers at its port or URL, and whether it is really the target that answers.

While a service is stopped, any process may take its port. So no answer may take longer than one deadline, however
slowly it comes, and a listener of another unprivileged user is not accepted as the target.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from ...host.deadline import Deadline
from ...host.files import Host
from ..target import Ready

ANSWER_S = 5.0
"""The time limit of one check, however slowly its answer comes."""
_LISTENING = "0A"
"""`st` in /proc/net/tcp (include/net/tcp_states.h, TCP_LISTEN)."""
_MOST_BYTES = 4096
NOBODY = 65534
"""Stands for an unknown user."""


@dataclass(frozen=True)
class Answer:
    """The result of one check: whether the target answered, and the id of another user who listens in its place."""

    is_ready: bool
    stranger: int | None = None


def ask_ready(
    host: Host,
    ready: Ready,
    deadline: Deadline,
    users: Callable[[], Iterable[int]] | None = None,
    may_listen: Callable[[int], bool] | None = None,
) -> Answer:
    """Check the target's address once: whether it accepts a connection, or answers a GET with 2xx.

    `users` are those who may listen there: an answer of another unprivileged user does not count. Only addresses of
    this host can be checked; root's own listeners (systemd's sockets, docker-proxy) are trusted. Root of a container is
    root here too, so `may_listen` says of each process that listens whether it may; None asks nobody.
    """
    one = Deadline.after(deadline.left_s(ANSWER_S))
    name, port, path = address_of(ready)
    with contextlib.suppress(OSError, ValueError), socket.create_connection((name, port), _timeout(one)) as connection:
        good = ready.how == "port" or is_good_status(_first_line(connection, (name, port, path), one))
        if not good or users is None or not _is_local(name):
            return Answer(good)
        # While the connection is open: the listener could have gone since it was accepted.
        sockets = read_sockets(host)
        stranger = find_stranger(sockets, port, connection.getsockname()[1], {0, *users()})
        if stranger is None and may_listen:
            listening = {each.inode: each.uid for each in sockets if each.port == port and each.is_listening}
            strange = [inode for pid, inode in find_holders(listening) if not may_listen(pid)]
            stranger = listening[strange[0]] if strange else None
        return Answer(stranger is None, stranger)
    return Answer(False)


@dataclass(frozen=True)
class TcpSocket:
    """One line of /proc/net/tcp (proc_pid_net(5)). `inode` is 0 where no process holds the socket."""

    port: int
    peer_port: int
    is_listening: bool
    uid: int
    inode: int


def find_stranger(sockets: Iterable[TcpSocket], port: int, own_port: int, trusted: Collection[int]) -> int | None:
    """Return the untrusted user at the other end of our connection, or listening at its port; None where there is none.

    An end that no process holds any more is trusted only where a trusted user listens.
    """
    ends = [each for each in sockets if each.port == port and (each.is_listening or each.peer_port == own_port)]
    for each in ends:
        if each.uid not in trusted:
            return each.uid
    if any(not each.is_listening and not each.inode for each in ends) and not any(each.is_listening for each in ends):
        return NOBODY
    return None


def find_holders(inodes: Collection[int], proc: str = "/proc") -> Iterator[tuple[int, int]]:
    """Yield (process, inode) for each process that has one of these sockets open (proc_pid_fd(5))."""
    names = {f"socket:[{inode}]": inode for inode in inodes if inode}
    for pid in filter(str.isdigit, os.listdir(proc)):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"{proc}/{pid}/fd"):
                # It may have been closed since.
                with contextlib.suppress(OSError):
                    found = names.get(os.readlink(f"{proc}/{pid}/fd/{descriptor}"))
                    if found:
                        yield int(pid), found


def address_of(ready: Ready) -> tuple[str, int, str]:
    """Return the host, port and path to check."""
    if ready.how == "port":
        return "127.0.0.1", int(ready.at), ""
    url = urllib.parse.urlsplit(ready.at)
    return url.hostname or "127.0.0.1", url.port or 80, f"{url.path or '/'}{'?' + url.query if url.query else ''}"


def is_good_status(line: bytes) -> bool:
    """Return whether the first line of an answer is HTTP's, with a status of 2xx."""
    words = line.split(b" ", 2)
    return len(words) >= 2 and words[0].startswith(b"HTTP/1.") and len(words[1]) == 3 and words[1][:1] == b"2"


def _first_line(connection: socket.socket, address: tuple[str, int, str], deadline: Deadline) -> bytes:
    """Return the first line of the answer to a GET; empty where there is none in time."""
    host, port, path = address
    name = f"[{host}]" if ":" in host else host
    request = f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\nUser-Agent: slm-baseline\r\n\r\n"
    connection.settimeout(_timeout(deadline))
    connection.sendall(request.encode("ascii"))
    said = b""
    while b"\n" not in said and len(said) < _MOST_BYTES and not deadline.is_over:
        connection.settimeout(_timeout(deadline))
        more = connection.recv(_MOST_BYTES)
        if not more:
            return b""
        said += more
    return said.partition(b"\r\n")[0] if b"\n" in said else b""


def _timeout(deadline: Deadline) -> float:
    # A timeout of zero would mean non-blocking, and fail at once.
    return max(0.001, deadline.left_s())


def read_sockets(host: Host) -> list[TcpSocket]:
    """Read the TCP sockets of this network namespace."""
    return [
        each for family in ("tcp", "tcp6") for each in parse_sockets(host.read_or_none(f"/proc/net/{family}") or "")
    ]


def parse_sockets(text: str) -> Iterator[TcpSocket]:
    """Yield the sockets of /proc/net/tcp; lines of another form are skipped."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        with contextlib.suppress(IndexError, ValueError):
            yield TcpSocket(
                int(fields[1].rpartition(":")[2], 16),
                int(fields[2].rpartition(":")[2], 16),
                fields[3] == _LISTENING,
                int(fields[7]),
                int(fields[9]),
            )


def _is_local(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback or ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False

"""An answer comes within its time however it is given, and counts only from who may give it."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.recorder import ready as module
from ansible.module_utils.slm_baseline.first_token.recorder.ready import (
    NOBODY,
    Answer,
    TcpSocket,
    address_of,
    ask_ready,
    find_stranger,
    is_good_status,
    parse_sockets,
)
from ansible.module_utils.slm_baseline.first_token.target import Ready
from ansible.module_utils.slm_baseline.host.deadline import Deadline
from ansible.module_utils.slm_baseline.host.files import Host

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server of one connection after the other; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(4096)
                    answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def ask(port: int, how: str = "url", seconds: float = 30.0, users: Callable[[], list[int]] | None = None) -> Answer:
    at = f"http://127.0.0.1:{port}/health?x=1" if how == "url" else str(port)
    return ask_ready(Host(), Ready(how, at), Deadline.after(seconds), users)


@pytest.mark.parametrize(
    ("said", "is_ready"),
    [
        (GOOD, True),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 503 Loading\r\n\r\n", False),
        (b"HTTP/1.1 2000 Odd\r\n\r\n", False),
        (b"HTTP/1.1\r\n\r\n", False),
        (b"SSH-2.0 200 x\r\n", False),
        (b"HTTP/1.1 200 OK", False),
        (b"", False),
    ],
)
def test_an_answer_is_good_by_its_first_line(said: bytes, is_ready: bool) -> None:
    with server(lambda connection: connection.sendall(said)) as port:
        assert ask(port).is_ready is is_ready
        assert ask(port, "port").is_ready


def drip(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(b"H")
        time.sleep(0.01)


class Endless:
    """A connection over which something comes for ever, and never a line."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def sendall(self, request: bytes) -> None:
        assert request.startswith(b"GET /")

    def recv(self, count: int) -> bytes:
        self.received += count // 2
        return b"x" * (count // 2)


def test_an_answer_without_a_line_is_read_to_its_limit_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Endless()
    monkeypatch.setattr(socket, "create_connection", lambda at, wait: connection)
    assert not ask(80, seconds=1).is_ready
    assert connection.received == 4096


@pytest.mark.parametrize(
    ("name", "is_local"),
    [
        *((name, True) for name in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::")),
        *((name, False) for name in ("a.example", "z.example", "192.0.2.1", "2001:db8::1")),
    ],
)
def test_only_of_this_host_can_be_told_who_listens(monkeypatch: pytest.MonkeyPatch, name: str, is_local: bool) -> None:
    with server(lambda connection: connection.sendall(GOOD)) as port:
        real = socket.create_connection
        monkeypatch.setattr(socket, "create_connection", lambda at, wait: real(("127.0.0.1", port), wait))
        monkeypatch.setattr(module, "read_sockets", lambda host: [listening(4242, port)])
        host = f"[{name}]" if ":" in name else name
        answer = ask_ready(Host(), Ready("url", f"http://{host}:{port}/"), Deadline.after(30), lambda: [])
    assert answer == (Answer(False, 4242) if is_local else Answer(True))


def flood(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(b"x" * 65536)


@pytest.mark.parametrize("hold_up", [drip, flood, lambda connection: time.sleep(60)])
def test_an_answer_that_does_not_end_is_none_when_its_time_is_over(hold_up: Callable[[socket.socket], object]) -> None:
    """A byte now and then held every timeout of the socket off, and production stayed down."""
    with server(hold_up) as port:
        deadline = Deadline.after(0.3)
        assert not ask_ready(Host(), Ready("url", f"http://127.0.0.1:{port}/"), deadline).is_ready


def test_one_question_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    with server(drip) as port:
        deadline = Deadline.after(3600)
        assert not ask_ready(Host(), Ready("url", f"http://127.0.0.1:{port}/"), deadline).is_ready


def test_a_process_that_may_not_listen_is_a_stranger_whoever_its_user_is() -> None:
    """Root of another container is root here too, and every container of root's has that user."""
    asked: list[int] = []

    def refuse(pid: int) -> bool:
        asked.append(pid)
        return False

    with server(lambda connection: connection.sendall(GOOD)) as port:
        ready, soon = Ready("port", str(port)), Deadline.after(30)
        found = ask_ready(Host(), ready, soon, lambda: [os.getuid()], refuse)
        assert (found.is_ready, found.stranger) == (False, os.getuid())
        assert asked == [os.getpid()]
        assert ask_ready(Host(), ready, soon, lambda: [os.getuid()], lambda pid: True).is_ready


def test_nobody_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert not ask(port).is_ready
    assert not ask(port, "port").is_ready
    assert not ask_ready(Host(), Ready("url", "http://host.invalid/"), Deadline.after(5)).is_ready


def test_the_request_is_for_the_address(tmp_path: Path) -> None:
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(4096))
            connection.sendall(GOOD)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    assert ask(port).is_ready
    thread.join(30)
    listener.close()
    lines = heard[0].decode().split("\r\n")
    assert lines[0] == "GET /health?x=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in lines


@pytest.mark.parametrize(
    ("ready", "address"),
    [
        (Ready("port", "8000"), ("127.0.0.1", 8000, "")),
        (Ready("url", "http://127.0.0.1:8000"), ("127.0.0.1", 8000, "/")),
        (Ready("url", "http://[::1]:9/x?y"), ("::1", 9, "/x?y")),
        (Ready("url", "http://host/"), ("host", 80, "/")),
    ],
)
def test_what_is_asked(ready: Ready, address: tuple[str, int, str]) -> None:
    assert address_of(ready) == address


def test_a_status_is_three_digits_that_begin_with_2() -> None:
    assert is_good_status(b"HTTP/1.1 299 x")
    for line in (b"HTTP/2 200 x", b"HTTP/1.1 20 x", b"HTTP/1.1 2 x", b"HTTP/1.1 2000 x", b"HTTP/1.1 100 x"):
        assert not is_good_status(line)
    assert not is_good_status(b"")


def listening(uid: int, port: int = 80) -> TcpSocket:
    return TcpSocket(port, 0, True, uid, 5)


def end(uid: int, inode: int = 6, peer: int = 4000) -> TcpSocket:
    return TcpSocket(80, peer, False, uid, inode)


@pytest.mark.parametrize(
    ("sockets", "stranger"),
    [
        ([listening(7), end(7)], None),
        ([listening(0), end(0)], None),
        ([listening(7), end(4242)], 4242),
        ([listening(4242), end(4242)], 4242),
        ([listening(4242), listening(7)], 4242),
        # Accepted, answered, and both closed: nobody holds what answered.
        ([end(0, inode=0)], NOBODY),
        # Held by who accepted it, though nobody listens any more.
        ([end(7)], None),
        # In the queue of a listener that has not accepted it yet.
        ([listening(7), end(0, inode=0)], None),
        # Behind a NAT of the host's there is no such socket here.
        ([], None),
        ([listening(4242, port=81), end(4242, peer=4001)], None),
    ],
)
def test_who_listens_is_told_by_the_sockets_of_the_kernel(sockets: list[TcpSocket], stranger: int | None) -> None:
    assert find_stranger(sockets, 80, 4000, {0, 7}) == stranger


def test_our_own_server_is_seen_with_its_user() -> None:
    with server(lambda connection: connection.sendall(GOOD)) as port:
        assert ask(port, users=lambda: [os.getuid()]) == Answer(True)
        if os.getuid():
            assert ask(port, users=lambda: []) == Answer(False, os.getuid())


def test_a_strangers_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda connection: connection.sendall(GOOD)) as port:
        monkeypatch.setattr(module, "read_sockets", lambda host: [listening(4242, port)])
        assert ask(port, users=lambda: []) == Answer(False, 4242)
        assert ask(port) == Answer(True)


def test_tcp_is_read_and_odd_lines_are_passed_over() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  4242        0 12345 1 0 100\n"
        "   1: 0100007F:1F40 0100007F:A28C 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0 100\n"
        "   2: broken\n"
    )
    assert list(parse_sockets(text)) == [TcpSocket(8000, 0, True, 4242, 12345), TcpSocket(8000, 0xA28C, False, 0, 0)]
    assert list(parse_sockets("")) == []


def test_a_process_that_may_not_listen_is_told_and_other_ports_are_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with server(lambda connection: connection.sendall(GOOD)) as port:
        sockets = [TcpSocket(port + step, 0, True, uid, 60 + step) for step, uid in ((-1, 7), (0, 0), (1, 8))]
        monkeypatch.setattr(module, "read_sockets", lambda host: sockets)
        monkeypatch.setattr(module, "find_holders", lambda inodes: [(1000 + inode, inode) for inode in inodes])

        def asked(may_listen: Callable[[int], bool]) -> Answer:
            return ask_ready(Host(), Ready("port", str(port)), Deadline.after(30), lambda: [], may_listen)

        assert asked(lambda pid: pid == 1060) == Answer(True)
        assert asked(lambda pid: pid != 1060) == Answer(False, 0)


def test_who_holds_a_socket_is_found_by_its_inode() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        assert list(module.find_holders([inode])) == [(os.getpid(), inode)]
    assert list(module.find_holders([0, inode])) == []

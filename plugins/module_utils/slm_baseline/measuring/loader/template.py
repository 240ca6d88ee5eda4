"""A loader as a template: it has imported everything, and forks a child for each load of the weights.

A load in a fresh process spends most of its time on imports, on which no huge-page setting acts. A template pays for
them once. Each child loads the weights and makes the first token as a fresh process does from its tokenizer on: its
memory is its own before its clock starts (files/slm_load.py, `own_memory`), and no device was initialised before.
`benchmarks/template.py` compares the two.

The template runs as the loader's user and is not trusted: a child is identified not by what the template reports but by
having been reparented to us, a subreaper.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...host.subreaper import subreaper
from .events import FORKED_ORDER, Events
from .process import BareProcess, Loader, Observation, Pipes, end, plain_text, private_home, start, watch_one

_FORK_S = 30.0
"""How long a template may take to fork: copying the page tables of a large process takes milliseconds."""
_REQUEST = b"f"
_ERROR_BYTES = 1 << 16
"""The capacity of a pipe (pipe(7)): a template that writes more blocks, and its next answer times out."""


class TemplateFailed(Exception):
    """There is no template, or it has ended; the message says why in plain words."""


@dataclass(frozen=True)
class Template:
    """A running template. `channel` carries requests, `pid` is its process."""

    loader: Loader
    channel: socket.socket
    pid: int

    def observe(self, on_held: Callable[[int], None]) -> Observation:
        """Load once in a child, like `loader_process.observe`, with events from the tokenizer on.

        Raises TemplateFailed where no child comes.
        """
        with contextlib.ExitStack() as stack:
            family = stack.enter_context(subreaper())
            pipes = Pipes.open(stack)
            try:
                socket.send_fds(self.channel, [_REQUEST], list(pipes.given))
                _await_answer(self.channel, _FORK_S)
            except OSError as error:
                raise TemplateFailed(f"the template forks no child: {error}") from error
            children = family.children()
            if len(children) != 1:
                raise TemplateFailed(f"the template was asked for one child, and there are {len(children)}")
            events = Events(time.monotonic_ns(), order=FORKED_ORDER)
            os.write(pipes.hold[1].fileno(), _REQUEST)
            pipes.close_given()
            return watch_one(self.loader, BareProcess(children[0], pipes.kept), events, on_held, family)


@contextlib.contextmanager
def template(loader: Loader) -> Iterator[Template]:
    """Start a template with everything imported; end it and all its processes with the block.

    Raises TemplateFailed where it is not ready within the loader's time, and SettingError where it cannot be started at
    all.
    """
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(private_home(loader))
        stack.enter_context(subreaper())
        ours, given = socket.socketpair()
        stack.enter_context(ours)
        error_read, error_write = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, error_read)
        with given:
            try:
                arguments = ("--template-fd", str(given.fileno()))
                process = start(loader, home, arguments, (given.fileno(),), error_write)
            finally:
                os.close(error_write)
        try:
            try:
                _await_answer(ours, loader.timeout_s)
            except OSError as error:
                end(process.pid)
                said = _said(error_read) or [str(error)]
                raise TemplateFailed(f"the template did not come to have everything imported: {said[-1]}") from error
            yield Template(loader, ours, process.pid)
        finally:
            with contextlib.suppress(ChildProcessError):
                end(process.pid)
            process.returncode = 0


def _said(error_fd: int) -> list[str]:
    """Return the stderr lines of a template that has ended."""
    os.set_blocking(error_fd, False)
    try:
        return plain_text(os.read(error_fd, _ERROR_BYTES)).splitlines()
    except BlockingIOError:
        return []


def _await_answer(channel: socket.socket, patience_s: float) -> None:
    """Wait for one byte of the template; OSError where it times out or has ended."""
    channel.settimeout(patience_s)
    if not channel.recv(1):
        raise OSError("it has ended")

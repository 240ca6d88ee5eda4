"""What every module of this project does around its work: root, lease, one readable error."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

from .host import lease
from .host.errors import NeedsReboot, SettingError, os_problem
from .host.files import Host

COMMON_ARGUMENTS: dict[str, Any] = {"root": {"type": "path", "default": "/"}}
RUN_ARGUMENT: dict[str, Any] = {
    "type": "dict",
    "options": {
        "id": {"type": "str", "required": True},
        "host": {"type": "str"},
        "started_at": {"type": "str"},
        "controller": {"type": "dict"},
        "alive": {"type": "list", "elements": "raw"},
    },
}
"""What plugins/lookup/slm_run.py tells of a run."""
SETTER_ARGUMENTS: dict[str, Any] = {**COMMON_ARGUMENTS, "run": RUN_ARGUMENT}


def finish(module: AnsibleModule, work: Callable[[Host], dict[str, Any]]) -> NoReturn:
    """Run the work and end the module: with its result, or with one error that says what to do.

    A run that fails on a host does not come back to it, whichever task failed: its lease ends with the error.
    """
    # Folders on the way to a unit, a drop-in or a mount are for others to pass, however root's own files are kept.
    os.umask(0o022)
    host = Host(Path(module.params["root"]))
    try:
        with _given_up(host, None if module.check_mode else module.params.get("run")):
            result = work(host)
    except NeedsReboot as error:
        reboot = {"reboot_required": True, "boot_arguments": error.boot_arguments}
        fail(module, str(error), problem=error.as_dict(), **reboot)
    except SettingError as error:
        fail(module, str(error), problem=error.as_dict())
    except OSError as error:
        problem = os_problem(str(error.filename or "the host"), "to work", error)
        fail(module, str(problem), problem=problem.as_dict())
    module.exit_json(**printable(result))


def fail(module: AnsibleModule, message: str, **result: Any) -> NoReturn:
    """End the module with an error."""
    module.fail_json(**printable({"msg": message, **result}))


@contextlib.contextmanager
def _given_up(host: Host, run: dict[str, Any] | None) -> Iterator[None]:
    """Release the host where the work of a task of this run fails."""
    try:
        yield
    except BaseException:
        if run:
            with contextlib.suppress(OSError):
                lease.release(host, run["id"])
        raise


def warn(module: AnsibleModule, warning: str | None) -> None:
    """Tell a warning, where there is one."""
    if warning:
        module.warn(printable(warning))


def printable(value: Any) -> Any:
    """The same with bytes that are no UTF-8 written as escapes: every text leaves a module through here.

    Names of processes, files and disks may hold any byte, and ansible-core refuses a result that has one of these.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {printable(name): printable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return value


def require_root(host: Host, what: str) -> None:
    """SettingError unless this process is root; a test's tree needs none."""
    if host.is_live and os.geteuid() != 0:
        raise SettingError(
            what,
            "root",
            f"user id {os.geteuid()}",
            "The kernel takes these settings from root alone.",
            "connect as root, or give become a way to it (--become, --ask-become-pass).",
        )


@contextlib.contextmanager
def leased(module: AnsibleModule, host: Host, last: bool = False) -> Iterator[str]:
    """Work under the lease of the run this module belongs to; its id.

    The `last` task of a run releases the host whatever happens, and a module used on its own is a run of one task.
    """
    run = module.params["run"] or {"id": f"adhoc-{os.getpid()}"}
    try:
        with lease.held(host, run):
            yield run["id"]
    finally:
        if last or not module.params["run"]:
            lease.release(host, run["id"])

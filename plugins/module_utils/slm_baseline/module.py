"""Code that every module of this project shares: test root, lease, and failing with one readable error."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

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
"""The fields of a run that plugins/lookup/slm_run.py returns."""
SETTER_ARGUMENTS: dict[str, Any] = {**COMMON_ARGUMENTS, "run": RUN_ARGUMENT}


def finish(module: AnsibleModule, work: Callable[[Host], dict[str, Any]]) -> NoReturn:
    """Run the work and end the module, with its result or with one error that says what to do.

    A run ends on a host that failed, whichever task failed, so its lease ends with the error.
    """
    # Other users must be able to pass folders above a unit, a drop-in or a mount, whatever umask root has.
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
    """Release the host when the work of one of this run's tasks fails."""
    try:
        yield
    except BaseException:
        if run:
            from .host import lease

            with contextlib.suppress(OSError):
                lease.release(host, run["id"])
        raise


def warn(module: AnsibleModule, warning: str | None) -> None:
    """Emit a warning, if there is one."""
    if warning:
        module.warn(printable(warning))


def printable(value: Any) -> Any:
    """Return the value with bytes that are not UTF-8 written as escapes; every text leaves a module through here.

    Names of processes, files and disks may hold any byte, and ansible-core rejects a result that contains one.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {printable(name): printable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return value


def require_root(host: Host, what: str) -> None:
    """Raise SettingError unless this process is root; a test's tree needs no root."""
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
    """Hold the lease of this module's run while the caller works; yield the run's id.

    The `last` task of a run always releases the host. A module used on its own is a run of one task.
    """
    # Imported here: an audit holds none, and every host compiles what it imports.
    from .host import lease

    run = module.params["run"] or {"id": f"adhoc-{os.getpid()}"}
    try:
        with lease.held(host, run):
            yield run["id"]
    finally:
        if last or not module.params["run"]:
            lease.release(host, run["id"])

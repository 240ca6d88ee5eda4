"""Caches given to a container without editing what the user wrote.

What each start makes anew in the container's own layer gets a folder of the host, which belongs to the user that the
container runs as. Nothing of the host runs or trusts what lies there. A Quadlet gets a drop-in beside the user's file
(podman-systemd.unit(5), since Podman 5), compose an override file in our place, and any other container the options
that its next `run` wants.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..containers.image import ADDRESS, RUNTIME
from ..containers.runtime import Container, find_recorded_runtime
from ..host.files import Host
from .places import DROP_IN, MARK, QUADLETS
from .plan import Plan

PYCACHE = "/var/cache/slm-pycache"
"""Where bytecode is in a container that is given a cache of it."""
_PYCACHE = "pycache"
_PLAIN = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._+-]+)+")
"""Paths without a meaning in any of the texts. They come from what a container has opened."""
_SERVICE = re.compile(r"[A-Za-z0-9._-]+")
_QUADLET = re.compile(r"(?:/etc|/run|/usr/share)/containers/systemd/(?:[^/]+/)*(?P<name>[A-Za-z0-9._:-]+\.container)")
_COMPOSE = "com.docker.compose."
_MOST = 16


@dataclass(frozen=True)
class Gift:
    """Folders of the host for a container. `places` are a name below `folder` each, and the path in the container."""

    folder: str
    places: tuple[tuple[str, str], ...]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.places]

    @property
    def volumes(self) -> list[str]:
        """Return the volumes; `Z` gives the folder the container's label where SELinux is in force."""
        return [f"{self.folder}/{name}:{inside}:Z" for name, inside in self.places]

    @property
    def environment(self) -> dict[str, str]:
        if _PYCACHE not in self.names:
            return {}
        return {"PYTHONPYCACHEPREFIX": PYCACHE, "PYTHONDONTWRITEBYTECODE": ""}

    def left_out_of(self, plan: Plan) -> Plan:
        """Return the plan without what each start may write anew: all of the folders but bytecode."""
        places = tuple(f"{self.folder}/{name}/" for name in self.names if name != _PYCACHE)
        folders = [path for path in plan.folders if not f"{path}/".startswith(places)]
        files = [file for file in plan.files if not file.path.startswith(places)]
        return Plan(plan.facts, folders, files)

    def is_in(self, command: str) -> bool:
        """Return whether a unit's command has all of the volumes."""
        return all(f"{self.folder}/{name}:{inside}" in command for name, inside in self.places)


def find_gift(folder: str, caches: Iterable[str], compiles: bool) -> Gift | None:
    """Return what is given for these folders of a container, and for bytecode if it `compiles`; None for nothing."""
    places: dict[str, str] = {_PYCACHE: PYCACHE} if compiles else {}
    for inside in caches:
        if not _PLAIN.fullmatch(inside) or len(places) >= _MOST:
            continue
        word = name = re.sub(r"[^A-Za-z0-9]+", "-", inside.rpartition("/")[2]).strip("-") or "cache"
        number = 2
        while name in places:
            name, number = f"{word}-{number}", number + 1
        places[name] = inside
    return Gift(folder, tuple(places.items())) if places else None


def find_mounted(folder: str, container: Container | None) -> Gift | None:
    """Return what of our folder a container has mounted already, since it was made with our options; None for none."""
    mounts = container.mounts if container else ()
    found = [
        (each.source[len(folder) + 1 :], each.destination) for each in mounts if each.source.startswith(f"{folder}/")
    ]
    return Gift(folder, tuple(sorted(found))) if found else None


def find_quadlet(source: str) -> str:
    """Return the path of our drop-in for the Quadlet that systemd names as a unit's source; empty for any other unit.

    A template has one file for many containers, which would share one cache.
    """
    found = _QUADLET.fullmatch(source)
    return f"{QUADLETS}/{found['name']}.d/{DROP_IN}" if found else ""


def quadlet_drop_in(name: str, gift: Gift) -> str:
    """Return the text of the drop-in for a Quadlet."""
    lines = [MARK, f"# Target: {name}", "[Container]"]
    lines += [f"Environment={key}={value}" for key, value in gift.environment.items()]
    lines += [f"Volume={volume}" for volume in gift.volumes]
    return "\n".join([*lines, ""])


def compose_service(container: Container) -> str:
    """Return the compose service that made the container; empty where none did."""
    service = dict(container.labels).get(f"{_COMPOSE}service", "")
    return service if _SERVICE.fullmatch(service) else ""


def compose_override(name: str, service: str, gift: Gift) -> str:
    """Return the text of the override file for compose."""
    lines = [MARK, f"# Target: {name}", "services:", f"  {json.dumps(service)}:"]
    if gift.environment:
        lines.append(f"    environment: {json.dumps(gift.environment)}")
    lines.append(f"    volumes: {json.dumps(gift.volumes)}")
    return "\n".join([*lines, ""])


def compose_command(runtime: str, container: Container, override: str) -> str:
    """Return the command line that makes the container anew with the override file.

    compose names the files and the project by labels of the container; with none of them the usual file is meant.
    """
    labels = dict(container.labels)
    words = [runtime, "compose"]
    for option, label in (("--project-directory", "project.working_dir"), ("--project-name", "project")):
        if labels.get(_COMPOSE + label):
            words += [option, labels[_COMPOSE + label]]
    files = labels.get(f"{_COMPOSE}project.config_files") or "compose.yaml"
    for path in [*files.split(","), override]:
        words += ["--file", path]
    return shlex.join([*words, "up", "--detach"])


def run_options(gift: Gift) -> str:
    """Return the options for `docker run`, `docker create` and those of podman."""
    words = [word for key, value in gift.environment.items() for word in ("--env", f"{key}={value}")]
    words += [word for volume in gift.volumes for word in ("--volume", volume)]
    return shlex.join(words)


def find_containers_with(host: Host, facts: Mapping[str, str], folders: Sequence[str]) -> list[str]:
    """Return the names of the containers, running or not, that have one of these folders mounted.

    `facts` are those of the plan. A runtime that does not answer tells of none.
    """
    runtime, found = find_recorded_runtime(host, facts.get(RUNTIME, ""), facts.get(ADDRESS, "")), set()
    if runtime is None:
        return []
    for folder in folders:
        done = runtime.call("ps", "--all", "--filter", f"volume={folder}", "--format", "{{.Names}}")
        found |= set(done.stdout.split()) if not done.returncode else set()
    return sorted(found)


def to_json(gift: Gift, inode: int, uid: int) -> dict[str, Any]:
    """Return what the record has of a gift: where it is, and whose folders these are."""
    return {"folder": gift.folder, "places": [list(place) for place in gift.places], "inode": inode, "uid": uid}


def folders_in(document: object) -> list[str]:
    """Return the folders that a record names as given; none for any other document."""
    if not isinstance(document, dict) or not isinstance(document.get("folder"), str):
        return []
    places = document.get("places")
    names = [place[0] for place in places if isinstance(place, list) and place] if isinstance(places, list) else []
    return [f"{document['folder']}/{name}" for name in names if isinstance(name, str)]

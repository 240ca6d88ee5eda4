"""The image that a plan was recorded from: its name and digest as facts of the plan, and whether it is another now."""

from __future__ import annotations

from collections.abc import Mapping

from ..host.errors import ParseError, SettingError
from ..host.files import Host
from .runtime import Container, Runtime, find_recorded_runtime

RUNTIME, ADDRESS, CONTAINER, IMAGE, IMAGE_ID = "runtime", "runtime_address", "container", "image", "image_id"


def image_facts(runtime: Runtime, container: Container, is_remade: bool) -> dict[str, str]:
    """Return the facts for a plan. A container that a unit makes at each start `is_remade` from the image's name."""
    facts = {RUNTIME: runtime.name, IMAGE: container.image, IMAGE_ID: container.image_id}
    if runtime.address:
        facts[ADDRESS] = runtime.address
    if not is_remade:
        facts[CONTAINER] = container.name
    return {name: value for name, value in facts.items() if value.isprintable()}


def find_image_change(host: Host, facts: Mapping[str, str]) -> str:
    """Return how the next start's image differs from the recorded one; empty where it does not, or nobody can say.

    That of a container that starts by its name is the container's own, while there is one.
    """
    name, recorded, image = facts.get(RUNTIME, ""), facts.get(IMAGE_ID, ""), facts.get(IMAGE, "")
    runtime = find_recorded_runtime(host, name, facts.get(ADDRESS, "")) if recorded and image else None
    if runtime is None:
        return ""
    try:
        container = runtime.container(facts[CONTAINER]) if CONTAINER in facts else None
        found = runtime.image(image) if container is None else None
        now = container.image_id if container else found.digest if found else None
    except (ParseError, SettingError):
        return ""
    if now is None:
        # A daemon that does not run says nothing about its images; the files of the plan are compared all the same.
        return "" if runtime.answers() else f"the image {image} is gone"
    if now == recorded:
        return ""
    return f"the image {image} is {_short(now)} now, and was {_short(recorded)} when it was recorded"


def _short(digest: str) -> str:
    return digest[:19]

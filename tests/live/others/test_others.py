"""No neighbour loses anything by a call that succeeds. Needs root; a private mount namespace over the real kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.live.faults import stage
from tests.live.faults.modules import REPOSITORY, Modules
from tests.live.others.cases import CASES, Case
from tests.live.others.table import page
from tests.live.others.world import World

DOC = REPOSITORY / "docs/neighbours.md"


@pytest.fixture(scope="module")
def stage_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.fail("the neighbours mount and change kernel settings: run this as root")
    modules = Modules(tmp_path_factory.mktemp("others"))
    with stage.staged() as pristine:
        yield World(modules, pristine)


@pytest.fixture
def world(stage_world: World) -> Iterator[World]:
    stage_world.reset()
    try:
        yield stage_world
    finally:
        stage_world.reset()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_neighbour_has_what_it_had(world: World, case: Case) -> None:
    case.play(world)


def test_the_page_is_the_table(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-neighbours"):
        DOC.write_text(page(CASES), encoding="utf-8")
    assert DOC.read_text(encoding="utf-8") == page(CASES)

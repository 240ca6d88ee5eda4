"""Which parts of a play are selected, and what is refused, without Ansible."""

from __future__ import annotations

import pytest
from ansible.playbook.taggable import Taggable
from hypothesis import given
from hypothesis import strategies as st

from analysis.console.tags import Refused, is_ours, refuse_start, select, selects, task_names
from tests.conftest import REPOSITORY
from tests.module.test_tags import REFUSED, TABLED

PARTS = ("tune", "measure", "report")
TAGS = st.lists(st.sampled_from([*PARTS, "all", "tagged", "untagged", "always", "never", "mesure"]), max_size=3)


class Task(Taggable):
    """A task without a play, as Ansible judges its tags."""

    _parent = _loader = None

    def get_play(self) -> None:
        """None: newer versions of Ansible ask, and would template the tags of a play as well."""


@given(st.sampled_from([*PARTS, "untagged"]), TAGS, TAGS)
def test_a_part_is_run_exactly_where_ansible_runs_its_tasks(tag: str, run: list[str], skip: list[str]) -> None:
    task = Task()
    task.tags = [] if tag == "untagged" else [tag]
    assert selects(tag, run, skip) == task.evaluate_tags(run or ["all"], skip, {})


def options(line: str) -> tuple[list[str], list[str]]:
    words = line.split()
    found: dict[str, list[str]] = {"--tags": ["all"], "--skip-tags": []}
    for option, value in zip(words[::2], words[1::2], strict=True):
        found[option] = value.split(",")
    return found["--tags"], found["--skip-tags"]


@pytest.mark.parametrize("line", [line for line, _ in TABLED])
def test_every_choice_of_the_table_is_taken(line: str) -> None:
    assert select(PARTS, *options(line))


@pytest.mark.parametrize("line", [line for line in REFUSED if "--start" not in line])
def test_every_refusal_of_the_table_says_what_it_wanted(line: str) -> None:
    with pytest.raises(Refused, match=r"wanted some of tune, measure, report; found .* Nothing was read or changed"):
        select(PARTS, *options(line))


@pytest.mark.parametrize(("run", "skip"), [(["tune"], []), (["all"], ["untagged"]), (["tagged"], []), (["all"], ["x"])])
def test_a_play_without_parts_takes_no_choice_of_them(run: list[str], skip: list[str]) -> None:
    with pytest.raises(Refused, match="this play has no tags"):
        select((), run, skip)


@given(TAGS, TAGS)
def test_an_imported_play_refuses_no_tag_of_its_importers(run: list[str], skip: list[str]) -> None:
    chosen = select(PARTS, run, skip, ["mesure", "nginx"])
    assert set(chosen) <= set(PARTS)
    if "mesure" in run and not skip:
        # It may be a tag that the import gives the whole play.
        assert chosen == list(PARTS)


@pytest.mark.parametrize(("run", "skip"), [(["tuen"], []), (["tune", "nginx", "tuen"], []), (["all"], ["tuen"])])
def test_a_tag_that_is_in_no_play_is_refused_wherever_ours_is_imported(run: list[str], skip: list[str]) -> None:
    with pytest.raises(Refused, match=r"found unknown tag tuen; did you mean tune\? Nothing was read or changed"):
        select(PARTS, run, skip, ["nginx"])


OWN = list(task_names(REPOSITORY))


@pytest.mark.parametrize("name", ["Measure the model", "thp : Set transparent huge pages", "Set huge*"])
@pytest.mark.parametrize("is_imported", [True, False])
def test_no_run_starts_at_a_task_of_ours(name: str, is_imported: bool) -> None:
    with pytest.raises(Refused, match="--start-at-task: wanted the start of the play"):
        refuse_start(name, OWN, is_imported)


def test_a_run_of_others_starts_where_it_likes() -> None:
    refuse_start("Install nginx", OWN, is_imported=True)
    with pytest.raises(Refused):
        refuse_start("Install nginx", OWN, is_imported=False)


@pytest.mark.parametrize(
    ("playbook", "ours"),
    [
        ("baseline.yml", True),
        ("playbooks/audit.yml", True),
        ("slm.baseline.rollback", True),
        ("site.yml", False),
        ("other.collection.baseline", False),
        ("docs/baseline.yml", False),
    ],
)
def test_whose_a_playbook_is(playbook: str, ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert is_ours(playbook, REPOSITORY) == ours

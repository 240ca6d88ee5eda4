"""What operators write and how teams run the plays, and what becomes of it: the cases of docs/operators.md.

`pytest tests/unit/test_operators_page.py --write-operators` writes the page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.slm_baseline.host.errors import SettingError
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.settings.kinds.registry import KINDS

from analysis.console.host_failure import explain_failure
from analysis.console.names import read_known, unknown_variables
from analysis.console.tags import Refused, refuse_start, select
from callback.check_control_node import error as control_node_error
from tests.conftest import REPOSITORY
from tests.support.fakes import build_host

PAGE = REPOSITORY / "docs/operators.md"
KNOWN = read_known(REPOSITORY)
PARTS = ("tune", "measure", "report")

HEAD = """# What a slip ends in, and how runs of every form end

Written by its own test, not to be edited: `pytest tests/unit/test_operators_page.py --write-operators`.

## What is written

Each line is given to the code that judges it. `refused` is an error with exit code 2 before anything is changed; the
variables are looked at before the first task.
"""
RUNS = """
## How it is run

Each line is held by a test of this repository, named in the last column.
"""


@dataclass(frozen=True)
class Written:
    """What somebody writes, what the first release made of it, and the code that judges it now."""

    kind: str
    what: str
    before: str
    judge: Callable[[], str]


@dataclass(frozen=True)
class Run:
    """A way to run the project, what the first release made of it, what comes of it now, and the test that holds it."""

    kind: str
    what: str
    before: str
    now: str
    test: str


def _variable(name: str) -> str:
    unknown = unknown_variables([(name, "group_vars/gpu-hosts.yml:3")], KNOWN)
    return f"refused: unknown variable {unknown[0]}" if unknown else "nothing: it may be another project's"


def _tags(run: str = "", skip: str = "", start: str = "") -> str:
    try:
        if start:
            refuse_start(start, [start], is_imported=False)
        chosen = select(PARTS, filter(None, run.split(",")), filter(None, skip.split(",")))
    except Refused as refused:
        return f"refused: {refused}"
    return f"runs {', '.join(chosen)}"


def _setting(key: str, given: Any) -> str:
    """Return what becomes of a setting's value on a host with two nodes, pages of 2M and 1G, and 16 GB."""
    (kind,) = (kind for kind in KINDS if kind.key == key)
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        build_host(host.root)
        try:
            wanted = kind.parse(host, given)
            wanted.check(host, {})
        except SettingError as error:
            return f"refused: {error}"
    return f"taken: {', '.join(f'{name} = {value}' for name, value in wanted.values().items())}"


def _host(said: str) -> str:
    no_json = "Module result deserialization failed: No start of json char found"
    return f"error: {explain_failure({'failed': True, 'msg': no_json, 'module_stderr': said, 'rc': 127})}"


def _control_node(core: str, python: tuple[int, int]) -> str:
    problem = control_node_error(core, python)
    return f"refused: {problem}" if problem else "runs"


ACCEPTED = "accepted without a word"
_MOUNTS: list[tuple[str, str, dict[str, Any]]] = [
    ("`path: /mnt/huge/`", "refused", {"path": "/mnt/huge/"}),
    ("`path: mnt/huge`", "", {"path": "mnt/huge"}),
    ('`mod: "0770"`', "", {"path": "/mnt/huge", "mod": "0770"}),
    ("`mode: 770`, without quotes", "", {"path": "/mnt/huge", "mode": 770}),
    ("`owner: nobodyy`", "", {"path": "/mnt/huge", "owner": "nobodyy"}),
    ("`size: 256M`", "told as 268435456", {"path": "/mnt/huge", "size": "256M"}),
    ("`size: 268435456`", "told as 268435456", {"path": "/mnt/huge", "size": 268435456}),
    ("`page_size: 3M`", "", {"path": "/mnt/huge", "page_size": "3M"}),
]
WRITTEN: tuple[Written, ...] = (
    *(
        Written("a variable's name", f"`{name}`", before, partial(_variable, name))
        for name, before in {
            "thp_enable": ACCEPTED,
            "hugepage_pools": "accepted; on a tuned host, the pool's removal was planned",
            "hugepages_maxshare": ACCEPTED,
            "Thp_Enabled": ACCEPTED,
            "rollback_purg": ACCEPTED,
            "first_token_target": ACCEPTED,
            "slm_benchmark_modle": ACCEPTED,
            "slm_accept_losses": ACCEPTED,
            "tuning_tolerate_competitor": ACCEPTED,
            "sweep_arm": ACCEPTED,
            "thp_policy": ACCEPTED,
            "report_email": "nothing",
            "nginx_port": "nothing",
        }.items()
    ),
    Written("tags", "`--tags tun`", ACCEPTED, partial(_tags, "tun")),
    Written("tags", "`--tags Tune`", ACCEPTED, partial(_tags, "Tune")),
    Written("tags", "`--skip-tags mesure`", ACCEPTED, partial(_tags, "", "mesure")),
    Written("tags", "`--tags tune --skip-tags tune`", "did nothing, exit 0", partial(_tags, "tune", "tune")),
    Written("tags", "`--skip-tags measure`", "tuned nothing, exit 0", partial(_tags, "", "measure")),
    Written("tags", "`--skip-tags tune`", "measured, stored nothing", partial(_tags, "", "tune")),
    Written(
        "tags",
        '`--start-at-task "Measure the model"`',
        "ran nothing, exit 0",
        partial(_tags, start="Measure the model"),
    ),
    *(
        Written("pools", what, before, partial(_setting, "pools", given))
        for what, before, given in [
            ("`{size: 2M, cuont: 4}`", "", [{"size": "2M", "cuont": 4}]),
            ("`{size: 2M, count: 4G}`", "", [{"size": "2M", "count": "4G"}]),
            ("`{size: 2M, count: 25%}`", "", [{"size": "2M", "count": "25%"}]),
            ("`{size: 2M, memory: 4G}`", "refused", [{"size": "2M", "memory": "4G"}]),
            ("`{size: 2M, memory: 25%}`", "refused", [{"size": "2M", "memory": "25%"}]),
            ("`{size: 2M, memory: 3M}`", "", [{"size": "2M", "memory": "3M"}]),
            ("`{size: 2M, memory: 125%}`", "", [{"size": "2M", "memory": "125%"}]),
            ("`{size: 2M, count: 4, memory: 8M}`", "", [{"size": "2M", "count": 4, "memory": "8M"}]),
            ("`{size: 2M}`", "", [{"size": "2M"}]),
            ("one entry without a list", "", {"size": "2M", "count": 4}),
            ("a count of 16609.0, from a template", "refused, without a way on", [{"size": "2M", "count": 16609.0}]),
            ("one pool twice", "", [{"size": "2M", "count": 1}, {"size": "2048K", "count": 2}]),
        ]
    ),
    *(
        Written("mounts", what, before, partial(_setting, "mounts", [{"page_size": "2M"} | given]))
        for what, before, given in _MOUNTS
    ),
    *(
        Written("THP", what, "", partial(_setting, "thp", given))
        for what, given in [
            ("`enabled: allways`", {"enabled": "allways"}),
            ("`enbled: never`", {"enbled": "never"}),
            ("`enabled: true`, without quotes", {"enabled": True}),
            ("`sizes: {65K: madvise}`", {"sizes": {"65K": "madvise"}}),
            ("`khugepaged: {scan_sleep_milisecs: 1}`", {"khugepaged": {"scan_sleep_milisecs": 1}}),
        ]
    ),
    Written("surplus pages", "`{2M: -1}`", "", partial(_setting, "overcommit", {"2M": -1})),
    *(
        Written("what a host says", f"`{said}`", '"Module result deserialization failed"', partial(_host, said))
        for said in (
            "/bin/sh: 1: sudo: not found",
            "sudo: a password is required",
            "ops is not in the sudoers file.",
            "/bin/sh: 1: /usr/bin/python3: not found",
            "SyntaxError: future feature annotations is not defined",
            "OSError: [Errno 28] No space left on device",
            "Segmentation fault (core dumped)",
        )
    ),
    *(
        Written(
            "a control node",
            f"ansible-core {core}, Python {python[0]}.{python[1]}",
            before,
            partial(_control_node, core, python),
        )
        for core, python, before in [
            ("2.21.5", (3, 13), "ran"),
            ("2.19.14", (3, 12), "ran"),
            ("2.18.19", (3, 11), "changed the host, then failed"),
            ("2.16.14", (3, 11), "changed the host, then failed"),
            ("2.15.13", (3, 11), ""),
            ("2.16.14", (3, 10), ""),
        ]
    ),
)

_STATE = "tests/unit/control/documents/test_state.py"
_RESULTS = "tests/unit/control/documents/test_results.py"
_OWN = "tests/module/test_own_plays.py"
_SETTERS = "tests/module/test_setters.py"
_NAMES = "tests/module/test_check_names.py"
_NODES = "tests/live/control_nodes/test_control_nodes.py"
_COLLECTION = "tests/live/collection/test_over_ssh.py::test_the_installed_collection_does_the_job_of_a_checkout"

RUN: tuple[Run, ...] = (
    Run(
        "tags",
        "`--skip-tags measure`",
        "tuned nothing, exit 0",
        "tunes; every choice of tags is one of whole parts",
        "tests/module/test_tags.py::test_each_choice_of_tags_does_its_parts_and_no_other",
    ),
    Run(
        "tags",
        "a step that sets is answered with no (`--step`)",
        "exit 0",
        "fails: something was pending and was not set",
        "tests/module/test_tags.py::test_a_step_that_is_left_out_is_no_success",
    ),
    Run(
        "tags",
        "a choice that leaves nothing to do",
        "exit 0",
        "refused before a host is asked",
        "tests/module/test_tags.py::test_what_leaves_nothing_to_do_is_refused",
    ),
    Run(
        "tags",
        "`--skip-tags tune`",
        "measured for minutes, then failed and stored nothing",
        "reads the settings, measures, stores, shows",
        "tests/module/test_tags.py::test_each_choice_of_tags_does_its_parts_and_no_other",
    ),
    Run(
        "tags",
        "`--start-at-task` in a playbook that imports ours",
        "nothing ran, exit 0",
        "refused",
        "tests/module/test_tags.py::test_a_task_of_ours_is_no_place_to_start_from_there_either",
    ),
    Run(
        "tags",
        "an unknown tag where no callback is loaded",
        ACCEPTED,
        "refused in one line, exit 2",
        f"{_NAMES}::test_tags_where_no_callback_is_loaded",
    ),
    Run(
        "results",
        "`report_keep_runs` of one group",
        "deleted other groups' results",
        "each host's own value, within the limit",
        f"{_RESULTS}::test_what_is_not_this_hosts_own_result_stays",
    ),
    Run(
        "results",
        "a file of a clock that was ahead beside the result just measured",
        "deleted the new one, and showed the other as the latest",
        "the new one stays and is the latest",
        f"{_RESULTS}::test_a_result_of_a_clock_that_was_ahead_goes_before_the_one_just_measured",
    ),
    Run(
        "results",
        "`report_keep_runs: -1`",
        "refused under another name",
        "refused under its own name",
        f"{_RESULTS}::test_a_number_that_is_none_is_refused_under_the_name_that_the_user_wrote",
    ),
    Run(
        "results",
        "a read-only or full folder of results",
        "found after the measurement",
        "found before the first change",
        f"{_OWN}::test_a_folder_that_cannot_hold_the_result_is_found_out_before_anything_is_changed",
    ),
    Run(
        "results",
        "a result that could not be stored",
        "lost",
        "`fetch.yml` stores it",
        f"{_OWN}::test_a_result_that_could_not_be_stored_is_fetched_with_one_command",
    ),
    Run(
        "results",
        "`~` and relative folders, PWD not set",
        "several places; a folder called `~`",
        "one place: home, and where Ansible was started",
        "tests/unit/control/documents/test_places.py::test_names_of_folders",
    ),
    Run(
        "audit",
        "without root, beside a file that only root can read",
        "clean",
        "an error: not known to be clean, with the places",
        "tests/unit/control/audit/test_unreadable.py::test_a_host_that_was_not_wholly_read_is_not_called_clean",
    ),
    Run(
        "audit",
        "hosts that are still to be asked (`serial`, `free`)",
        "called errors",
        "counted, not judged",
        f"{_OWN}::test_an_audit_in_any_order_ends_with_the_same_verdicts",
    ),
    Run(
        "audit",
        "hosts that cannot be reached",
        "no reason in the summary",
        "grouped by reason",
        "tests/unit/control/audit/test_fleet.py::test_hosts_that_cannot_be_reached_share_a_line_with_the_reason",
    ),
    Run(
        "rollback",
        "the page and the report after it",
        'clean; "Tuned and verified"',
        'unknown; "Rolled back since"',
        f"{_STATE}::test_after_a_rollback_the_fleet_does_not_call_the_host_clean",
    ),
    Run(
        "rollback",
        "`rollback_force=true` after a rollback that left something",
        "did nothing, exit 0",
        "restores what was left, and nothing else",
        f"{_SETTERS}::test_force_after_a_rollback_restores_what_that_one_left_and_nothing_else",
    ),
    Run(
        "rollback",
        "one that is incomplete, then another",
        'no page, then "Restored: Nothing."',
        "a page at once; the later one tells of all",
        f"{_SETTERS}::test_the_page_of_a_later_rollback_can_tell_of_the_incomplete_ones",
    ),
    Run(
        "rollback",
        "nothing to restore",
        "no word",
        "said, with the reason",
        "tests/unit/control/console/test_closing.py"
        "::test_a_rollback_says_what_it_restored_what_it_left_and_when_there_was_nothing",
    ),
    Run(
        "tuning",
        "a setting is left out that an earlier run had set",
        "undone without a word",
        "announced before it is restored, in check mode too",
        f"{_SETTERS}::test_what_is_no_longer_asked_for_is_announced_before_it_is_restored",
    ),
    Run(
        "tuning",
        "a setter's role in a loop: each pass asks for less than all",
        "each pass undid the one before without a word",
        "each pass announces what it no longer asks for",
        f"{_SETTERS}::test_what_is_no_longer_asked_for_is_announced_before_it_is_restored",
    ),
    Run(
        "tuning",
        "no setting at all is asked for",
        "all was undone",
        "refused",
        f"{_SETTERS}::test_a_run_that_wants_nothing_is_refused_before_it_takes_anything_back",
    ),
    Run(
        "tuning",
        "two names of one machine with different tuning",
        "exit 0; the last one won",
        "the second name is refused before it changes anything",
        "tests/unit/target/host/test_names.py::test_the_second_name_is_refused_before_it_changes_anything",
    ),
    Run(
        "roles alone",
        "`roles: [slm_benchmark, report]`",
        "the measurement was discarded",
        "stored and shown",
        f"{_OWN}::test_a_measurement_by_roles_alone_is_stored_and_shown",
    ),
    Run(
        "roles alone",
        "a role without what it needs",
        '"missing required arguments"',
        "names where that comes from",
        f"{_OWN}::test_a_role_without_what_it_needs_says_where_that_comes_from",
    ),
    Run(
        "roles alone",
        "a checkout inside another project, with the lines of running.md",
        "no page listed the lines",
        "tunes, measures, shows",
        "tests/module/test_running_page.py::test_a_checkout_inside_another_project_tunes_measures_and_shows",
    ),
    Run(
        "leases",
        "a run that ended in any way, or whose batch another host stopped",
        "the host stayed leased for 65 minutes",
        "the next run takes the host over",
        "tests/unit/target/host/test_lease.py::test_a_run_of_the_same_controller_that_died_is_no_obstacle",
    ),
    Run(
        "leases",
        "jobs in fresh process namespaces (AWX), one of them killed",
        "each later one refused",
        "they follow one another",
        f"{_OWN}::test_jobs_in_fresh_process_namespaces_follow_one_another_whatever_ended_the_last",
    ),
    Run(
        "strategies",
        "`serial`, `free`, `any_errors_fatal`, `max_fail_percentage`, `ignore_unreachable`",
        "wrong summaries",
        "who is set, who fails, and the exit code are right",
        "tests/module/test_strategies.py::test_who_is_set_and_who_fails",
    ),
    Run(
        "collection",
        "installed in an empty folder, by full names over ssh: tune, first token, audit, measure, report, rollback",
        "the page could not be written",
        "all of it, files where Ansible was started",
        _COLLECTION,
    ),
    Run(
        "collection",
        "a variable that nothing knows",
        ACCEPTED,
        "refused",
        "tests/module/test_collection.py::test_a_variable_that_nothing_knows_ends_in_an_error",
    ),
    Run(
        "control nodes",
        "ansible-core 2.16 to 2.21",
        "2.16 to 2.18 changed the host, then failed",
        "tune, audit, restore",
        f"{_NODES}::test_a_host_is_tuned_audited_and_restored",
    ),
    Run(
        "control nodes",
        "an older one",
        "",
        "refused in one line before anything is read",
        f"{_NODES}::test_an_older_one_is_refused_in_one_line",
    ),
    Run(
        "control nodes",
        "without /proc, as a Mac",
        "nothing ran",
        "tunes, audits and restores a host over ssh",
        f"{_NODES}::test_a_control_node_without_proc_tunes_hosts_by_ssh",
    ),
    Run(
        "control nodes",
        "another release of this project: a host tuned by the first one",
        "",
        "audited, tuned otherwise and restored exactly",
        "tests/module/test_upgrade.py::test_a_rollback_restores_what_was_before_the_first_release",
    ),
    Run(
        "first token",
        "a target is left out of the list",
        "stayed, unseen by the audit",
        "a row of the audit",
        "tests/unit/target/first_token/test_audit.py::test_a_target_that_nobody_names_any_more_is_drift",
    ),
    Run(
        "first token",
        "one target is to go (`state: absent`)",
        "was recorded",
        "goes, the others stay",
        "tests/unit/target/first_token/test_remove.py::test_another_targets_files_are_not_taken_by_their_mark",
    ),
    Run(
        "first token",
        "`slm-start` with a target that is not there",
        "started the command without a word",
        "an error",
        "tests/unit/target/first_token/test_starter.py::test_a_name_that_nobody_recorded_is_an_error",
    ),
    Run(
        "measurement",
        "`slm_benchmark_python: /bin/ls`",
        "printed the source of a probe",
        "refused: it is no Python",
        "tests/unit/target/measuring/test_run.py::test_what_is_no_python_is_refused",
    ),
    Run(
        "measurement",
        "a task takes long",
        "silence",
        "it is named every half minute",
        "tests/unit/control/console/test_pulse.py::test_a_task_at_work_is_named_until_the_run_ends",
    ),
    Run(
        "measurement",
        "the end of a run",
        "the recap of Ansible",
        "what changed, figures, pages, and how to undo it",
        "tests/unit/control/console/test_closing.py::test_hosts_that_were_changed_alike_share_a_line_and_can_be_undone",
    ),
)


def _row(*cells: str) -> str:
    inert = (cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(inert)} |"


def page() -> str:
    """Return docs/operators.md, with what the code says now."""
    written = [_row(one.kind, one.what, one.before, one.judge()) for one in WRITTEN]
    runs = [_row(one.kind, one.what, one.before, one.now, f"`{one.test}`") for one in RUN]
    return "\n".join(
        [
            HEAD,
            _row("kind", "written", "first release", "now"),
            _row(*["---"] * 4),
            *written,
            RUNS,
            _row("kind", "case", "first release", "now", "held by"),
            _row(*["---"] * 5),
            *runs,
            "",
        ]
    )

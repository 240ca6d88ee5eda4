"""What a removal takes and leaves, and that one that fails stops no other."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token import remove as module
from ansible.module_utils.slm_baseline.first_token.places import MARK
from ansible.module_utils.slm_baseline.first_token.remove import read_hashes, remove, remove_all, remove_files
from ansible.module_utils.slm_baseline.first_token.removed import Removal
from ansible.module_utils.slm_baseline.host.files import Host
from ansible.module_utils.slm_baseline.host.paths import FIRST_TOKEN, TARGETS
from ansible.module_utils.slm_baseline.host.systemd import UNITS

from tests.support.targets import TARGET, install_target

OURS = {TARGET.drop_in, TARGET.replay_unit, TARGET.fit_unit, TARGET.boot_link, TARGET.folder}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return install_target(tmp_path)


def test_a_removal_leaves_nothing_of_ours(host: Host) -> None:
    host.path(TARGET.fit_environment).parent.mkdir(parents=True)
    host.path(TARGET.fit_environment).write_text("x")
    removed, left = remove(host, "vllm")
    assert left == []
    assert set(removed) == OURS
    assert not host.path(FIRST_TOKEN).exists()
    assert not host.path(TARGET.drop_in).parent.exists()
    assert not host.path(TARGET.boot_link).parent.exists()
    assert not host.path(TARGET.fit_environment).parent.exists()
    assert host.path("/srv/lib.so").exists()
    # Where all units are is nobody's to remove, however empty.
    assert host.path("/etc/systemd/system").exists()
    assert remove(host, "vllm") == ([], [])


def test_a_dry_run_tells_what_a_removal_takes_and_takes_nothing(host: Host) -> None:
    told = remove(host, "vllm", dry_run=True)
    assert all(host.path(path).exists() or host.path(path).is_symlink() for path in OURS)
    assert remove(host, "vllm") == told
    assert set(told[0]) == OURS


def test_a_unit_that_somebody_changed_is_left_and_listed(host: Host) -> None:
    with host.path(TARGET.drop_in).open("a") as file:
        file.write("Environment=OTHERS=1\n")
    removed, left = remove(host, "vllm")
    assert left == [TARGET.drop_in]
    assert host.path(TARGET.drop_in).exists()
    assert TARGET.replay_unit in removed
    assert Removal(removed, left).warning == (
        f"changed or mounted by others since, left: {TARGET.drop_in}. Next: remove by hand what is not wanted."
    )


def test_a_forced_removal_takes_what_others_changed_too(host: Host) -> None:
    with host.path(TARGET.drop_in).open("a") as file:
        file.write("Environment=OTHERS=1\n")
    removed, left = remove(host, "vllm", force=True)
    assert (TARGET.drop_in in removed, left) == (True, [])
    assert not host.path(TARGET.drop_in).parent.exists()


def test_a_set_up_that_was_cut_short_is_removed_by_its_mark(host: Host) -> None:
    host.path(TARGET.record).unlink()
    removed, left = remove(host, "vllm")
    assert left == []
    assert {TARGET.drop_in, TARGET.replay_unit, TARGET.fit_unit} <= set(removed)


def test_a_drop_in_of_the_first_release_is_found_by_the_folder_that_it_names(host: Host) -> None:
    host.path(TARGET.record).unlink()
    host.path(TARGET.drop_in).write_text(f"{MARK}\n[Service]\nEnvironment=PYTHONPYCACHEPREFIX={TARGET.pycache}\n")
    assert TARGET.drop_in in remove(host, "vllm")[0]


def test_another_targets_files_are_not_taken_by_their_mark(host: Host) -> None:
    other = "/etc/systemd/system/other.service.d/slm-first-token.conf"
    host.path(other).parent.mkdir(parents=True)
    host.path(other).write_text(f"{MARK}\n# Target: vllm2\n")
    removed, _ = remove(host, "vllm")
    assert other not in removed
    assert host.path(f"{FIRST_TOKEN}/bin").exists(), "the programs of a target that is left"
    assert other in remove(host, "vllm2")[0]
    assert not host.path(f"{FIRST_TOKEN}/bin").exists()


def test_a_dynamic_users_cache_goes_too(host: Host) -> None:
    kept = host.path("/var/cache/private/slm-first-token-vllm")
    kept.mkdir(parents=True)
    host.path("/var/cache/slm-first-token-vllm").symlink_to("private/slm-first-token-vllm")
    removed, _ = remove(host, "vllm")
    assert "/var/cache/slm-first-token-vllm" in removed
    assert not kept.exists()
    assert not host.path("/var/cache/slm-first-token-vllm").is_symlink()


def test_kept_kernels_go_too(host: Host) -> None:
    host.path(TARGET.kernel_folder).mkdir()
    kept = host.path("/var/cache/private/slm-kernels-vllm")
    kept.mkdir(parents=True)
    (kept / "index").write_text("x")
    host.path("/var/cache/slm-kernels-vllm").symlink_to("private/slm-kernels-vllm")
    remove(host, "vllm")
    assert not host.path(TARGET.kernel_folder).exists()
    assert not kept.exists()
    assert not host.path("/var/cache/slm-kernels-vllm").is_symlink()


def test_a_folder_that_cannot_be_removed_is_one_problem_and_its_units_are_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It blocked the whole rollback."""
    other = "/etc/systemd/system/slm-first-token-other.service"
    host.path(other).write_text(f"{MARK}\n")

    def full(path: Path, patience_s: float = 0) -> None:
        if path == host.path(TARGET.folder):
            raise OSError(errno.ETIMEDOUT, "It is filled as fast as it is emptied", TARGET.folder)

    monkeypatch.setattr(module, "remove_tree", full)
    done = remove_all(host, ["vllm", "other"])
    assert done.problems == [f"first_token.vllm: It is filled as fast as it is emptied on {TARGET.folder}"]
    assert done.removed == [other]
    assert not host.path(TARGET.drop_in).exists()


def test_what_was_started_again_is_told() -> None:
    words = Removal(started=["a.service"]).warning
    assert words == "started again after a recording that was cut short: a.service."
    assert Removal().warning is None
    assert Removal(["/x"]).diff == "/x: there\n"


def test_files_that_a_new_record_lacks_go_with_their_folder_unless_others_changed_them(host: Host) -> None:
    hashes = read_hashes(host, "vllm")
    with host.path(TARGET.replay_unit).open("a") as file:
        file.write("Nice=1\n")
    remove_files(host, {path: hashes[path] for path in (TARGET.drop_in, TARGET.replay_unit)})
    assert host.path(TARGET.replay_unit).exists()
    assert not host.path(TARGET.drop_in).parent.exists()
    assert host.path(TARGET.fit_unit).exists()


def test_the_folder_of_all_units_stays_where_ours_was_the_only_one(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.path(TARGET.replay_unit).parent.mkdir(parents=True)
    host.path(TARGET.replay_unit).write_text(f"{MARK}\n")
    assert remove(host, "vllm") == ([TARGET.replay_unit], [])
    assert list(host.path(UNITS).iterdir()) == []


def test_systemd_reads_its_units_again_only_where_one_went(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    reloads: list[Host] = []
    monkeypatch.setattr(module, "reload_units", reloads.append)
    host.path(f"{TARGETS}/empty").mkdir()
    remove(host, "empty")
    assert reloads == []
    remove(host, "vllm")
    assert reloads == [host]


def test_what_others_changed_is_left_unless_a_removal_is_forced(host: Host) -> None:
    with host.path(TARGET.drop_in).open("a") as file:
        file.write("Environment=OTHERS=1\n")
    assert remove_all(host, ["vllm"]).left == [TARGET.drop_in]

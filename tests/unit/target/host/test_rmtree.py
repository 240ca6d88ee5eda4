"""Removing trees: deep ones, ones with links, ones with mounts, and one that somebody keeps filling."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.host.rmtree import remove_folder_if_empty, remove_tree


def test_a_file_a_link_and_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "file").write_text("")
    for name in ("link", "file", "gone", "gone/deeper"):
        remove_tree(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"]


def test_a_tree_deeper_than_any_recursion_and_longer_than_any_path(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    folder = os.open(tree, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("a-folder", dir_fd=folder)
        inner = os.open("a-folder", os.O_RDONLY, dir_fd=folder)
        os.close(os.open("a-file", os.O_CREAT, dir_fd=inner))
        os.close(folder)
        folder = inner
    os.close(folder)
    remove_tree(tree)
    assert os.listdir(tmp_path) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("theirs")
    inner = tmp_path / "tree/inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "link").symlink_to(tmp_path / "precious")
        os.mkfifo(folder / "pipe")
        (folder / os.fsdecode(b"odd \xff\n")).write_text("")
    remove_tree(tmp_path / "tree")
    assert (tmp_path / "precious/file").read_text() == "theirs"
    assert not (tmp_path / "tree").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("place", ["", "/inner", "/inner/deep"])
def test_what_is_mounted_inside_stays(tmp_path: Path, place: str) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").write_text("theirs")
    (tmp_path / "tree/inner/deep").mkdir(parents=True)
    where = f"{tmp_path}/tree{place}"
    # Of the same file system: its device tells nothing.
    mount = f"mount --bind {tmp_path}/theirs {where}"
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'plugins/module_utils')\n"
        "from slm_baseline.host.rmtree import remove_tree\n"
        f"try: remove_tree(Path({str(tmp_path / 'tree')!r}))\n"
        "except OSError as error: print(error.errno)"
    )
    # The folders above a mount may have been lifted by then.
    script = f'{mount} && "$@" && find {tmp_path}/tree {tmp_path}/theirs -type f'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh"]
    command += ["/usr/bin/python3", "-c", code]
    root = Path(__file__).parents[4]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("16\n"), done
    assert done.stdout.count("/file\n") == 2


def test_a_folder_that_is_filled_all_the_time_is_given_up(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "0").write_text("")
    stop = threading.Event()

    def fill() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (tree / str(number)).write_text("")

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    try:
        with pytest.raises(OSError, match=r"filled as fast|not empty"):
            remove_tree(tree, patience_s=0.0)
    finally:
        stop.set()
        filler.join()


def test_only_an_empty_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "full/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("full")
    for name in ("full", "link", "gone", "full/inner"):
        remove_folder_if_empty(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["full", "link"]
    assert os.listdir(tmp_path / "full") == []

"""One name of a folder means one place, and a folder is tried before it is needed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from analysis.documents.errors import DocumentError
from analysis.documents.places import place, try_folder


def test_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PWD", "/somewhere/else")
    assert place("results") == place("./results/") == f"{tmp_path}/results"
    assert place("~/results") == "/home/me/results"
    assert place("/srv/a/../results") == "/srv/results"


@pytest.mark.parametrize("name", ["", "  ", "~nobody-of-that-name/results"])
def test_a_name_that_means_no_place_is_refused_by_its_variable(name: str) -> None:
    with pytest.raises(DocumentError, match=r"^report_results_dir: wanted the path of a folder"):
        place(name, "report_results_dir")


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    try_folder(tmp_path / "a/b", "report_results_dir")
    assert list((tmp_path / "a/b").iterdir()) == []


def test_a_file_in_the_way_is_refused_by_the_variable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(DocumentError, match=r"^report_results_dir: .*nothing was measured yet"):
        try_folder(tmp_path / "a/b", "report_results_dir")


def test_a_full_disk_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DocumentError, match="No space left on device"):
        try_folder(tmp_path, "report_results_dir")
    assert list(tmp_path.iterdir()) == []

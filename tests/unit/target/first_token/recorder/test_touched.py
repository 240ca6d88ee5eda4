"""Which pages of a mapped file a process has touched, as its page tables tell it."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.slm_baseline.first_token.plan import PlanFile
from ansible.module_utils.slm_baseline.first_token.recorder import touched
from ansible.module_utils.slm_baseline.first_token.recorder.record import with_touched
from ansible.module_utils.slm_baseline.first_token.recorder.touched import (
    Mapping,
    Touched,
    libraries,
    parse_maps,
    processes_of,
    touched_runs,
    united,
    within,
)
from ansible.module_utils.slm_baseline.host.errors import ParseError
from hypothesis import given
from hypothesis import strategies as st

PAGE = mmap.PAGESIZE
FAULT_AROUND = (64 << 10) // PAGE
"""Pages that one fault maps where they are in memory (mm/memory.c, `fault_around_pages`)."""

MAPS = """\
00200000-00201000 r--p 00000000 fe:00 4612 /usr/bin/python3.12
00201000-00202000 r-xp 00001000 fe:00 4612 /usr/bin/python3.12
7f0000000000-7f0000021000 rw-p 00000000 00:00 0
7f1000000000-7f1040000000 r--s 00000000 fe:00 77 /models/phi 3/model-00001.safetensors
7f2000000000-7f2000001000 rw-s 00000000 00:05 1054 /dev/nvidia0
7f3000000000-7f3000001000 r-xp 00003000 fe:00 99 /tmp/a\\012b.so (deleted)
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def test_each_file_mapping_is_told_with_its_place_in_the_file() -> None:
    found = parse_maps(MAPS)
    assert found[1] == Mapping(0x201000, 0x202000, 0x1000, (0xFE, 0, 4612), "/usr/bin/python3.12", True)
    assert [mapping.path for mapping in found] == [
        "/usr/bin/python3.12",
        "/usr/bin/python3.12",
        "/models/phi 3/model-00001.safetensors",
        "/dev/nvidia0",
        "/tmp/a\\012b.so (deleted)",
    ]


def test_programs_and_libraries_are_asked_about_with_all_their_parts_and_weights_are_not() -> None:
    assert [mapping.file[2] for mapping in libraries(parse_maps(MAPS))] == [4612, 4612, 99]


@pytest.mark.parametrize(
    "line", ["x", "00200000-00201000 r--p 00000000 fe:00", "00200000-00201000 rwxz 0 fe:00 1 /a", "-1-2 r--p 0 0:0 1 /"]
)
def test_a_line_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(ParseError, match=r"/proc/PID/maps"):
        parse_maps(f"{MAPS}{line}\n")


@given(st.text(max_size=200))
def test_no_text_is_more_than_refused(text: str) -> None:
    with contextlib.suppress(ParseError):
        assert isinstance(parse_maps(text), list)


def test_pages_that_are_there_or_swapped_out_were_touched_and_others_were_not() -> None:
    present, swapped, other = 1 << 63 | 4711, 1 << 62, (1 << 61) | (1 << 55)
    entries = struct.pack("=6Q", 0, present, present | 1 << 61, other, swapped, 0)
    assert list(touched_runs(entries)) == [(1, 2), (4, 1)]
    # What a read cut short within an entry says, nobody knows.
    assert list(touched_runs(entries[:-9])) == [(1, 2)]


some_ranges = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), max_size=12)


def pages_of(ranges: object) -> set[int]:
    assert isinstance(ranges, list)
    return {page for first, count in ranges for page in range(first, first + count)}


@given(some_ranges, st.integers(0, 20))
def test_united_ranges_are_in_order_hold_all_and_only_near_gaps(ranges: list[tuple[int, int]], gap: int) -> None:
    found = united(ranges, gap)
    wanted = pages_of(ranges)
    assert wanted <= pages_of(found)
    assert pages_of(united(ranges)) == wanted
    assert all(later[0] - sum(earlier) > gap for earlier, later in itertools.pairwise(found))
    # A page more than was asked for lies in a gap, with pages of both sides near.
    for page in pages_of(found) - wanted:
        assert max(p for p in wanted if p < page) + gap + 1 >= min(p for p in wanted if p > page)


@given(some_ranges, st.integers(1, 200 * PAGE))
def test_nothing_behind_the_end_of_a_file_is_told(ranges: list[tuple[int, int]], size: int) -> None:
    pages = -(-size // PAGE)
    assert pages_of(within(ranges, size, 0)) == {page for page in pages_of(ranges) if page < pages}


PROGRAM = """\
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(file).st_size
view = mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
[view[int(page) * mmap.PAGESIZE] for page in sys.argv[2:]]
print("touched", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "library.so"
    path.write_bytes(b"\x7fELF" + os.urandom(PAGE * 40 * FAULT_AROUND - 4))
    # What was just written lies in large folios, which one fault maps whole; what a fault reads in comes page by page.
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    return path


def known_by(path: Path) -> tuple[str, int, int]:
    return str(path), path.stat().st_dev, path.stat().st_ino


def mapped(library: Path, *pages: int) -> subprocess.Popen[str]:
    """A process that has mapped the whole library and touched these pages."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(library), *map(str, pages)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "touched\n"
    return process


@pytest.fixture
def two(library: Path) -> Iterator[list[subprocess.Popen[str]]]:
    processes = [mapped(library, 0, 20 * FAULT_AROUND), mapped(library, 30 * FAULT_AROUND)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def windows(*numbers: int) -> set[int]:
    """Pages that a fault may map: its window is aligned by address, not by place in the file."""
    return {page for number in numbers for page in range((number - 1) * FAULT_AROUND + 1, (number + 1) * FAULT_AROUND)}


def test_what_each_process_touched_is_told_and_not_what_else_is_in_memory(
    library: Path, two: list[subprocess.Popen[str]]
) -> None:
    found = Touched()
    found.look([two[0].pid])
    first = found.of(*known_by(library))
    assert first is not None
    assert {0, 20 * FAULT_AROUND} <= pages_of(first) <= windows(0, 20)
    found.look(process.pid for process in two)
    both = found.of(*known_by(library))
    assert {0, 20 * FAULT_AROUND, 30 * FAULT_AROUND} <= pages_of(both) <= windows(0, 20, 30)
    assert (found.asked, found.refused) == (3, 0)


def test_small_windows_of_the_page_tables_tell_the_same(
    library: Path, two: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = Touched(), Touched()
    whole.look([two[0].pid])
    monkeypatch.setattr(touched, "_WINDOW_BYTES", 24)
    parts.look([two[0].pid])
    assert parts.pages == whole.pages


def test_a_file_whose_device_maps_tells_otherwise_is_found_by_inode_and_path(
    library: Path, two: list[subprocess.Popen[str]]
) -> None:
    found = Touched()
    found.look([two[0].pid])
    device, inode = os.makedev(0, 77), library.stat().st_ino
    assert found.of(str(library), device, inode) == found.of(*known_by(library))
    assert found.of(*known_by(library))
    assert found.of("/another.so", device, inode) is None


def test_processes_that_ended_or_may_not_be_asked_leave_what_is_known(library: Path, tmp_path: Path) -> None:
    process = mapped(library, 0)
    found = Touched()
    found.look([process.pid])
    known = found.of(*known_by(library))
    process.kill()
    process.wait()
    # One that is gone, and one whose page tables are closed to us.
    closed = tmp_path / "proc" / "7"
    closed.mkdir(parents=True)
    (closed / "maps").write_text(MAPS)
    found.look([process.pid])
    found.look([8], str(tmp_path / "proc"))
    (closed / "pagemap").mkdir()
    found.look([7], str(tmp_path / "proc"))
    assert found.of(*known_by(library)) == known
    assert (found.asked, found.refused) == (1, 1)


def test_a_file_that_nobody_mapped_is_not_known(library: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x")
    found = Touched()
    found.look([os.getpid()])
    assert found.of(*known_by(tmp_path / "other")) is None


def planned(path: Path, is_weights: bool = False) -> PlanFile:
    found = path.stat()
    ranges = ((0, 5), (7, 600))
    return PlanFile(str(path), is_weights, found.st_ino, found.st_size, found.st_mtime_ns, ranges, found.st_dev)


def test_a_plan_has_of_a_library_what_was_touched_and_its_first_page(
    library: Path, two: list[subprocess.Popen[str]]
) -> None:
    found = Touched()
    found.look(process.pid for process in two)
    library_plan = with_touched(planned(library), found)
    assert library_plan.ranges
    assert {0, 20 * FAULT_AROUND, 30 * FAULT_AROUND} <= pages_of(list(library_plan.ranges)) <= windows(0, 20, 30)
    assert with_touched(planned(library, is_weights=True), found).ranges == ((0, 5), (7, 600))


def test_a_plan_has_of_what_nobody_was_asked_about_what_is_in_memory(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 9000)
    assert with_touched(planned(tmp_path / "data"), Touched()).ranges == ((0, 5), (7, 600))


def test_a_library_that_was_touched_all_over_is_planned_whole(tmp_path: Path) -> None:
    (tmp_path / "small.so").write_bytes(b"x" * 9000)
    file = planned(tmp_path / "small.so")
    # A mapping may go behind the end of its file.
    key = (os.major(file.device), os.minor(file.device), file.inode)
    assert with_touched(file, Touched({key: [(1, 40)]})).ranges is None


def test_the_processes_of_a_target_are_those_that_certainly_belong_and_not_whoever_asks() -> None:
    answers = {os.getpid(): True, os.getppid(): True, 1: None}
    assert processes_of(lambda pid: answers.get(pid, False)) == [os.getppid()]

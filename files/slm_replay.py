#!/usr/bin/python3 -IS
"""Replay of a recorded start: reads directories, inodes, libraries, then weights into memory before the start asks.

    slm_replay.py PLAN           replay, one line of result on standard output
    slm_replay.py --check PLAN   say which files of the plan have changed; read nothing

A plan is text, one line an entry, its fields separated by tabs (see `slm_baseline/first_token/plan.py`, which writes
it): `D path` a directory to list, `I` and `W` a file of the imports or of the weights with its inode, size in bytes,
mtime in ns and ranges of pages. All imports are requested before the first byte of the weights, since their small
reads would queue behind large ones. A file that is no longer the recorded one is skipped.

It opens regular files to read and changes nothing. It exits with 0 whatever it could not read: a service must not fail
because its files could not be read early. Status 2: bad arguments, or no plan that can be trusted.

It imports only what the interpreter has in memory anyway: any other module is read from the cold disk first.
"""

from __future__ import annotations

import _thread
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    Item = TypeVar("Item")

STARTED_NS = time.monotonic_ns()

FIRST_LINES = ("slm-baseline first-token plan 1", "slm-baseline first-token plan 2")
PAGE = os.sysconf("SC_PAGESIZE")
MIB = 1 << 20
CHUNK_BYTES = 4 * MIB
PART_BYTES = MIB // 8
PARTS_AHEAD = 32
"""Parts of a range that are requested and not yet waited for. No device's largest request is shorter than a part."""
SMALL_BYTES = MIB // 4
"""A file with no more than this to read is requested at once, and waited for after others have been requested."""
FOLDER_READERS = 4
"""Reading a folder or an inode blocks, so several readers do it."""
LARGE_READERS = 2
"""Readers of large files, beside those of folders and of small ones. More readers of any kind bring nothing sooner and
cost CPU that a concurrent start lacks: eight of each cost 1.6 times as much on two CPUs.
"""
ASKED_AHEAD = 128
"""Small files that one reader has requested and not yet waited for: as many as a disk's queue holds."""
INODES_A_BLOCK = 16
"""Reading one inode reads its neighbours: 16 of 256 bytes in a block (ext4, which counts from 1), more elsewhere."""
STREAMS = 4
"""Readers of one large file where the device's read-ahead is short. Each keeps one read-ahead's length in flight."""
DEEP_READ_AHEAD_KIB = 1024
"""With this much read-ahead one reader of a file keeps the device busy; more only delay small reads."""
SPARE_SHARE = 0.9
"""The share of MemAvailable that a replay may fill: more would evict what it has just read."""


class Refused(Exception):
    """A plan that cannot be used; the text is the one line that the user sees."""


class Entry:
    """One file of the plan and the ranges of it (offset and length in bytes) that the start reads."""

    __slots__ = ("bytes", "inode", "mtime_ns", "path", "ranges", "size")

    def __init__(self, fields: list[str]) -> None:
        _, inode, size, mtime_ns, ranges, path = fields
        self.inode, self.size, self.mtime_ns = int(inode), int(size), int(mtime_ns)
        self.path = unescaped(path)
        if ranges == "*":
            self.ranges = [(0, self.size)] if self.size else []
        else:
            pairs = (pair.split("+") for pair in ranges.split(",") if pair)
            self.ranges = [(int(first) * PAGE, int(count) * PAGE) for first, count in pairs]
        self.bytes = sum(length for _, length in self.ranges)


class Plan:
    """What to read, in order."""

    def __init__(self, text: str) -> None:
        lines = text.split("\n")
        if lines[0] not in FIRST_LINES or lines[-2:] != ["end", ""]:
            raise Refused("it is no complete plan of this version")
        self.folders: list[str] = []
        self.imports: list[Entry] = []
        self.weights: list[Entry] = []
        self.facts: dict[str, str] = {}
        try:
            for line in lines[1:-2]:
                fields = line.split("\t")
                if fields[0] == "D":
                    self.folders.append(unescaped(fields[1]))
                elif fields[0] == "I":
                    self.imports.append(Entry(fields))
                elif fields[0] == "W":
                    self.weights.append(Entry(fields))
                else:
                    self.facts[fields[0]] = fields[1]
        except (ValueError, IndexError):
            raise Refused("one of its lines is damaged") from None
        if self.facts.get("page_bytes") != str(PAGE):
            raise Refused(f"it was recorded with pages of {self.facts.get('page_bytes')} bytes, here they have {PAGE}")


def unescaped(text: str) -> str:
    """Decode a path of the plan, in which tab, line end and `%` are written as `%09`, `%0A`, `%25`."""
    if "%" in text:
        text = text.replace("%09", "\t").replace("%0A", "\n").replace("%25", "%")
    return text


def read_plan(path: str) -> Plan:
    """Read the plan; Refused where users other than root and its owner, who runs this, could have written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise Refused(error.strerror) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise Refused("others than root may write it")
        parts = []
        while part := os.read(descriptor, 8 * MIB):
            parts.append(part)
    except OSError as error:
        raise Refused(error.strerror) from None
    finally:
        os.close(descriptor)
    return Plan(b"".join(parts).decode("utf-8", "surrogateescape"))


class Tally:
    """Counts of what all readers did; appending to a list is atomic under the interpreter's lock."""

    def __init__(self) -> None:
        self.first_request_ns = 0
        self.asked: list[int] = []
        self.stale: list[str] = []
        self.unread: list[str] = []

    def request(self, count: int) -> None:
        if not self.first_request_ns:
            self.first_request_ns = time.monotonic_ns()
        self.asked.append(count)


def open_recorded(entry: Entry, tally: Tally) -> int | None:
    """Open the recorded file; None where it has changed, is not a regular file, or is not readable for us."""
    try:
        # Checked before it is opened (O_PATH, open(2)): opening a device may act on it.
        place = os.open(entry.path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        tally.stale.append(entry.path)
        return None
    except OSError:
        tally.unread.append(entry.path)
        return None
    try:
        found = os.fstat(place)
        if stat.S_ISLNK(found.st_mode):
            tally.unread.append(entry.path)
            return None
        if (found.st_ino, found.st_size, found.st_mtime_ns) != (entry.inode, entry.size, entry.mtime_ns) or not (
            stat.S_ISREG(found.st_mode)
        ):
            tally.stale.append(entry.path)
            return None
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        tally.unread.append(entry.path)
        return None
    finally:
        os.close(place)


def pages_are_taken_back() -> bool:
    """Return whether the hypervisor reclaims freed memory (virtio_balloon's feature bit 5, free page reporting)."""
    folder = "/sys/bus/virtio/drivers/virtio_balloon"
    try:
        for name in os.listdir(folder):
            if name.startswith("virtio"):
                with open(f"{folder}/{name}/features", "rb") as file:
                    return file.read()[5:6] == b"1"
    except OSError:
        pass
    return False


def read_ahead_kib(device: int) -> int:
    """Return the read-ahead of a file's device in KiB; 0 where the kernel does not report it."""
    try:
        with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


class Replay:
    """One replay of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        # A spinning disk is fastest with one reader: a second makes it seek.
        self.spinning = plan.facts.get("spinning") == "1"
        self.streams = 1 if self.spinning else STREAMS
        self.medium_folios = pages_are_taken_back()
        self.inode_blocks: dict[int, set[int]] = {}
        self.null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def begin(self, readers: int, work: Callable[[Iterator[Item]], None], items: Sequence[Item]) -> Callable[[], None]:
        """Run `work(turns)` in several threads that share one iterator of items; return what waits for all."""
        turns = iter(items)
        running = [_thread.allocate_lock() for _ in range(min(readers, len(items)))]

        def reader(lock: object) -> None:
            try:
                work(turns)
            except OSError as error:
                self.tally.unread.append(str(error))
            finally:
                lock.release()  # type: ignore[attr-defined]

        for lock in running:
            lock.acquire()
            _thread.start_new_thread(reader, (lock,))

        def wait() -> None:
            for lock in running:
                lock.acquire()

        return wait

    def folders(self, turns: Iterator[str]) -> None:
        """Read folders, whose blocks hold every name and so answer for each that does not exist; then inodes.

        One inode of each block is read: the disk is waited for once, and the target makes the other inodes from memory.
        """
        for path in turns:
            self.tally.request(0)
            try:
                seen = self.inode_blocks.setdefault(os.stat(path).st_dev, set())
                with os.scandir(path) as entries:
                    for entry in entries:
                        block = (entry.inode() - 1) // INODES_A_BLOCK
                        if block not in seen:
                            seen.add(block)
                            entry.stat(follow_symlinks=False)
            except OSError:
                self.tally.unread.append(path)

    def files(self, turns: Iterator[Entry]) -> None:
        """Read what a start reads of import files; all of it is in memory when the last reader returns.

        Taking an item is one call of a C iterator, so no two readers get the same one.
        """
        asked: list[tuple[int, Entry]] = []
        try:
            for entry in turns:
                descriptor = open_recorded(entry, self.tally)
                if descriptor is None:
                    continue
                if entry.bytes > SMALL_BYTES:
                    self.read(descriptor, entry)
                    continue
                for offset, length in entry.ranges:
                    self.tally.request(length)
                    os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
                asked.append((descriptor, entry))
                if len(asked) > ASKED_AHEAD:
                    self.settle(*asked.pop(0))
        finally:
            for descriptor, entry in asked:
                self.settle(descriptor, entry)

    def settle(self, descriptor: int, entry: Entry) -> None:
        """Wait for the requested ranges of a small file, and close it."""
        try:
            for offset, length in entry.ranges:
                os.sendfile(self.null, descriptor, offset, length)
        except OSError:
            self.tally.unread.append(entry.path)
        finally:
            os.close(descriptor)

    def read(self, descriptor: int, entry: Entry) -> None:
        """Read a large file's ranges to their end, and close it.

        Pages in memory cost next to nothing. They are not looked for beforehand: a read that must not wait (RWF_NOWAIT)
        starts a read-ahead where it fails, and 4 KiB here and there split the large requests.
        """
        try:
            for first, length in entry.ranges:
                if first + length < entry.size:
                    self.read_part(descriptor, first, first + length)
                else:
                    self.read_on(descriptor, first, entry.size)
        except OSError:
            self.tally.unread.append(entry.path)
        finally:
            os.close(descriptor)

    def read_part(self, descriptor: int, first: int, end: int) -> None:
        """Read the bytes from `first` to `end` and nothing after them.

        The kernel's read-ahead would continue up to twice its length past each range of a library: 7 % more than the
        start itself reads. A file opened for random access has no read-ahead, and WILLNEED reads exactly its range.
        """
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        asked = first
        for offset in range(first, end, PART_BYTES):
            while asked < min(end, offset + PARTS_AHEAD * PART_BYTES):
                count = min(PART_BYTES, end - asked)
                self.tally.request(count)
                os.posix_fadvise(descriptor, asked, count, os.POSIX_FADV_WILLNEED)
                asked += count
            os.sendfile(self.null, descriptor, offset, min(PART_BYTES, end - offset))

    def read_on(self, descriptor: int, first: int, end: int) -> None:
        """Read the bytes from `first` to `end`, where the file ends."""
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        deep = read_ahead_kib(os.fstat(descriptor).st_dev) >= DEEP_READ_AHEAD_KIB
        chunks = [(offset, min(CHUNK_BYTES, end - offset)) for offset in range(first, end, CHUNK_BYTES)]

        def stream(turns: Iterator[tuple[int, int]]) -> None:
            # sendfile(2) to /dev/null only moves references to pages: the kernel's own read-ahead reads them, in large
            # folios where the file system has them. WILLNEED reads single pages (mm/readahead.c,
            # `force_page_cache_ra`), and its calls are split into the device's largest requests.
            for offset, count in turns:
                self.tally.request(count)
                if self.medium_folios:
                    self.send_anew(descriptor, offset, count)
                else:
                    os.sendfile(self.null, descriptor, offset, count)

        if deep or self.streams == 1:
            stream(iter(chunks))
        else:
            self.begin(self.streams, stream, chunks)()

    def send_anew(self, descriptor: int, offset: int, count: int) -> None:
        """Read a chunk through a new open file description, whose read-ahead begins with small folios.

        Large folios come from memory that the hypervisor has reclaimed, and the target pays for the first touch of each
        of their pages: 0.6 s of CPU for 1 GB. Small ones cost it nothing, and us 0.07 s.
        """
        opening = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.sendfile(self.null, opening, offset, count)
        finally:
            os.close(opening)

    def read_imports(self, imports: Sequence[Entry]) -> None:
        """Read all folders and these files.

        Large files do not wait for folders, since they need no inode that a folder would bring; small ones come after
        the folders, when their inodes are in memory. A disk that has to seek gets one reader, in the order of the
        start.
        """
        large = [] if self.spinning else [entry for entry in imports if entry.bytes > SMALL_BYTES]
        others = imports if self.spinning else [entry for entry in imports if entry.bytes <= SMALL_BYTES]
        wait_for_large = self.begin(LARGE_READERS, self.files, large)
        self.begin(1 if self.spinning else FOLDER_READERS, self.folders, self.plan.folders)()
        self.begin(1, self.files, others)()
        wait_for_large()

    def run(self) -> str:
        """Run the whole replay; return one line that says what it did."""
        plan, tally = self.plan, self.tally
        wanted = sum(entry.bytes for entry in [*plan.imports, *plan.weights])
        spare = int(available_bytes() * SPARE_SHARE)
        imports_bytes = sum(entry.bytes for entry in plan.imports)
        self.read_imports(plan.imports if imports_bytes <= spare else [])
        imports_ns = time.monotonic_ns()
        before_weights_bytes = read_from_disk_bytes()
        if wanted <= spare:
            # One file after another, as the loader reads them.
            for entry in plan.weights:
                descriptor = open_recorded(entry, tally)
                if descriptor is not None:
                    self.read(descriptor, entry)
        ended_ns = time.monotonic_ns()
        cpu = os.times()
        words = [
            f"first_request_s={seconds(tally.first_request_ns)}",
            f"imports_s={seconds(imports_ns)}",
            f"ended_s={seconds(ended_ns)}",
            f"cpu_s={cpu.user + cpu.system:.3f}",
            f"files={len(plan.imports) + len(plan.weights)}",
            f"bytes={wanted}",
            f"read_bytes={sum(tally.asked)}",
            f"weights_bytes={sum(entry.bytes for entry in plan.weights)}",
            f"weights_read_bytes={read_from_disk_bytes() - before_weights_bytes}",
            f"stale={len(tally.stale)}",
            f"unread={len(tally.unread)}",
        ]
        if wanted > spare:
            words.append(f"memory={'imports only' if imports_bytes <= spare else 'too little'}")
        return " ".join(words)


def seconds(instant_ns: int) -> str:
    """Return the seconds since this process started, by the kernel's clock where available, as text."""
    return f"{(instant_ns - spawned_ns()) / 1e9:.3f}" if instant_ns else "none"


def spawned_ns() -> int:
    """Return when this process started, CLOCK_MONOTONIC in ns, in ticks of 10 ms (proc_pid_stat(5), `starttime`)."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        boot_minus_monotonic = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK") - boot_minus_monotonic
    except (OSError, ValueError, IndexError):
        return STARTED_NS


def read_from_disk_bytes() -> int:
    """Return the bytes that this process has read from disk (proc_pid_io(5)); 0 where the kernel does not report it."""
    try:
        with open("/proc/self/io", "rb") as file:
            for line in file:
                if line.startswith(b"read_bytes:"):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def available_bytes() -> int:
    """Return what may be filled: MemAvailable, or what the surrounding memory cgroups leave, whichever is less."""
    least = 1 << 62
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    least = int(line.split()[1]) << 10
        with open("/proc/self/cgroup", "rb") as file:
            path = next((line[3:].strip().decode() for line in file if line.startswith(b"0::")), "")
        while path:
            folder = f"/sys/fs/cgroup{path.rstrip('/')}"
            try:
                with open(f"{folder}/memory.max", "rb") as file:
                    limit = file.read().strip()
                if limit != b"max":
                    with open(f"{folder}/memory.current", "rb") as file:
                        least = min(least, int(limit) - int(file.read()))
            except OSError:
                pass  # The root group has no limit, and neither has one without the memory controller.
            path = path.rpartition("/")[0]
    except (OSError, ValueError):
        pass
    return max(0, least)


def check(plan: Plan) -> str:
    """Return which files have changed since they were recorded."""
    tally = Tally()
    for entry in [*plan.imports, *plan.weights]:
        descriptor = open_recorded(entry, tally)
        if descriptor is not None:
            os.close(descriptor)
    lines = [f"stale {path}" for path in tally.stale] + [f"unread {path}" for path in tally.unread]
    return "\n".join([*lines, f"files={len(plan.imports) + len(plan.weights)} stale={len(tally.stale)}"])


def main(arguments: list[str]) -> int:
    checking = arguments[:1] == ["--check"]
    paths = arguments[checking:]
    if len(paths) != 1 or paths[0].startswith("-"):
        sys.stderr.write("usage: slm_replay.py [--check] PLAN\n")
        return 2
    try:
        plan = read_plan(paths[0])
    except Refused as error:
        sys.stderr.write(f"slm_replay: {paths[0]}: {error}. Next: record it again with first_token.yml.\n")
        return 2
    sys.stdout.write((check(plan) if checking else Replay(plan).run()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

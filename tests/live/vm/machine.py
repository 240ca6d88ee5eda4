"""One virtual machine: boot it, reach it over ssh, cut its power or its network, and restore it as it was."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.vm.emulator import EMULATORS
from tests.live.vm.image import OPERATOR, BaseImage
from tests.live.vm.monitor import Monitor
from tests.live.vm.tools import VmTestError, run, search_path

# Emulation is the default because a /dev/kvm that exists may still never boot a stock kernel.
USE_KVM = os.environ.get("SLM_VM_KVM") == "1"
BOOT_TIMEOUT_S = 30 if USE_KVM else 600
SNAPSHOT = "pristine"


@dataclass(frozen=True)
class Shape:
    """What a machine is made of. Memory is shared evenly by its NUMA nodes; CPUs are dealt to them in turn."""

    memory_mib: int = 1024
    cpus: int = 2
    numa_nodes: int = 1
    kernel_arguments: str = ""


@dataclass
class Machine:
    """A virtual machine whose disk is a copy-on-write overlay in `folder`, beside its console log."""

    name: str
    image: BaseImage
    folder: Path
    shape: Shape = field(default_factory=Shape)
    read_only_disks: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = _free_port()
        # Not in `folder`: the path of a socket may have 107 bytes.
        self._sockets = tempfile.TemporaryDirectory(prefix="slm-vm-")
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.image.disk, self.overlay],
            self.folder / "qemu.log",
        )

    @property
    def overlay(self) -> Path:
        return self.folder / "disk.qcow2"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def monitor(self) -> Monitor:
        if self._monitor is None:
            raise VmTestError(f"{self.name} is not running")
        return self._monitor

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, snapshot: str | None = None) -> None:
        """Switch the power on and return at once; from a snapshot the machine goes on where it was taken."""
        ours, theirs = socket.socketpair()
        # PDEATHSIG ends QEMU when this process dies in whatever way; it is why no thread may start a machine.
        command = ["setpriv", "--pdeathsig", "KILL", *self._arguments(theirs.fileno())]
        if snapshot:
            command += ["-loadvm", snapshot]
        with theirs, (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                # A Ctrl-C at the terminal is for the tests, which end QEMU themselves.
                start_new_session=True,
                env={**os.environ, "PATH": search_path()},
            )
        atexit.register(self.kill)
        self._monitor = Monitor(ours)

    def wait_until_up(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Return when systemd has finished booting and ssh works; VmTestError, with the console's tail, if never."""
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline:
                tail = "\n".join(self.console.read_text(errors="replace").splitlines()[-15:])
                raise VmTestError(f"{self.name} did not come up in {timeout_s:.0f} s; {self.console} ends:\n{tail}")
            time.sleep(0.5)
        self.ssh("systemctl is-system-running --wait")

    def boot(self) -> None:
        """Switch on and wait until the machine is up."""
        self.start()
        self.wait_until_up()

    def kill(self) -> None:
        """Cut the power: QEMU dies at once and what it had not flushed is lost. Nothing where it is off already."""
        self.hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._monitor is not None:
            self._monitor.close()
        self._process = self._monitor = None
        atexit.unregister(self.kill)

    def close(self) -> None:
        """Cut the power for good."""
        self.kill()
        self._sockets.cleanup()

    def shutdown(self) -> None:
        """Power off in order, then make sure of it."""
        self.ssh("systemctl poweroff")
        if self._process is not None:
            try:
                self._process.wait(BOOT_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise VmTestError(f"{self.name} did not power off; see {self.console}") from error
        self.kill()

    def reboot(self) -> None:
        """Restart in order and wait until the machine is up on a new boot."""
        self.wait_until_up_again(self.begin_reboot())

    def begin_reboot(self) -> str:
        """Tell the machine to restart in order; returns the id of the boot that ends."""
        before = self.boot_id()
        self.ssh("systemctl reboot")
        return before

    def wait_until_up_again(self, ended_boot: str) -> None:
        """Return once the machine is up on another boot than the one that ended."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while True:
            self.hang_up()
            self.wait_until_up(max(1.0, deadline - time.monotonic()))
            if self.boot_id() not in ("", ended_boot):
                return
            time.sleep(0.5)

    def boot_id(self) -> str:
        return self.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def save(self) -> None:
        """Keep the running machine, memory and disk, as the state that `restore` returns to."""
        self.hang_up()
        self.monitor.human(f"savevm {SNAPSHOT}")

    def restore(self) -> None:
        """Return to the saved state, running, whether the machine is up, hung, cut off or without power."""
        self.hang_up()
        if self.is_running:
            self.connect()
            self.monitor.human(f"loadvm {SNAPSHOT}")
        else:
            self.kill()
            self.start(SNAPSHOT)
        # The guest's clock went back with it.
        answer = self.ssh(f"date --utc --set=@{time.time():.0f}", timeout_s=60)
        if answer.returncode:
            raise VmTestError(f"{self.name} does not answer after restoring its snapshot: {answer.stderr}")

    def disconnect(self) -> None:
        """Pull the network cable: packets vanish, connections hang."""
        self.monitor.human("set_link nic off")

    def connect(self) -> None:
        """Plug the network cable in again."""
        self.monitor.human("set_link nic on")

    def limit_disks(self, bytes_per_s: int) -> None:
        """Let all disks together give no more than this, as one slow disk would, over reboots too; 0 for no limit."""
        unlimited = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
        for number in range(1 + len(self.read_only_disks)):
            device = f"virtio{number}"
            self.monitor.execute("block_set_io_throttle", device=device, group="one", bps=bytes_per_s, **unlimited)

    def ssh(self, command: str, stdin: str | None = None, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell command line as root; 255 is ssh's own failure. VmTestError after `timeout_s`."""
        words = ["ssh", *self.ssh_options(), "-p", str(self.port), "root@127.0.0.1", command]
        try:
            return subprocess.run(words, input=stdin or "", capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise VmTestError(f"{self.name}: `{command}` did not end in {timeout_s:.0f} s") from error

    def check(self, command: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """The output of a command that must succeed, less the last newline."""
        answer = self.ssh(command, stdin, timeout_s)
        assert answer.returncode == 0, f"{self.name}: `{command}` gave {answer.returncode}: {answer.stderr}"
        return answer.stdout.rstrip("\n")

    def ssh_options(self) -> list[str]:
        """Options for ssh and Ansible alike: our key only, nobody's known hosts, one shared connection per user."""
        options = {
            "IdentityFile": self.image.key,
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
            "BatchMode": "yes",
            "ConnectTimeout": 10,
            "ControlMaster": "auto",
            "ControlPersist": 60,
            "ControlPath": f"{self._sockets.name}/%r",
        }
        return ["-F", "none", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]

    def hang_up(self) -> None:
        """End the shared ssh connections, which do not survive a snapshot or a reboot."""
        for user in ("root", OPERATOR):
            control = Path(self._sockets.name, user)
            if control.exists():
                subprocess.run(
                    ["ssh", "-F", "none", "-o", f"ControlPath={control}", "-O", "exit", "x"], capture_output=True
                )
                control.unlink(missing_ok=True)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
        """Poll until `condition` holds; VmTestError naming `what` after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise VmTestError(f"{self.name}: {what} did not happen in {timeout_s:.0f} s")
            time.sleep(0.2)

    def _answers(self) -> bool:
        """True once sshd itself greets: the forwarded port accepts connections long before."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.settimeout(5)
                return connection.recv(4) == b"SSH-" and self.ssh("true", timeout_s=60).returncode == 0
        except (OSError, VmTestError):
            return False

    def _arguments(self, monitor_fd: int) -> list[str]:
        shape = self.shape
        emulator = EMULATORS[self.image.architecture]
        kernel = f"root=/dev/vda rw console={emulator.console} net.ifnames=0 quiet {shape.kernel_arguments}"
        words = [*emulator.words(USE_KVM and self.image.architecture == "amd64"), "-m", f"{shape.memory_mib}M"]
        words += ["-kernel", f"{self.image.kernel}", "-initrd", f"{self.image.initrd}", "-append", kernel]
        words += ["-serial", f"file:{self.console}"]
        words += ["-chardev", f"socket,id=monitor,fd={monitor_fd}", "-mon", "chardev=monitor,mode=control"]
        words += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        words += ["-device", "virtio-net-pci,netdev=net,id=nic", "-device", "virtio-rng-pci"]
        words += ["-drive", f"file={self.overlay},if=virtio,format=qcow2"]
        for disk in self.read_only_disks:
            words += ["-drive", f"file={disk},if=virtio,format=raw,readonly=on"]
        words += ["-smp", f"{shape.cpus},sockets={shape.cpus}"]
        for node in range(shape.numa_nodes):
            size = f"{shape.memory_mib // shape.numa_nodes}M"
            words += ["-object", f"memory-backend-ram,id=ram{node},size={size}", "-numa", f"node,memdev=ram{node}"]
        for cpu in range(shape.cpus):
            words += ["-numa", f"cpu,node-id={cpu % shape.numa_nodes},socket-id={cpu}"]
        return words


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

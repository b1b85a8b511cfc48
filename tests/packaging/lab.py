"""Test hosts: machines with a real systemd, on a network of their own, reached by SSH.

Owns how a host is laid out, booted, killed and removed, and the bridge between hosts. A host is a machine of
systemd-nspawn whose root is an overlay: its own changes on top of a base that all hosts of a release share. Needs root.
All that there is of a host can be found again from its folder, by another process too (labctl.py). Must not know what
runs on a host, and needs nothing but Python's own library.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.waiting import eventually_true

BOOT_S = 60.0  # a host takes about 3 s; two releases boot at once on a small machine
RUN_S = 180.0  # for a command; the longest is an apt-get install, which downloads

#: Longer, and the names of its network links would be cut.
MACHINE_NAME_LENGTH = 12

#: The labs of the tests of the packages, by Debian's release.
NETWORKS = {"bookworm": 12, "trixie": 13}


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command on this machine."""
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=check)


#: Enter the control groups named before "--", then become the command behind it. Where one can't be entered (cpuset,
#: while it has no processors) the guest makes do.
_ENTER = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'


def mounts() -> list[list[str]]:
    """What is mounted here: device, folder, kind, options."""
    return [line.split() for line in Path("/proc/mounts").read_text().splitlines()]


def control_groups() -> list[Path]:
    """Where this process is in every hierarchy of control groups that is mounted here."""
    within = {
        controllers.removeprefix("name="): path.lstrip("/")
        for _, controllers, path in (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    }
    found = []
    for _, folder, kind, options, *_ in mounts():
        names = [""] if kind == "cgroup2" else [option.removeprefix("name=") for option in options.split(",")]
        inside = next((within[name] for name in names if name in within), None)
        if kind in ("cgroup", "cgroup2") and inside is not None and (Path(folder) / inside).is_dir():
            found.append(Path(folder) / inside)
    return found


def own_control_groups(machine: str) -> list[Path]:
    """What a machine of that name has or left behind, the innermost first."""
    hierarchies = (Path(folder) for _, folder, kind, *_ in mounts() if kind in ("cgroup", "cgroup2"))
    tops = [top for hierarchy in hierarchies for top in hierarchy.rglob(machine)]
    return [Path(path) for top in tops for path, _, _ in os.walk(top, topdown=False)]


def processes(*words: str) -> list[int]:
    """The processes whose command lines have all these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if set(words) <= set(path.read_text(errors="replace").split("\0")):
                found.append(int(path.parent.name))
    return found


def unpacked(tar: Path) -> Path:
    """The folder with what is in the tar file of a root, beside it; unpacked once, for all labs there will be."""
    folder, new = tar.with_suffix(""), tar.with_suffix(".new")
    with (tar.parent / "unpacking").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            command = ["tar", "--extract", "--numeric-owner", f"--file={tar}", f"--directory={new}"]
            # It has the lock as well: were this process killed, it would still be at work.
            subprocess.run(command, check=True, pass_fds=[lock.fileno()])
            new.rename(folder)
    return folder


class Failed(AssertionError):
    """A command on a host did not do what was asked."""


@dataclass(slots=True)
class Host:
    """A machine of the lab."""

    name: str
    machine: str  # its name among all machines here, those of other labs too
    address: str
    folder: Path
    ssh_options: list[str]
    _console: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def upper(self) -> Path:
        """What this host changed on top of its base."""
        return self.folder / "upper"

    @property
    def pids(self) -> list[int]:
        """The processes of systemd-nspawn while the host runs; more than one while it starts."""
        return processes("systemd-nspawn", f"--directory={self.root}")

    def ssh(self, command: str, *, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a line of shell on the host, as root. Failed when it fails, with all that it said, or does not end."""
        try:
            done = subprocess.run(
                ["ssh", *self.ssh_options, f"root@{self.address}", command],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.machine}: no end within {RUN_S:g} s of: {command}") from None
        if check and done.returncode != 0:
            raise Failed(f"{self.machine}: exit code {done.returncode} of: {command}\n{done.stdout}{done.stderr}")
        return done

    def says(self, command: str) -> str:
        """What a line of shell prints on the host."""
        return self.ssh(command).stdout.strip()

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file on the host."""
        quoted = shlex.quote(path)
        self.ssh(f"mkdir -p $(dirname {quoted}) && cat >{quoted} && chmod {mode:o} {quoted}", stdin=text)

    def boot(self, bridge: str) -> None:
        """Start the host and wait until one can log in. What it wrote in an earlier life is there again."""
        self.start(bridge)
        self.wait()

    def start(self, bridge: str) -> None:
        """Start the host. Failed where there is nothing to boot from."""
        if not (self.root / "etc").is_dir():
            raise Failed(
                f"{self.machine} has no root in {self.root}: it was removed, or this machine has booted since;"
                " make the lab anew: molecule create"
            )
        # Its own control groups: in those of another host its systemd would kill and remove that host's.
        groups = [group / self.machine for group in control_groups()]
        for group in groups:
            group.mkdir(exist_ok=True)
        command = ["sh", "-c", _ENTER, "sh", *map(str, groups), "--"]
        command += ["systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.machine}", "--boot"]
        command += ["--register=no", "--keep-unit", f"--network-bridge={bridge}", "--resolv-conf=off", "--console=pipe"]
        with (self.folder / "console.log").open("ab") as log:
            self._console = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until one can log in."""
        eventually_true(self._answers, within_s=BOOT_S, what=f"SSH of {self.machine}, see {self.folder}/console.log")
        # Before D-Bus is up, is-system-running fails instead of waiting; for a service that never is ready, such as a
        # node that the others no longer know, it would wait for ever.
        state = f"timeout {BOOT_S:g} systemctl is-system-running --wait 2>/dev/null; true"
        try:
            eventually_true(
                lambda: self.says(state) in ("running", "degraded"),
                within_s=BOOT_S,
                what=f"{self.machine} to have booted",
            )
        except AssertionError as exc:
            jobs = self.says("systemctl list-jobs --no-legend --no-pager")
            raise Failed(f"{exc}; its systemd waits for:\n{jobs}") from exc

    def _answers(self) -> bool:
        assert self._console is not None
        assert self._console.poll() is None, f"{self.machine} did not boot: {self.folder}/console.log"
        with contextlib.suppress(OSError), socket.create_connection((self.address, 22), timeout=1) as connection:
            return connection.recv(16).startswith(b"SSH-")
        return False

    def shut_down(self) -> None:
        """End the host in order, as its own systemd does. nspawn does not boot it again by itself: start it."""
        self.ssh("systemctl poweroff", check=False)  # the connection may end before the answer
        eventually_true(lambda: not self.pids, within_s=BOOT_S, what=f"{self.machine} to shut down")
        self.die()

    def die(self) -> None:
        """End the host as if its plug were pulled; nothing where it does not run. Its PID 1 is killed, not nspawn: else
        the guest would live on."""
        run("ssh", *self.ssh_options, "-O", "exit", f"root@{self.address}", check=False)
        eventually_true(self._is_dead, within_s=BOOT_S, what=f"end of {self.machine}")
        if self._console is not None:
            self._console.wait(timeout=BOOT_S)
            self._console = None
        for path in own_control_groups(self.machine):
            with contextlib.suppress(OSError):  # the kernel has not yet seen all of its processes off
                path.rmdir()
        run(
            "ip", "link", "delete", f"vb-{self.machine}", check=False
        )  # it may outlive its host, and block the next boot

    def _is_dead(self) -> bool:
        """Whether it is; else its PID 1 is killed, if it has come to have one."""
        pids = self.pids
        for pid in pids:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
        return not pids


@dataclass(slots=True)
class Lab:
    """Hosts, and the bridge between them."""

    number: int  # of the lab among all on this machine: the third part of its hosts' addresses
    folder: Path
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def bridge(self) -> str:
        return f"rl{self.number}"

    @property
    def subnet(self) -> str:
        return f"198.18.{self.number}"  # from RFC 2544's block for test networks

    def add(self, name: str, address: str = "") -> Host:
        """A new host, that others know by its name; nothing of it is made."""
        machine = f"{self.bridge}-{name}"
        if len(machine) > MACHINE_NAME_LENGTH:
            raise ValueError(f"{name}: a host's name may have {MACHINE_NAME_LENGTH - len(self.bridge) - 1} characters")
        address = address or f"{self.subnet}.{len(self.hosts) + 11}"
        self.hosts[name] = Host(name, machine, address, self.folder / name, ssh_options(self.folder / "id"))
        return self.hosts[name]

    def lay_out(self, host: Host, base: Path, *, on: Host | None = None) -> Host:
        """Make what the host boots from; ``on`` another host that is dead: with all that it has, but as itself."""
        for part in ("upper", "work", "root"):
            (host.folder / part).mkdir(parents=True)
        lower = f"{on.upper}:{base}" if on else str(base)
        # volatile: what a host syncs need not reach the disk, since the kernel outlives every host.
        options = f"volatile,lowerdir={lower},upperdir={host.upper},workdir={host.folder / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", options, str(host.root))
        self._make_its_own(host)
        return host

    def _make_its_own(self, host: Host) -> None:
        etc = host.root / "etc"
        for key in etc.glob("ssh/ssh_host_*"):
            key.unlink()
        (etc / "machine-id").write_text("")
        (etc / "hostname").write_text(f"{host.name}\n")
        names = "".join(f"{each.address} {each.name}\n" for each in self.hosts.values())
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (etc / "resolv.conf").write_text(Path("/etc/resolv.conf").read_text())
        network = f"[Match]\nName=host0\n[Network]\nAddress={host.address}/24\nGateway={self.subnet}.1\n"
        (etc / "systemd/network").mkdir(parents=True, exist_ok=True)
        (etc / "systemd/network/10-host0.network").write_text(network + "LinkLocalAddressing=no\n")
        wanted = etc / "systemd/system/multi-user.target.wants/systemd-networkd.service"
        if not wanted.is_symlink():
            wanted.symlink_to("/lib/systemd/system/systemd-networkd.service")
        shells = host.root / "root/.ssh"
        shells.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(self.folder / "id.pub", shells / "authorized_keys")
        (shells / "authorized_keys").chmod(0o600)

    def make_key(self) -> None:
        """The key that opens every host."""
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "id"))

    @property
    def _net(self) -> str:
        return f"{self.subnet}.0/24"

    @property
    def _nat(self) -> Sequence[str]:
        return ("POSTROUTING", "-s", self._net, "!", "-o", self.bridge, "-j", "MASQUERADE")

    def connect(self) -> None:
        """Make the bridge, and a way out for apt. Without the bridge, nothing for the hosts leaves this machine."""
        self.disconnect()  # of a run that was killed
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "address", "replace", f"{self.subnet}.1/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        run("ip", "route", "replace", "unreachable", self._net, "metric", "9999")
        # Stays: another lab may be at work, and this one's end is not the moment to ask.
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        run("iptables", "--wait", "-t", "nat", "-A", *self._nat)

    def disconnect(self) -> None:
        """Remove what is there of that."""
        while run("iptables", "--wait", "-t", "nat", "-D", *self._nat, check=False).returncode == 0:
            pass
        run("ip", "link", "delete", self.bridge, check=False)
        run("ip", "route", "delete", "unreachable", self._net, "metric", "9999", check=False)

    def remove(self) -> None:
        """End all hosts, and remove them and the lab; what is missing of it is no fault."""
        for host in self.hosts.values():
            host.die()
        for _, mounted, *_ in reversed(mounts()):
            if Path(mounted).is_relative_to(self.folder):
                run("umount", mounted)
        self.disconnect()
        if self.folder.exists():
            shutil.rmtree(self.folder)


def ssh_options(key: Path) -> list[str]:
    """One connection to a host serves all that is run there."""
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPath": f"{key.parent}/ssh-%h",
        "ControlPersist": "60",
    }
    return ["-i", str(key), *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]


@dataclass(slots=True)
class ReleaseLab(Lab):
    """A lab whose hosts all have one release."""

    tar: Path = Path()

    def boot(self, name: str, *, on: Host | None = None) -> Host:
        """Lay a host out and start it."""
        host = self.lay_out(self.add(name), unpacked(self.tar), on=on)
        host.boot(self.bridge)
        return host


@contextmanager
def running_lab(release: str, folder: Path, base: Path) -> Iterator[ReleaseLab]:
    """A lab whose hosts boot from the tar file ``base``; all is gone at the end."""
    assert os.geteuid() == 0, "test hosts are machines of systemd-nspawn, which only root may start"
    lab = ReleaseLab(NETWORKS[release], folder, tar=base)
    lab.make_key()
    try:
        lab.connect()
        yield lab
    finally:
        lab.remove()


def properties(host: Host, unit: str) -> Mapping[str, str]:
    """What systemd knows of a unit."""
    lines = host.says(f"systemctl show {unit}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)

"""Test hosts: machines with a real systemd, on a network of their own, reached by SSH.

Owns how a host is laid out, booted, killed and removed, and the bridge between hosts. A host is a machine of
systemd-nspawn whose root is an overlay: its own changes on top of a base that all hosts of a release share. Needs root.
Must not know what runs on a host.
"""

from __future__ import annotations

import contextlib
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

#: Debian's releases: the third part of the hosts' addresses. From RFC 2544's block for test networks.
NETWORKS = {"bookworm": 12, "trixie": 13}


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command on this machine."""
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=check)


#: Enter the control groups named before "--", then become the command behind it. Where one can't be entered (cpuset,
#: while it has no processors) the guest makes do.
_ENTER = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'


def control_groups() -> list[Path]:
    """Where this process is in every hierarchy of control groups that is mounted here."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    within = {
        controllers.removeprefix("name="): path.lstrip("/")
        for _, controllers, path in (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    }
    found = []
    for _, folder, kind, options, *_ in mounts:
        names = [""] if kind == "cgroup2" else [option.removeprefix("name=") for option in options.split(",")]
        inside = next((within[name] for name in names if name in within), None)
        if kind in ("cgroup", "cgroup2") and inside is not None and (Path(folder) / inside).is_dir():
            found.append(Path(folder) / inside)
    return found


class Failed(AssertionError):
    """A command on a host did not do what was asked."""


@dataclass(slots=True)
class Host:
    """A machine of the lab."""

    name: str
    address: str
    folder: Path
    ssh_options: list[str]
    pid: int = 0  # of systemd-nspawn while it runs
    _console: subprocess.Popen[bytes] | None = None
    _groups: list[Path] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def upper(self) -> Path:
        """What this host changed on top of its base."""
        return self.folder / "upper"

    def ssh(self, command: str, *, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a line of shell on the host, as root. Failed when it fails, with all that it said."""
        done = subprocess.run(
            ["ssh", *self.ssh_options, f"root@{self.address}", command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise Failed(f"{self.name}: exit code {done.returncode} of: {command}\n{done.stdout}{done.stderr}")
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
        log = (self.folder / "console.log").open("ab")
        # Its own control groups: in those of another host its systemd would kill and remove that host's.
        self._groups = [group / self.name for group in control_groups()]
        for group in self._groups:
            group.mkdir(exist_ok=True)
        command = ["sh", "-c", _ENTER, "sh", *map(str, self._groups), "--"]
        command += ["systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.name}", "--boot"]
        command += ["--register=no", "--keep-unit", f"--network-bridge={bridge}", "--resolv-conf=off", "--console=pipe"]
        self._console = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.pid = self._console.pid
        eventually_true(self._answers, within_s=BOOT_S, what=f"SSH of {self.name}, see {log.name}")
        state = "systemctl is-system-running --wait 2>/dev/null; true"
        # Before D-Bus is up, is-system-running fails instead of waiting.
        eventually_true(
            lambda: self.says(state) in ("running", "degraded"), within_s=BOOT_S, what=f"{self.name} to have booted"
        )

    def _answers(self) -> bool:
        assert self._console is not None
        assert self._console.poll() is None, f"{self.name} did not boot: {self.folder}/console.log"
        with contextlib.suppress(OSError), socket.create_connection((self.address, 22), timeout=1) as connection:
            return connection.recv(16).startswith(b"SSH-")
        return False

    def die(self) -> None:
        """End the host as if its plug were pulled. Its PID 1 is killed, not nspawn: else the guest would live on."""
        if self._console is None:
            return
        run("ssh", *self.ssh_options, "-O", "exit", f"root@{self.address}", check=False)
        for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._console.wait(timeout=BOOT_S)
        self._console = None
        for group in self._groups:
            for path, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # the kernel has not yet seen all of its processes off
                    Path(path).rmdir()
        run("ip", "link", "delete", f"vb-{self.name}", check=False)  # it may outlive its host, and block the next boot


@dataclass(slots=True)
class Lab:
    """The hosts of one release, and the bridge between them."""

    release: str
    folder: Path
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def bridge(self) -> str:
        return f"rl{NETWORKS[self.release]}"

    @property
    def subnet(self) -> str:
        return f"198.18.{NETWORKS[self.release]}"

    def lay_out(self, name: str, *, on: Host | None = None) -> Host:
        """A new host on the release's base; ``on`` another host that is dead: with all that it has, but as itself."""
        folder = self.folder / name
        host = Host(
            f"{self.bridge}-{name}", f"{self.subnet}.{len(self.hosts) + 11}", folder, ssh_options(self.folder / "id")
        )
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        lower = f"{on.upper}:{self.folder / 'base'}" if on else str(self.folder / "base")
        options = f"lowerdir={lower},upperdir={host.upper},workdir={folder / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", options, str(host.root))
        self.hosts[name] = host
        self._make_its_own(host)
        return host

    def boot(self, name: str, *, on: Host | None = None) -> Host:
        """Lay a host out and start it."""
        host = self.lay_out(name, on=on)
        host.boot(self.bridge)
        return host

    def _make_its_own(self, host: Host) -> None:
        etc = host.root / "etc"
        for key in etc.glob("ssh/ssh_host_*"):
            key.unlink()
        (etc / "machine-id").write_text("")
        (etc / "hostname").write_text(f"{host.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{host.address} {host.name}\n")
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


@contextmanager
def running_lab(release: str, folder: Path, base: Path) -> Iterator[Lab]:
    """A lab whose hosts boot from the tar file ``base``; all is gone at the end."""
    assert os.geteuid() == 0, "test hosts are machines of systemd-nspawn, which only root may start"
    lab = Lab(release, folder)
    (folder / "base").mkdir()
    run("tar", "--extract", "--numeric-owner", f"--file={base}", f"--directory={folder / 'base'}")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id"))
    with _network(lab):
        try:
            yield lab
        finally:
            for host in lab.hosts.values():
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    host.die()
                run("umount", str(host.root), check=False)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _network(lab: Lab) -> Iterator[None]:
    """The bridge, and a way out for apt. While there is no bridge, nothing for the hosts leaves this machine either."""
    net = f"{lab.subnet}.0/24"
    nat: Sequence[str] = ("POSTROUTING", "-s", net, "!", "-o", lab.bridge, "-j", "MASQUERADE")
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    run("ip", "link", "delete", lab.bridge, check=False)  # of a run that was killed
    run("ip", "link", "add", lab.bridge, "type", "bridge")
    run("ip", "address", "replace", f"{lab.subnet}.1/24", "dev", lab.bridge)
    run("ip", "link", "set", lab.bridge, "up")
    run("ip", "route", "replace", "unreachable", net, "metric", "9999")
    forwarding.write_text("1")  # stays: another lab may be at work, and this one's end is not the moment to ask
    run("iptables", "--wait", "-t", "nat", "-A", *nat)
    try:
        yield
    finally:
        run("iptables", "--wait", "-t", "nat", "-D", *nat, check=False)
        run("ip", "link", "delete", lab.bridge, check=False)
        run("ip", "route", "delete", "unreachable", net, "metric", "9999", check=False)


def properties(host: Host, unit: str) -> Mapping[str, str]:
    """What systemd knows of a unit."""
    lines = host.says(f"systemctl show {unit}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)

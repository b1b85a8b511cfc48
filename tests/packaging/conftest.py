"""The hosts that the tests of the packages share: `make test-package` makes what they are made of.

For each release a lab; in it `fresh`, on which the packages were just installed; `single`, one host with a cluster of
three as instances of the template unit; and `three`, a cluster of three hosts with TLS, and a client's. The last two
begin as copies of the first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.cluster import Instances, ThreeHosts
from tests.packaging.lab import NETWORKS, Host, ReleaseLab, running_lab

BUILD = Path(__file__).parents[2] / "build"
NEXT = "+next"  # what the second build, which upgrades the first, has behind its version


def debs(release: str, suffix: str = "") -> Path:
    """The folder of what packaging/build-deb.sh built."""
    folder = BUILD / "deb" / f"{release}{suffix}"
    assert list(folder.glob("*.deb")), f"{folder} has no packages: run make test-package"
    return folder


def put_debs(host: Host, folder: Path, to: str) -> None:
    """Lay the packages of ``folder`` into ``to`` on the host."""
    (host.root / to.lstrip("/")).mkdir(parents=True)
    for deb in folder.glob("*.deb"):
        shutil.copy(deb, host.root / to.lstrip("/"))


@pytest.fixture(scope="session", params=sorted(NETWORKS))
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def lab(release: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleaseLab]:
    bases = list((BUILD / "roots").glob(f"host-{release}-*.tar"))
    assert len(bases) == 1, "no image to boot from: run make test-package"
    with running_lab(release, tmp_path_factory.mktemp(release), bases[0]) as made:
        yield made


@pytest.fixture(scope="session")
def fresh(lab: ReleaseLab, release: str) -> Host:
    """A host that has the packages, installed from Debian's mirror and ours, and nothing done to them."""
    host = lab.boot("fresh")
    put_debs(host, debs(release), "/srv/debs")
    put_debs(host, debs(release, NEXT), "/srv/next")
    host.ssh("apt-get update")
    said = host.says("DEBIAN_FRONTEND=noninteractive apt-get install --yes /srv/debs/*.deb")
    (host.folder / "install.log").write_text(said)
    return host


@pytest.fixture(scope="session")
def used(fresh: Host) -> Host:
    """`fresh` when its tests are over: dead, to be copied. Modules that want it come later in the alphabet."""
    fresh.ssh("systemctl reset-failed; sync")
    fresh.die()
    return fresh


@pytest.fixture(scope="session")
def single(lab: ReleaseLab, used: Host) -> Instances:
    """A cluster of three on one host; all run."""
    made = Instances(lab.boot("single", on=used))
    made.configure()
    made.start()
    return made


@pytest.fixture(scope="session")
def three(lab: ReleaseLab, used: Host) -> ThreeHosts:
    """A cluster of three hosts with TLS; all run. A fourth host calls it."""
    hosts = [lab.boot(name, on=used) for name in ("a", "b", "c")]
    made = ThreeHosts(lab.bridge, hosts, lab.boot("desk", on=used))
    made.configure()
    made.start()
    return made

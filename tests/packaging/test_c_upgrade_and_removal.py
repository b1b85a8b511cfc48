"""The packages change under nodes that run: upgrade, reinstall, remove, purge. Each test goes on where one ended."""

from __future__ import annotations

import pytest

from tests.packaging.cluster import MASTER, NAMES, WORKERS, Instances, listed, post
from tests.packaging.conftest import NEXT
from tests.packaging.lab import properties

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

APT = "DEBIAN_FRONTEND=noninteractive apt-get --yes"
MARK = "# changed by the operator\n"


def pids(single: Instances) -> dict[str, int]:
    return {name: int(properties(single.host, single.unit(name))["MainPID"]) for name in NAMES}


def everything(single: Instances, name: str) -> list[str]:
    return listed(single.host, name)


def test_an_upgrade_restarts_the_nodes_that_run_and_no_other(single: Instances) -> None:
    single.host.ssh(f"systemctl stop {single.unit(WORKERS[1])} && printf %s '{MARK}' >>/etc/replicad.yaml")
    post(single.host, "before the upgrade", w=2)
    was, before = pids(single), everything(single, MASTER)
    unit_changed = f"/run/systemd/system/{single.unit(MASTER)}.d/changed.conf"
    single.host.write(unit_changed, "[Service]\nEnvironment=BY_THE_NEW_UNIT=1\n")  # and no daemon-reload of our own

    single.host.ssh(f"{APT} install /srv/next/*.deb")

    assert single.host.says("dpkg-query --show --showformat='${Version}' replicad").endswith(NEXT)
    now = pids(single)
    assert [name for name in NAMES if now[name] != was[name]] == [MASTER, WORKERS[0]]
    assert now[WORKERS[1]] == 0
    assert "BY_THE_NEW_UNIT=1" in single.host.says(f"tr '\\0' '\\n' </proc/{now[MASTER]}/environ").splitlines()
    assert properties(single.host, "replicad")["ActiveState"] == "inactive"
    post(single.host, "after the upgrade", w=2)
    assert everything(single, MASTER) == [*before, "after the upgrade"]
    assert MARK in single.host.ssh("cat /etc/replicad.yaml").stdout


def test_a_reinstall_restarts_them_too_and_keeps_all_files(single: Instances) -> None:
    was, before = pids(single), everything(single, MASTER)
    single.host.ssh(f"{APT} install --reinstall /srv/next/*.deb")
    now = pids(single)
    assert now[MASTER] not in (0, was[MASTER])
    assert everything(single, MASTER) == before
    assert MARK in single.host.ssh("cat /etc/replicad.yaml").stdout


def test_an_upgrade_of_a_master_that_waits_for_a_majority_does_not_wait_with_it(single: Instances) -> None:
    workers = " ".join(map(single.unit, WORKERS))
    single.host.ssh(f"systemctl stop {workers}")
    said = single.host.says(f"{APT} install --reinstall /srv/next/*.deb")
    assert "not ready yet" in said
    assert properties(single.host, single.unit(MASTER))["ActiveState"] == "activating"
    single.host.ssh(f"systemctl start {workers} {single.unit(MASTER)}")
    post(single.host, "after an upgrade without a majority", w=3)


def test_a_removal_stops_the_nodes_and_keeps_data_keys_and_configs(single: Instances) -> None:
    before = everything(single, MASTER)
    single.host.ssh(f"{APT} remove replicad")
    assert single.host.says("pgrep --uid replicad; true") == ""
    single.host.ssh(
        f"test -s /var/lib/replicad@{MASTER}/log.db -a -s /etc/replicad/{MASTER}.yaml -a -s /etc/replicad.yaml"
    )

    single.host.ssh(f"{APT} install /srv/next/*.deb")
    assert set(pids(single).values()) == {0}
    single.start()
    assert everything(single, MASTER) == before


def test_a_purge_removes_the_config_and_says_that_it_keeps_what_can_not_be_made_again(single: Instances) -> None:
    said = single.host.says(f"{APT} purge replicad")
    kept = [f"/var/lib/replicad@{name}" for name in NAMES]
    assert all(folder in said for folder in (*kept, "/etc/replicad"))
    assert "kept" in said
    single.host.ssh(" && ".join(f"test -s {folder}/log.db" for folder in kept))
    single.host.ssh("! test -e /etc/replicad.yaml && ! test -e /lib/systemd/system/replicad.service")
    assert single.host.says("systemctl list-units --plain --no-legend --state=running 'replicad*'") == ""


def test_a_purge_of_a_node_that_never_was_leaves_nothing_behind(single: Instances) -> None:
    single.host.ssh("rm -r /etc/replicad /var/lib/replicad@*")
    single.host.ssh(f"{APT} install /srv/next/*.deb")
    assert "kept" not in single.host.says(f"{APT} purge replicad")
    assert (
        single.host.says("ls -d /etc/replicad* /var/lib/replicad* /lib/systemd/system/replicad* 2>/dev/null; true")
        == ""
    )

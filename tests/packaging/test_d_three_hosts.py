"""A cluster of three hosts with TLS, each with the unit of its own node, called from a fourth host."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from replicad.errors import ExitCode
from tests.packaging.cluster import HOST_ADDRESSES, MASTER, NAMES, WITH_CREDENTIAL, WORKERS, ThreeHosts, told
from tests.packaging.lab import Failed, Host, properties
from tests.support.waiting import eventually_true

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

BACK_S = 60.0  # the longest wait before a node is dialled again is 5 s; then it catches up
RELOADED_S = 30.0  # it takes a tenth of a second, but for a machine that boots other hosts meanwhile

#: Posts that go on until they are told that it is enough: each a new connection, and many on one connection.
ONE_BY_ONE = """n=0; until [ -e /run/enough ]; do
    n=$((n+1)); replicad-cli post -w all "one $n" || exit
done"""
A_STREAM = """n=0; until [ -e /run/enough ]; do
    n=$((n+1)); echo "line $n"; sleep 0.05
done | replicad-cli post -w all --lines"""


def posted(three: ThreeHosts, kind: str) -> list[str]:
    return [text for text in three.client.listed(MASTER) if text.startswith(f"{kind} ")]


@contextmanager
def posts_going_on(three: ThreeHosts) -> Iterator[Callable[[], None]]:
    """Posts at w=all, none of which may fail. Gives what waits until some more are answered."""

    def go_on() -> None:
        for kind in ("one", "line"):
            enough = len(posted(three, kind)) + 2
            eventually_true(
                lambda kind=kind, enough=enough: len(posted(three, kind)) >= enough,  # type: ignore[misc]
                within_s=RELOADED_S,
                what=f"posts of {kind} go on",
            )

    three.desk.ssh("rm -f /run/enough")
    address = f"export REPLICAD_ADDRESS={','.join(HOST_ADDRESSES.values())};"
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(three.client.run, f"{address} {each}") for each in (ONE_BY_ONE, A_STREAM)]
        try:
            go_on()
            yield go_on
            go_on()
        finally:
            three.desk.ssh("touch /run/enough")
    for each in running:
        each.result()  # Failed, with what it said, if one post failed
    for kind in ("one", "line"):
        texts = posted(three, kind)
        assert texts == [f"{kind} {number}" for number in range(1, len(texts) + 1)]


def shows_its_certificate(three: ThreeHosts, name: str) -> bool:
    """Whether the node shows what the CA issued last."""
    shown = ssl.get_server_certificate((three.by_name[name].address, 50052))
    return shown.split() == three.desk.says(f"cat pki/{name}.crt").split()


def journal(host: Host, event: str) -> list[str]:
    """What `journalctl -u replicad EVENT=...` shows, as README.Debian tells it of one."""
    command = told("journalctl -u replicad EVENT=certificate_taken").replace("certificate_taken", event)
    return [line for line in host.says(f"{command}; true").splitlines() if not line.startswith("-- ")]


def reload(host: Host) -> None:
    host.ssh(told("systemctl reload replicad"))


def code(three: ThreeHosts, token: str, name: str) -> int:
    """How a call of the node with that token ends."""
    command = f"AUTH_TOKEN={token} replicad-cli list --limit 1 --address {HOST_ADDRESSES[name]}"
    return three.client.run(command, check=False).returncode


def test_a_client_on_a_fourth_host_posts_to_all_three_and_reads_from_each(three: ThreeHosts) -> None:
    three.client.post("on three hosts", w="all")
    for name in NAMES:
        [record] = three.client.records(name, at_least=2)
        assert (record["text"], record["author"]) == ("on three hosts", "shop")


def test_without_a_token_or_a_certificate_nobody_is_let_in(three: ThreeHosts) -> None:
    for name in NAMES:
        assert code(three, "''", name) == ExitCode.DENIED
    status = "replicad-cli status --timeout 2s --address"
    mutual = f"{status} {three.nodes[MASTER]['mutual_address']}"
    plain = f"REPLICAD_CA= AUTH_TOKEN= {status} {HOST_ADDRESSES[MASTER]}"
    for command in (mutual, plain):
        assert three.client.run(command, check=False).returncode == ExitCode.TRY_AGAIN
    assert journal(three.by_name[MASTER], "unauthorized") != []


def test_secrets_belong_to_who_needs_them_and_to_nobody_else(three: ThreeHosts) -> None:
    for name, host in three.by_name.items():
        assert host.says("stat -c '%U:%G %a' /etc/replicad/node.key /etc/replicad/tokens.yaml").splitlines() == [
            "root:root 600",
            "root:replicad 640",
        ]
        credentials = "/run/credentials/replicad.service"
        assert host.says(f"cat {credentials}/node.key") == host.says("cat /etc/replicad/node.key")
        if name == WITH_CREDENTIAL:
            assert host.says("stat -c '%U:%G %a' /etc/credstore/replicad.tls.key") == "root:root 600"
            assert host.says(f"cat {credentials}/tls.key") == host.says("cat /etc/credstore/replicad.tls.key")
        else:
            assert host.says("stat -c '%U %a' /etc/replicad/tls.key") == "replicad 600"


def test_certificates_are_renewed_by_a_reload_while_posts_go_on(three: ThreeHosts) -> None:
    others = " ".join(name for name in NAMES if name != WITH_CREDENTIAL)
    with posts_going_on(three) as go_on:
        three.desk.ssh(f"replicad-cli pki renew {others}; replicad-cli pki renew --keep-key {WITH_CREDENTIAL}")
        for name, host in three.by_name.items():
            assert not shows_its_certificate(three, name)
            three.hand_out_certificate(name)
            reload(host)
            eventually_true(
                lambda name=name: shows_its_certificate(three, name),  # type: ignore[misc]
                within_s=RELOADED_S,
                what=f"the new certificate of {name}",
            )
            [taken] = journal(host, "certificate_taken")
            assert "valid until " in taken
            go_on()
    for host in three.hosts:
        assert properties(host, "replicad")["NRestarts"] == "0"
        assert journal(host, "certificate_refused") == []


def test_a_new_tls_key_that_is_a_credential_is_taken_by_a_restart_and_refused_before(three: ThreeHosts) -> None:
    name = WITH_CREDENTIAL
    host = three.by_name[name]
    three.desk.ssh(f"replicad-cli pki renew {name}")
    three.hand_out_certificate(name)
    reload(host)
    eventually_true(lambda: journal(host, "certificate_refused"), within_s=RELOADED_S, what="why it is not taken")
    assert "does not belong to the certificate" in journal(host, "certificate_refused")[-1]
    three.client.post("with the certificate from before", w="all")

    host.ssh("systemctl restart replicad")
    assert shows_its_certificate(three, name)
    three.client.post("with a new TLS key", w="all")


def test_a_token_comes_and_goes_with_a_reload_of_the_tokens_file(three: ThreeHosts) -> None:
    guest = three.make_token("guest", "--role reader")
    for name, host in three.by_name.items():
        assert code(three, guest, name) == ExitCode.DENIED
        three.hand_out_tokens(name)
        reload(host)
        eventually_true(
            lambda name=name: code(three, guest, name) == 0,  # type: ignore[misc]
            within_s=RELOADED_S,
            what=f"{name} lets the guest in",
        )
    for name, host in three.by_name.items():
        host.ssh("replicad-cli tokens revoke guest --all --file /etc/replicad/tokens.yaml")
        assert host.says("stat -c '%U:%G %a' /etc/replicad/tokens.yaml") == "root:replicad 640"
        reload(host)
        eventually_true(
            lambda name=name: code(three, guest, name) == ExitCode.DENIED,  # type: ignore[misc]
            within_s=RELOADED_S,
            what=f"{name} lets the guest in no more",
        )
    three.client.post("the guest has left", w="all")


def test_a_tokens_file_that_the_daemon_may_not_read_is_refused_until_it_has_its_group(three: ThreeHosts) -> None:
    name = WORKERS[1]
    host = three.by_name[name]
    create = told("replicad-cli tokens create shop --role writer --role reader --file tokens.yaml")
    host.ssh("rm /etc/replicad/tokens.yaml")
    token = host.says(create.replace("tokens.yaml", "/etc/replicad/tokens.yaml"))
    reload(host)
    eventually_true(lambda: journal(host, "reload_refused"), within_s=RELOADED_S, what="why it is not taken")
    assert "/etc/replicad/tokens.yaml: cannot be read (Permission denied)" in journal(host, "reload_refused")[-1]
    assert "reload refused" in host.says("systemctl status replicad")
    assert code(three, token, name) == ExitCode.DENIED
    three.client.post("by the tokens from before", w="all")

    host.ssh(told("chgrp replicad /etc/replicad/tokens.yaml"))
    reload(host)
    eventually_true(lambda: code(three, token, name) == 0, within_s=RELOADED_S, what="the new token to be taken")
    three.hand_out_tokens(name)
    reload(host)
    eventually_true(
        lambda: code(three, token, name) == ExitCode.DENIED, within_s=RELOADED_S, what="the tokens from before"
    )


def test_a_nodes_signing_key_is_replaced_in_the_steps_that_are_told(three: ThreeHosts) -> None:
    name = WORKERS[1]
    host, before = three.by_name[name], three.nodes[name]["public_key"]
    token = three.client.run("echo $AUTH_TOKEN").stdout.strip()

    def run(command: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(host.says(f"AUTH_TOKEN={token} {command} --output json"))
        return said

    def step(which: str) -> dict[str, Any]:
        """What a step tells. It is refused while the nodes have not come as far as it asks; they are on their way."""
        command = told(f"replicad-cli keys rotate {which} --key /etc/replicad/node.key")

        def taken() -> dict[str, Any] | None:
            try:
                return run(command)
            except Failed as exc:
                refused.append(str(exc))
                return None

        refused: list[str] = []
        try:
            return eventually_true(taken, within_s=RELOADED_S, what=f"keys rotate {which}")
        except AssertionError as exc:
            raise AssertionError(refused[-1]) from exc

    def introduce(said: dict[str, Any]) -> None:
        former = [{key: value for key, value in each.items() if value is not None} for each in said["former_keys"]]
        three.nodes[name] |= {"public_key": said["public_key"], "former_keys": former}
        for each, its_host in three.by_name.items():
            three.write_config(each)
            reload(its_host)

    introduce(step("prepare"))
    step("activate")
    host.ssh("systemctl restart replicad")
    three.client.post("acknowledged with a new key", w="all")
    retired = step("retire")
    assert [former["public_key"] for former in retired["former_keys"]] == [before]
    introduce(retired)
    eventually_true(
        lambda: run("replicad-cli keys rotate status")["next"].startswith("nothing"),
        within_s=RELOADED_S,
        what="the end of the rotation",
    )
    assert host.says("ls /etc/replicad/node.key*") == "/etc/replicad/node.key"
    three.client.post("the old key is gone", w="all")


def test_a_host_that_died_comes_back_and_catches_up_by_itself(three: ThreeHosts) -> None:
    name = WORKERS[0]
    host = three.by_name[name]
    before = three.client.listed(name)
    host.die()
    three.client.post("while a host is down", w=2)

    host.boot(three.bridge)
    eventually_true(
        lambda: properties(host, "replicad")["ActiveState"] == "active",
        within_s=BACK_S,
        what=f"start of {name} at boot",
    )
    three.client.post("when it is back", w=3)
    assert three.client.listed(name) == [*before, "while a host is down", "when it is back"]


def test_the_masters_host_dies_and_comes_back_with_all_that_was_answered(three: ThreeHosts) -> None:
    host = three.by_name[MASTER]
    before = three.client.listed(MASTER)
    host.die()
    assert three.client.listed(WORKERS[1]) == before
    host.boot(three.bridge)
    eventually_true(
        lambda: properties(host, "replicad")["ActiveState"] == "active", within_s=BACK_S, what="start of the master"
    )
    three.client.post("a new epoch", w=3)
    assert three.client.listed(MASTER) == [*before, "a new epoch"]

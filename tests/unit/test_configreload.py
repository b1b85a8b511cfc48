"""What a reload takes of a changed config and what it leaves to a restart; never a mixture that breaks a rule."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from replicad.config import Config, parse
from replicad.configkeys import Section, Sections, walk_keys
from replicad.configreload import plan
from replicad.errors import ConfigError
from tests.support.builders import vkey
from tests.unit.test_config import former_node, later, sample, with_node, with_tls


def config(**changes: Any) -> Config:
    return parse(sample(**changes), env={})


#: for each key a value that it does not have in the sample, by path; of the keys of nodes, one config each
OTHER_VALUES: dict[str, Any] = {
    "cluster": "other",
    "role": "worker",
    "listen": "127.0.0.1:6000",
    "data_dir": "/srv/replicad",
    "key": "/srv/node.key",
    "min_nodes": "majority",
    "reflection": True,
    "tokens_file": "/srv/tokens.yaml",
    "write_concern.default": "all",
    "write_concern.timeout": "7s",
    "limits.payload": "2MiB",
    "limits.batch": "2MiB",
    "limits.batch_records": 100,
    "limits.frame": "2MiB",
    "limits.window": "16MiB",
    "limits.queue": "128MiB",
    "limits.waiting_frames": 5,
    "limits.stream_frames": 5,
    "limits.streams": 5,
    "limits.connections": 5,
    "limits.read": "2MiB",
    "limits.disk_reserve": "65MiB",
    "limits.scrub_rate": "2MiB",
    "limits.catch_up_rate": "2MiB",
    "limits.sockets": 5,
    "limits.principal_calls": 5,
    "limits.open_calls": 5,
    "limits.ping_strikes": 3,
    "limits.metadata": "32KiB",
    "limits.auth_waiting": 7,
    "limits.principal_rate": 5,
    "limits.principal_bytes": 5,
    "limits.total_rate": 5,
    "limits.total_bytes": 5,
    "limits.rate_burst": "5s",
    "limits.auth_failures": 5,
    "timeouts.heartbeat": "600ms",
    "timeouts.suspect": "3s",
    "timeouts.unhealthy": "11s",
    "timeouts.reconnect_min": "200ms",
    "timeouts.reconnect_max": "6s",
    "timeouts.read_wait": "31s",
    "timeouts.scrub_interval": "25h",
    "timeouts.stop": "7s",
    "timeouts.request": "7s",
    "timeouts.stalled": "7s",
    "timeouts.idle_stream": "7s",
    "timeouts.idle_connection": "7s",
    "timeouts.handshake": "7s",
    "timeouts.keepalive": "7s",
    "timeouts.keepalive_answer": "7s",
    "timeouts.ping_interval": "7s",
    "timeouts.auth_delay": "7s",
    "log.level": "debug",
    "log.format": "json",
}


def with_value(key: str, value: Any) -> Config:
    section, _, name = key.rpartition(".")
    return config(**({section: {name: value}} if section else {name: value}))


def values() -> dict[str, Any]:
    """Every key that stands by itself, with its declaration."""
    return {
        ".".join(map(str, path)): key
        for path, key in walk_keys(Config)
        if not isinstance(key.kind, Section | Sections) and path[0] not in ("nodes", "former_nodes", "node", "tls")
    }


def test_there_is_another_value_for_every_key() -> None:
    assert OTHER_VALUES.keys() == values().keys()


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_a_key_is_taken_or_told_as_it_is_declared(key: str) -> None:
    running, wanted = config(), with_value(key, OTHER_VALUES[key])
    assert wanted != running
    made = plan(running, wanted)
    if values()[key].kind.live:
        assert (made.config, [change.key for change in made.taken], made.need_restart) == (wanted, [key], ())
    else:
        assert (made.config, made.taken, [change.key for change in made.need_restart]) == (running, (), [key])


def test_a_change_tells_both_values_as_the_file_would_have_them() -> None:
    (change,) = plan(config(), config(timeouts={"stop": "1500ms"})).taken
    assert (change.key, change.runs_with, change.wanted) == ("timeouts.stop", "8s", "1.5s")


def test_what_is_live_is_taken_though_something_else_needs_a_restart() -> None:
    made = plan(config(), config(listen="127.0.0.1:6000", log={"level": "debug"}, min_nodes="all"))
    assert made.config == config(log={"level": "debug"}, min_nodes="all")
    assert [change.key for change in made.taken] == ["min_nodes", "log.level"]
    assert [change.key for change in made.need_restart] == ["listen"]


def test_a_key_of_a_node_is_told_by_its_place_and_other_nodes_by_their_number() -> None:
    wanted = parse(with_node(1, address="127.0.0.1:6000"), env={})
    assert [change.key for change in plan(config(), wanted).need_restart] == ["nodes[1].address"]
    fewer = config(nodes=sample()["nodes"][:2])
    (change,) = plan(config(), fewer).need_restart
    assert (change.key, change.runs_with, change.wanted) == ("nodes", "3 entries", "2 entries")


@pytest.mark.parametrize(
    ("name", "value", "live"),
    [
        ("certificate", "other.crt", True),
        ("key", "other.key", True),
        ("ca", "other-ca.crt", True),
        ("mutual_listen", "0.0.0.0:6009", False),
        ("poll", "1s", True),
        ("notice_days", 90, True),
        ("warn_days", 1, True),
    ],
)
def test_of_tls_all_is_taken_but_the_port(name: str, value: Any, live: bool) -> None:
    running, wanted = parse(with_tls(), env={}), parse(with_tls(**{name: value}), env={})
    made = plan(running, wanted)
    assert [change.key for change in made.taken] == ([f"tls.{name}"] if live else [])
    assert [change.key for change in made.need_restart] == ([] if live else [f"tls.{name}"])
    assert made.config == (wanted if live else running)


def test_whether_there_is_tls_at_all_needs_a_restart() -> None:
    without = config()
    mapping = with_tls()
    mapping["listen"] = "127.0.0.1:50052"
    with_it = parse(mapping, env={})
    for running, wanted, words in (
        (without, with_it, ("left out", "there")),
        (with_it, without, ("there", "left out")),
    ):
        made = plan(running, wanted)
        (change,) = [change for change in made.need_restart if change.key == "tls"]
        assert (change.runs_with, change.wanted) == words
        assert made.config == running


def test_the_public_keys_of_every_node_are_taken_whatever_the_order_of_the_nodes() -> None:
    mapping = sample()
    mapping["nodes"].reverse()  # node-3 first
    mapping["nodes"][0] |= {"public_key": later("node-3"), "former_keys": [{"public_key": vkey("node-3"), "until": 7}]}
    made = plan(config(), parse(mapping, env={}))
    assert [change.key for change in made.taken] == ["nodes[2].public_key", "nodes[2].former_keys"]
    assert made.need_restart == ()
    assert [node.name for node in made.config.nodes] == ["node-1", "node-2", "node-3"]
    assert made.config.nodes[2].public_key == later("node-3")
    assert [(former.public_key, former.until) for former in made.config.nodes[2].former_keys] == [(vkey("node-3"), 7)]

    mapping["nodes"][0]["former_keys"][0]["until"] = 9
    (change,) = plan(made.config, parse(mapping, env={})).taken
    assert (change.key, change.runs_with, change.wanted) == ("nodes[2].former_keys[0].until", "7", "9")


def test_no_key_is_taken_from_a_file_with_other_nodes() -> None:
    """A public key of the same place may be another node's."""
    mapping = sample()
    mapping["nodes"][2] |= {"name": "node-4", "public_key": vkey("node-4")}
    made = plan(config(), parse(mapping, env={}))
    assert (made.config, made.taken) == (config(), ())
    assert [change.key for change in made.need_restart] == ["nodes[2].name", "nodes[2].public_key"]


def test_former_nodes_are_taken_while_the_nodes_are_the_same() -> None:
    made = plan(config(), config(former_nodes=[former_node()]))
    assert made.config == config(former_nodes=[former_node()])
    assert [change.key for change in made.taken] == ["former_nodes"]
    (change,) = plan(made.config, config(former_nodes=[former_node(until=9)])).taken
    assert (change.key, change.runs_with, change.wanted) == ("former_nodes[0].keys[0].until", "7", "9")
    other = plan(made.config, config(former_nodes=[former_node("node-9")]))
    assert (other.config.former_nodes[0].name, other.need_restart) == ("node-9", ())


def test_a_node_that_leaves_goes_from_the_one_list_to_the_other_at_the_restart() -> None:
    """Until then it may be called and believed as before: nothing of the file would break a rule by half."""
    mapping = sample(former_nodes=[former_node("node-3")], log={"level": "debug"})
    del mapping["nodes"][2]
    made = plan(config(), parse(mapping, env={}))
    assert made.config == config(log={"level": "debug"})
    assert [change.key for change in made.taken] == ["log.level"]
    assert [change.key for change in made.need_restart] == ["nodes", "former_nodes"]


def test_a_vote_is_given_and_taken_by_a_restart() -> None:
    made = plan(config(), parse(with_node(2, voter=False), env={}))
    (change,) = made.need_restart
    assert (change.key, change.runs_with, change.wanted) == ("nodes[2].voter", "true", "false")
    assert (made.config, made.taken) == (config(), ())


def test_the_same_config_changes_nothing() -> None:
    made = plan(config(), config())
    assert (made.config, made.taken, made.need_restart) == (config(), (), ())


def test_what_does_not_go_with_what_stays_is_refused_as_a_whole() -> None:
    """In the file the queue holds a frame and a payload; with the frame that the node runs with it would not."""
    wanted = config(limits={"frame": "4KiB", "queue": "2MiB"}, log={"level": "debug"})
    with pytest.raises(ConfigError) as caught:
        plan(config(), wanted)
    (fault,) = caught.value.faults
    assert fault.startswith("limits.queue: limits.queue (2MiB) is below limits.frame + limits.payload (5MiB)")
    assert fault.endswith("; or restart, to have the whole file taken")

    five = [{**sample()["nodes"][0], "name": f"n{n}", "address": f"127.0.0.1:{n}"} for n in range(1, 6)]
    for node in five:
        node["public_key"] = vkey(node["name"])
    wanted = config(node="n1", nodes=five, write_concern={"default": 5})
    with pytest.raises(ConfigError, match="is 5, but there are only 3 nodes with a vote"):
        plan(config(), wanted)


def test_a_config_that_holds_now_can_be_compared_again() -> None:
    first = plan(config(), config(listen="127.0.0.1:6000", limits={"queue": "128MiB"})).config
    again = plan(first, config(limits={"queue": "256MiB"}))
    assert [change.runs_with for change in again.taken] == ["128MiB"]
    assert dataclasses.replace(again.config.limits, queue_bytes=64 << 20) == config().limits

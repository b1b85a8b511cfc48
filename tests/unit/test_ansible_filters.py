"""The filters of the Ansible role `replicad`: what every config has of the nodes."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from replicad.config import Node
from replicad.configkeys import keys_of

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "ansible/roles/replicad"
GROUPS = {"workers": ["log-2", "log-3"], "master": ["log-1"], "replicad": ["log-2", "log-3", "log-1"]}


def load_filters() -> ModuleType:
    spec = importlib.util.spec_from_file_location("replicad_filters", ROLE / "filter_plugins/replicad.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filters = load_filters()


def peers(fleet: Path, **variables: dict[str, Any]) -> list[dict[str, Any]]:
    hostvars = {host: variables.get(host.replace("-", "_"), {}) for host in GROUPS["replicad"]}
    found: list[dict[str, Any]] = filters.peers(GROUPS, hostvars, fleet)
    return found


def know(fleet: Path, name: str, **what: object) -> None:
    (fleet / "nodes").mkdir(exist_ok=True)
    (fleet / "nodes" / f"{name}.yml").write_text(yaml.safe_dump(what))


def test_the_master_is_first_and_a_node_is_called_and_reached_as_its_host_unless_it_says_otherwise(
    tmp_path: Path,
) -> None:
    found = peers(
        tmp_path,
        log_2={"ansible_host": "198.51.100.2", "replicad_port": 6000},
        log_3={"ansible_host": "198.51.100.3", "replicad_address": "2001:db8::3", "replicad_node": "third"},
    )
    assert [(each["name"], each["role"], each["address"], each["mutual_address"]) for each in found] == [
        ("log-1", "master", "log-1:50052", "log-1:50152"),
        ("log-2", "worker", "198.51.100.2:6000", "198.51.100.2:50152"),
        ("third", "worker", "[2001:db8::3]:50052", "[2001:db8::3]:50152"),
    ]


def test_the_ports_are_those_of_the_roles_defaults() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert (defaults["replicad_port"], defaults["replicad_mutual_port"]) == (filters.PORT, filters.MUTUAL_PORT)


def test_a_node_is_known_by_the_fleets_folder_and_not_by_its_host(tmp_path: Path) -> None:
    know(tmp_path, "log-3", public_key="log-3+1+A", former_keys=[{"public_key": "log-3+2+B", "until": 7}])
    found = filters.entries(peers(tmp_path))
    assert found[2]["public_key"] == "log-3+1+A"
    assert found[2]["former_keys"] == [{"public_key": "log-3+2+B", "until": 7}]
    assert found[0]["public_key"] == ""
    assert "former_keys" not in found[0]


def test_a_vote_stands_in_the_config_only_where_there_is_none(tmp_path: Path) -> None:
    found = filters.entries(peers(tmp_path, log_2={"replicad_voter": "false"}, log_3={"replicad_voter": True}))
    assert [each.get("voter") for each in found] == [None, False, None]


def test_what_always_stands_in_the_config_is_what_the_daemon_reads(tmp_path: Path) -> None:
    assert set(filters.entries(peers(tmp_path))[0]) <= {key.name for key in keys_of(Node)}


def test_a_host_that_is_left_out_is_in_no_config(tmp_path: Path) -> None:
    found = filters.peers(GROUPS, {host: {} for host in GROUPS["replicad"]}, tmp_path, ["log-3"])
    assert [each["name"] for each in found] == ["log-1", "log-2"]


@pytest.mark.parametrize("example", ["master", "worker", "replicad"])
def test_the_packages_example_is_no_list_of_nodes_that_run(example: str) -> None:
    text = (ROOT / f"packaging/examples/{example}.yaml").read_text()
    assert filters.node_names(text) == []
    assert filters.node_names(text.replace("PUT-THE-LINE", "AcYA")) == ["node-1", "node-2", "node-3"]


def test_a_config_that_is_none_lists_no_nodes() -> None:
    assert filters.node_names("") == []
    assert filters.node_names("- nodes") == []


def test_a_certificate_has_addresses_as_addresses_and_each_name_once() -> None:
    assert filters.alternative_names(["log-1", "Log-1", "192.0.2.1", "[2001:db8::1]", "log-1.example.org"]) == [
        "DNS:log-1",
        "IP:192.0.2.1",
        "IP:2001:db8::1",
        "DNS:log-1.example.org",
    ]


def test_every_variable_of_the_role_has_a_default_and_is_documented() -> None:
    specification = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert set(specification) == set(defaults)
    for name, option in specification.items():
        assert option["description"]
        if "default" in option:
            assert option["default"] == defaults[name], name


def test_a_node_that_comes_or_goes_has_no_vote_whatever_the_inventory_says(tmp_path: Path) -> None:
    know(tmp_path, "log-2", public_key="log-2+1+A", stage="joining")
    know(tmp_path, "log-3", public_key="log-3+1+A", stage="leaving", left_at=5)
    found = peers(tmp_path, log_2={"replicad_voter": True})
    assert [each.get("voter") for each in filters.entries(found)] == [None, False, False]
    assert [each["stage"] for each in found] == ["", "joining", "leaving"]


def test_who_has_left_is_no_peer_and_is_believed_up_to_then(tmp_path: Path) -> None:
    know(tmp_path, "log-2", public_key="log-2+1+A", former_keys=[])
    former = [{"public_key": "log-3+1+A", "until": 7}]
    know(tmp_path, "log-3", public_key="log-3+2+B", former_keys=former, stage="left", left_at=90)
    assert [each["name"] for each in peers(tmp_path)] == ["log-1", "log-2"]
    keys = [{"public_key": "log-3+2+B", "until": 90}, *former]
    assert filters.left_nodes(tmp_path) == [{"name": "log-3", "keys": keys}]


def test_who_comes_back_with_another_key_is_believed_with_the_old_one_until_it_left() -> None:
    left = {"public_key": "log-3+1+A", "former_keys": [], "stage": "left", "left_at": 90}
    back = filters.joining(left, "log-3+2+B")
    assert back["former_keys"] == [{"public_key": "log-3+1+A", "until": 90}]
    assert (back["public_key"], back["stage"]) == ("log-3+2+B", "joining")
    assert filters.joining(left, "log-3+1+A")["former_keys"] == []
    # One that broke off, was never a node, and lost its disk has signed nothing.
    begun = {"public_key": "log-3+1+A", "former_keys": [], "stage": "joining"}
    assert filters.joining(begun, "log-3+2+B")["former_keys"] == []


def test_what_a_rotation_tells_is_kept_until_the_old_key_is_retired() -> None:
    known = {"public_key": "log-3+1+A", "former_keys": [], "rotating": True}
    begun = filters.rotated(
        known, {"public_key": "log-3+2+B", "former_keys": [{"public_key": "log-3+1+A", "until": None}]}
    )
    assert begun == {"public_key": "log-3+2+B", "former_keys": [{"public_key": "log-3+1+A"}], "rotating": True}
    ended = {"public_key": "log-3+2+B", "former_keys": [{"public_key": "log-3+1+A", "until": 0}]}
    assert filters.rotated(begun, ended, is_over=True) == ended


@pytest.mark.parametrize(
    ("key", "next_key", "next_certificate", "possible"),
    [
        (None, None, None, []),
        ("old", None, None, ["trust"]),
        ("old", "new", None, ["trust"]),
        ("old", "new", "c", ["trust", "issue"]),
        ("new", "new", "c", ["issue", "drop"]),
    ],
)
def test_a_new_ca_is_trusted_before_it_issues_and_issues_before_the_old_one_is_dropped(
    key: str | None, next_key: str | None, next_certificate: str | None, possible: list[str]
) -> None:
    stage = runpy.run_path(str(ROLE.parent / "replicad_pki/filter_plugins/replicad_pki.py"))["stage"]
    stats = [{"exists": file is not None, "checksum": file} for file in (key, next_key, next_certificate)]
    assert stage(stats)["possible"] == possible


def test_who_lost_its_key_is_believed_with_the_old_one_as_far_as_the_backup_goes() -> None:
    known = {"public_key": "log-3+2+B", "former_keys": [{"public_key": "log-3+1+A", "until": 7}]}
    lost = filters.rekeyed(known, "log-3+3+C")
    assert lost["former_keys"] == [{"public_key": "log-3+2+B"}, {"public_key": "log-3+1+A", "until": 7}]
    assert [each["until"] for each in filters.closed(lost, 90)["former_keys"]] == [90, 7]
    assert lost["public_key"] == "log-3+3+C"

"""The folder of a cluster on one machine."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from replicad.configfile import load as load_config
from replicad.dev import layout
from replicad.errors import ConfigError, OperatorError
from replicad.pki import Authority
from replicad.transport.tls import load as load_identity
from tests.support.certificates import node_of


def test_a_new_cluster_has_a_valid_config_for_each_node_and_the_first_is_master(tmp_path: Path) -> None:
    made = layout.create(tmp_path, ports=[6001, 6002, 6003])

    assert [(node.name, node.role, node.address) for node in made.nodes] == [
        ("node-1", "master", "127.0.0.1:6001"),
        ("node-2", "worker", "127.0.0.1:6002"),
        ("node-3", "worker", "127.0.0.1:6003"),
    ]
    for node in made.nodes:
        config = load_config(node.config_file, env={})
        assert (config.node, config.role, config.listen) == (node.name, node.role, node.address)
        assert Path(config.data_dir) == node.data_dir


def test_what_was_made_is_found_again(tmp_path: Path) -> None:
    made = layout.create(tmp_path, ports=[6001, 6002])

    assert layout.load(tmp_path) == made


def test_an_interrupted_creation_goes_on_with_the_keys_that_are_there(tmp_path: Path) -> None:
    layout.create(tmp_path, ports=[6001, 6002])
    key = (tmp_path / "node-2" / "key").read_bytes()
    (tmp_path / "node-1" / "replicad.yaml").unlink()  # the file that is written last
    assert not layout.exists(tmp_path)

    layout.create(tmp_path, ports=[6001, 6002])

    assert (tmp_path / "node-2" / "key").read_bytes() == key


def test_every_cluster_has_a_token_of_its_own_unless_told_otherwise(tmp_path: Path) -> None:
    first = layout.create(tmp_path / "a", ports=[6001])
    second = layout.create(tmp_path / "b", ports=[6001])

    assert len(first.token) >= 32
    assert first.token != second.token
    assert layout.create(tmp_path / "c", ports=[6001], token="chosen").token == "chosen"
    assert layout.create(tmp_path / "d", ports=[6001], token="").token == ""


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = layout.create(tmp_path, ports=[6001])
        made.publish_env()
    finally:
        os.umask(before)

    for path in (tmp_path / "token", tmp_path / "env", tmp_path / "node-1" / "key"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_sourcing_the_env_file_gives_a_shell_what_a_client_needs(tmp_path: Path) -> None:
    made = layout.create(tmp_path / "it's a folder", ports=[6001, 6002])
    made.publish_env()

    shell = subprocess.run(
        ["sh", "-c", '. "$1" && printf "%s\\n%s" "$REPLICAD_ADDRESS" "$AUTH_TOKEN"', "sh", str(made.env_file)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert shell.stdout == f"127.0.0.1:6001,127.0.0.1:6002\n{made.token}"


def test_settings_stand_in_every_config(tmp_path: Path) -> None:
    made = layout.create(tmp_path, ports=[6001, 6002], settings={"timeouts": {"heartbeat": "100ms"}})

    assert [load_config(node.config_file, env={}).timeouts.heartbeat_s for node in made.nodes] == [0.1, 0.1]


def test_a_folder_without_a_cluster_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="holds no cluster; make one: replicad dev --dir"):
        layout.load(tmp_path)


def test_a_config_that_was_spoilt_by_hand_is_named(tmp_path: Path) -> None:
    made = layout.create(tmp_path, ports=[6001])
    made.nodes[0].config_file.write_text(made.nodes[0].config_file.read_text().replace("master", "boss"))

    with pytest.raises(ConfigError, match=r"replicad\.yaml:\d+: role"):
        layout.load(tmp_path)


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OperatorError, match="give another --dir"):
        layout.create(tmp_path / "file", ports=[6001])


def test_with_mutual_ports_each_node_has_a_certificate_and_clients_are_told_the_ca(tmp_path: Path) -> None:
    made = layout.create(tmp_path, ports=[6001, 6002], mutual_ports=[6003, 6004], settings={"tls": {"poll": "1s"}})
    assert made == layout.load(tmp_path)
    assert made.client_env()["REPLICAD_CA"] == str(tmp_path / "pki" / "ca.crt")
    for node, port in zip(made.nodes, (6003, 6004), strict=True):
        config = load_config(node.config_file, env={})
        assert node.mutual_address == config.this_node.mutual_address == f"127.0.0.1:{port}"
        assert config.tls
        assert config.tls.poll_s == 1
        assert load_identity(config, now_s=time.time())
    assert "REPLICAD_CA" not in layout.create(tmp_path / "without", ports=[6001]).client_env()


def test_certificates_of_a_cluster_are_renewed_long_before_they_end(tmp_path: Path) -> None:
    layout.create(tmp_path, ports=[6001], mutual_ports=[6002])
    file = tmp_path / "pki" / "node-1.crt"
    before = file.read_bytes()
    layout.renew_certificates(tmp_path, ["node-1"])
    assert file.read_bytes() == before
    soon = node_of(Authority.open(tmp_path / "pki"), "node-1", days=59)
    assert soon.certificate == file
    before = file.read_bytes()
    layout.renew_certificates(tmp_path, ["node-1"])
    assert file.read_bytes() != before

"""All that a node reads before it starts: every fault of the config and of its files in one go, each with its line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from replicad import startfiles, tokensfile
from replicad.access import Principal, Role, hash_of
from replicad.errors import ConfigError
from replicad.keys import generate

CONFIG = """\
cluster: example
node: node-1
role: {role}
listen: 0.0.0.0:6001
data_dir: data
key: node.key
tokens_file: tokens.yaml
tls:
  certificate: node-1.crt
  key: tls.key
  ca: ca.crt
  mutual_listen: 0.0.0.0:6101
nodes:
  - name: node-1
    address: log-1.example.org:6001
    mutual_address: log-1.example.org:6101
    public_key: {line}
"""


def faults_of(path: Path, env: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        startfiles.load_all(path, now_s=time.time(), env=env or {})
    return [line.removeprefix(f"{path}:") for line in caught.value.faults]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a node all of whose files are missing."""
    line = generate("node-1", tmp_path / "elsewhere.key")
    path = tmp_path / "replicad.yaml"
    path.write_text(CONFIG.format(role="master", line=line))
    return path


def told_of_files(config: Path) -> list[str]:
    """What is said of the missing files, as far as it matters here."""
    folder = config.parent
    return [
        f"6: key: {folder}/node.key: no such key file",
        f"9: tls.certificate: {folder}/node-1.crt: no such file",
        f"11: tls.ca: {folder}/ca.crt: no such file",
        f"10: tls.key: {folder}/tls.key: no such file",
        f"7: tokens_file: {folder}/tokens.yaml: no such tokens file",
    ]


def test_the_faults_of_all_files_are_told_in_one_go_each_with_the_line_that_names_the_file(config: Path) -> None:
    assert [fault.partition(";")[0] for fault in faults_of(config)] == told_of_files(config)


def test_they_are_told_beside_those_of_the_values(config: Path) -> None:
    config.write_text(config.read_text().replace("role: master", "role: slave") + "colour: red\n")
    values, files = faults_of(config)[:2], faults_of(config)[2:]
    assert values[0].startswith("3: role: is 'slave'")
    assert values[1].startswith("18: colour: no such key")
    assert [fault.partition(";")[0] for fault in files] == told_of_files(config)


def test_a_key_that_is_not_the_nodes_and_a_faulty_tokens_file_are_told_with_their_keys(config: Path) -> None:
    tokens = config.parent / "tokens.yaml"
    tokensfile.add(tokens, Principal("shop", frozenset({Role.WRITER}), hash_of("t")))
    tokens.write_text(tokens.read_text().replace("writer", "writr"))
    generate("node-1", config.parent / "node.key")
    config.write_text(config.read_text().replace("role: master", "role: slave"))
    role, key, *_, entry = faults_of(config)
    assert role.startswith("3: role: ")
    assert key.startswith("6: key: the key file of node-1 is that of node-1+")
    assert entry.startswith(f"7: tokens_file: {tokens}:5: principals[0].roles: holds 'writr'; did you mean writer?")


def test_what_hangs_on_a_faulty_value_is_left_out(config: Path) -> None:
    text = config.read_text().replace("node: node-1\n", "node: Not A Name\n")
    config.write_text(text.replace("tokens.yaml", "7"))
    assert [fault.partition(":")[0] for fault in faults_of(config)] == ["2", "7"]


def test_a_key_that_systemd_hands_in_is_told_of_with_no_line(config: Path, tmp_path: Path) -> None:
    credential = tmp_path / "credentials" / "node.key"
    credential.parent.mkdir()
    credential.write_text("no key")
    config.write_text(config.read_text().replace("key: node.key\n", ""))
    [key, *_] = faults_of(config, {"CREDENTIALS_DIRECTORY": str(credential.parent)})
    assert key.startswith(f" key: {credential}: group or others have rights to it")

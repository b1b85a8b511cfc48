"""The config file: where each fault stands in it, what YAML allows and we do not, and the example that ships."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicad.config import Config
from replicad.configfile import FILE_BYTES, load
from replicad.configkeys import KeyInfo, Section, path_text, walk_keys
from replicad.errors import ConfigError
from replicad.keys import generate
from tests.support.builders import vkey

SHARED_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EXAMPLE = Path(__file__).parents[2] / "packaging" / "examples" / "replicad.yaml"


GOOD = f"""\
# line 1
cluster: example
node: node-1
role: master
listen: 127.0.0.1:50052
data_dir: data
key: /etc/replicad/node.key
nodes:
  - name: node-1
    address: 127.0.0.1:50052
    public_key: {vkey("node-1")}
  - name: node-2
    address: 127.0.0.1:50053
    public_key: {vkey("node-2")}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "replicad.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults_in(path: Path, env: dict[str, str] | None = None) -> list[str]:
    """The faults, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        load(path, env or {})
    return [fault.replace(f"{path.parent}/", "") for fault in caught.value.faults]


def test_a_good_file_gives_its_config_and_relative_paths_count_from_its_folder(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD), {})
    assert config.data_dir == str(tmp_path / "data")
    assert config.key_file == "/etc/replicad/node.key"
    assert [node.name for node in config.nodes] == ["node-1", "node-2"]


def test_a_relative_path_of_the_file_itself_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert load("replicad.yaml", {}).data_dir == str(tmp_path / "data")


def test_the_environment_of_the_process_counts_when_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "6000")
    assert load(write(tmp_path, GOOD)).listen == "127.0.0.1:6000"


def test_a_credential_is_the_key_whatever_the_file_says_and_may_be_the_only_one(tmp_path: Path) -> None:
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    (tmp_path / "credentials").mkdir()
    without = GOOD.replace("key: /etc/replicad/node.key\n", "")
    (fault,) = faults_in(write(tmp_path, without), env)
    assert fault.startswith("replicad.yaml:1: key: is missing; add it: ")
    assert "the credential node.key" in fault

    (tmp_path / "credentials" / "node.key").touch()
    for text in (without, GOOD):
        assert load(write(tmp_path, text), env).key_file == str(tmp_path / "credentials" / "node.key")


def test_who_does_not_sign_needs_no_key(tmp_path: Path) -> None:
    config = load(write(tmp_path, GOOD.replace("key: /etc/replicad/node.key\n", "")), {}, signs=False)
    assert config.key_file == os.devnull


def test_a_key_in_the_file_itself_is_told_though_a_credential_stands_for_it(tmp_path: Path) -> None:
    (tmp_path / "node.key").touch()
    text = GOOD.replace("key: /etc/replicad/node.key", "key: |\n  -----BEGIN PRIVATE " + "KEY-----")
    (fault,) = faults_in(write(tmp_path, text), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "key: holds a private key (not shown)" in fault


#: what is changed in GOOD: (pattern, replacement, the one fault's beginning, words of its remedy)
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "bad value": ("50053", "x", "replicad.yaml:13: nodes[1].address: '127.0.0.1:x' is not HOST:PORT", "write it like"),
    "value on a line of its own": ("role: master", "role:\n    boss", "replicad.yaml:5: role: is 'boss'", "worker"),
    "unknown key": ("role:", "rolle: x\nrole:", "replicad.yaml:4: rolle: no such key", "did you mean role?"),
    "missing key of a node": (
        "    address: 127.0.0.1:50053\n",
        "",
        "replicad.yaml:12: nodes[1].address: is missing",
        "HOST:PORT",
    ),
    "missing key": ("cluster: example\n", "", "replicad.yaml:1: cluster: is missing", "add it"),
    "section that is none": (
        "role: master",
        "role: master\nlimits: 5",
        "replicad.yaml:5: limits: is 5",
        "payload, batch",
    ),
    "rule between keys": (
        "role: master",
        "role: master\ntimeouts:\n  stop: 3s\n  heartbeat: 5s",
        "replicad.yaml:7: timeouts.heartbeat: 5s is not below timeouts.suspect (2s)",
        "raise timeouts.suspect",
    ),
    "YAML on": ("cluster: example", "cluster: on", "replicad.yaml:2: cluster: is true (YAML reads on", "quotes"),
    "key that is YAML on": ("role: master", "role: master\non: 1", "replicad.yaml:5: on: no such key", "known here"),
    "date": ("example", "2024-01-02", "replicad.yaml:2: cluster: is a date, not text", "quotes"),
    "date that there is not": (
        "example",
        "2024-13-02",
        "replicad.yaml:2: cluster: can't be read as YAML's 'timestamp'",
        "put text in quotes",
    ),
    "number without end": (
        "example",
        "9" * 5000,
        "replicad.yaml:2: cluster: can't be read as YAML's 'int'",
        "plain value",
    ),
    "key twice": (
        "role: master",
        "role: master\ncluster: other",
        "replicad.yaml:5: cluster: stands in line 2 already",
        "keep one of the two",
    ),
    "key of a node twice": (
        "    address: 127.0.0.1:50053",
        "    address: 127.0.0.1:50053\n    address: 127.0.0.1:50053",
        "replicad.yaml:14: nodes[1].address: stands in line 13 already",
        "keep one",
    ),
    "alias": (
        "data_dir: data",
        "data_dir: *x",
        "replicad.yaml:6: data_dir: is the YAML alias *x",
        "write the value out",
    ),
    "vault": ("example", "!vault x", "replicad.yaml:2: cluster: can't be read as YAML's '!vault'", "plain value"),
    "Python object": (
        "role: master",
        "role: master\nlog: !!python/dict {level: info}",
        "replicad.yaml:5: log: has the YAML tag",
        "remove the tag",
    ),
    "private key": (
        "key: /etc/replicad/node.key",
        "key: |\n  -----BEGIN PRIVATE " + "KEY-----\n  MC4C",
        "replicad.yaml:7: key: holds a private key (not shown)",
        "mode 0600",
    ),
    "token": ("role:", "auth_token: hunter2hunter2\nrole:", "replicad.yaml:4: auth_token: a token", "set AUTH_TOKEN"),
    "tab": ("  - name: node-2", "\t- name: node-2", "replicad.yaml:12:1: not valid YAML:", "spaces, not tabs"),
    "no colon": ("role: master", "role master", "replicad.yaml:4:1: not valid YAML: could not find expected", "colons"),
    "open quote": ("example", '"example', "replicad.yaml:2:10: not valid YAML: found unexpected", "quotes there"),
    "bare IPv6": (
        "listen: 127.0.0.1:50052",
        "listen: [2001:db8::1]:50052",
        "replicad.yaml:5:22: not valid YAML:",
        "quotes,",
    ),
    "bare IPv6, short": (
        "listen: 127.0.0.1:50052",
        "listen: [::1]:50052",
        "replicad.yaml:5:10: not valid YAML:",
        "quotes,",
    ),
    "second document": ("role: master", "role: master\n---\na: 1", "replicad.yaml:5:1: not valid YAML:", "look at"),
    "control character": ("example", "exa\x07mple", "replicad.yaml:2: holds a character that YAML", "remove it"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_names_the_file_the_line_the_key_and_the_remedy(case: str, tmp_path: Path) -> None:
    pattern, replacement, beginning, remedy = FAULTS[case]
    assert pattern in GOOD
    faults = faults_in(write(tmp_path, GOOD.replace(pattern, replacement, 1)))
    assert len(faults) == 1, faults
    assert faults[0].startswith(beginning), faults[0]
    assert remedy in faults[0].partition("; ")[2]
    assert faults[0].isprintable()
    assert "MC4C" not in faults[0]
    assert "hunter2" not in faults[0]


def test_faults_come_in_the_files_order_and_the_environments_last(tmp_path: Path) -> None:
    text = GOOD.replace("50053", "x").replace("example", "E").replace("role: master", "role: boss\nrole: x")
    faults = faults_in(write(tmp_path, text), {"PORT": "x"})
    assert [re.sub(r"(:\d+: )?([^:]*): .*", r"\1\2", fault) for fault in faults] == [
        "replicad.yaml:2: cluster",
        "replicad.yaml:5: role",
        "replicad.yaml:14: nodes[1].address",
        "environment PORT",
    ]


def test_a_file_that_is_missing_or_is_a_folder_is_told_with_a_remedy(tmp_path: Path) -> None:
    (missing,) = faults_in(tmp_path / "none.yaml")
    assert missing.startswith("none.yaml: no such file; name another with --config")
    (folder,) = faults_in(tmp_path)
    assert "cannot be read (Is a directory); it must be a file" in folder


@pytest.mark.parametrize(
    ("content", "beginning"),
    [
        (b"", "replicad.yaml: is empty; begin with the example"),
        (b"# nothing\n", "replicad.yaml: is empty"),
        (b"- a\n- b\n", "replicad.yaml:1: the config is not a mapping"),
        (b"cluster: x\nnode: \xff\n", "replicad.yaml:2: is not UTF-8 text; save the file as UTF-8"),
        (b"x" * (FILE_BYTES + 1), f"replicad.yaml: has more than {FILE_BYTES} bytes"),
        (b"[" * 100_000, "replicad.yaml: is nested too deeply"),
        (b"? [a, b]\n: c\n", "replicad.yaml:1: ?: no such key"),
    ],
    ids=["empty", "comments", "list", "latin-1", "large", "deep", "complex key"],
)
def test_a_file_that_is_no_config_is_told_so(content: bytes, beginning: str, tmp_path: Path) -> None:
    path = tmp_path / "replicad.yaml"
    path.write_bytes(content)
    assert any(fault.startswith(beginning) for fault in faults_in(path)), faults_in(path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "replicad.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(path, {}).cluster == "example"


@SHARED_FOLDER
@given(st.binary(max_size=80) | st.text(alphabet="abk: -[]{}\"'!&*?|>#%@,\n\t~=<0.12e", max_size=60).map(str.encode))
def test_no_content_whatever_raises_anything_but_a_config_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "replicad.yaml"
    path.write_bytes(content)
    assert all(fault.isprintable() for fault in faults_in(path))


@SHARED_FOLDER
@given(st.integers(0, len(GOOD)), st.text(alphabet="abk: -[]{}\"'!&*?|>#%@,\n\t~=<0.12e", max_size=8))
def test_no_edit_of_a_good_file_raises_anything_but_a_config_error(tmp_path: Path, at: int, edit: str) -> None:
    path = write(tmp_path, GOOD[:at] + edit + GOOD[at + len(edit) :])
    faults: list[str] = []
    try:
        load(path, {})
    except ConfigError as exc:
        faults = exc.faults
    assert all(fault.isprintable() for fault in faults)


# --- the example that ships -------------------------------------------------------------------------------------


def example_with_keys(folder: Path, example: Path = EXAMPLE) -> str:
    """The example with the public keys filled in, as its reader would."""

    def line(match: re.Match[str]) -> str:
        return generate(match[1], folder / f"{match[1]}.key")

    text, filled = re.subn(r"(node-\d)\+00000000\+PUT\S+", line, example.read_text(encoding="utf-8"))
    assert filled == 3
    return text


def with_tls(example: str) -> str:
    """The example with the lines in force that have no space behind their #: those of TLS."""
    text, lines = re.subn(r"^( *)#(?=(?:  )?(?:# |[a-z_]+:))", r"\1", example, flags=re.MULTILINE)
    assert lines > 10
    return text


def test_the_example_loads_when_its_keys_are_filled_in(tmp_path: Path) -> None:
    config = load(write(tmp_path, example_with_keys(tmp_path)), {})
    assert config.voters == 3


def test_the_example_as_it_is_is_told_so_in_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (fault,) = faults_in(EXAMPLE)
    assert fault.startswith("replicad.yaml: is still the example: edit it, ")
    assert "`replicad-cli keys generate NODE`" in fault
    (fault,) = faults_in(write(tmp_path, EXAMPLE.read_text(encoding="utf-8").replace("role: master", "role: boss")))
    assert "is still the example" in fault


def test_the_example_half_filled_in_asks_for_the_other_keys_alone(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    faults = faults_in(write(tmp_path, text.replace("node-2+00000000+PUT-THE-LINE-OF-NODE-2-HERE", vkey("node-2"))))
    assert [fault.split(": ")[1] for fault in faults] == ["nodes[0].public_key", "nodes[2].public_key"]
    assert all("replicad-cli keys show" in fault for fault in faults)


@pytest.mark.parametrize("role", ["master", "worker"])
def test_the_example_of_a_role_is_that_of_a_node_of_the_same_cluster_and_says_no_default_again(
    role: str, tmp_path: Path
) -> None:
    path = EXAMPLE.with_name(f"{role}.yaml")
    (fault,) = faults_in(path)
    assert fault.startswith(f"{role}.yaml: is still the example: edit it, ")
    config = load(write(tmp_path, example_with_keys(tmp_path, path)), {})
    assert config.role == role
    assert config.this_node.address == config.listen
    shown, full = yaml.safe_load(path.read_text()), yaml.safe_load(EXAMPLE.read_text())
    assert (shown["cluster"], shown["nodes"]) == (full["cluster"], full["nodes"])
    optional = {str(path[0]): key for path, key in walk_keys(Config) if len(path) == 1 and not key.required}
    assert all(shown[name] != key.default for name, key in optional.items() if name in shown)


def test_the_example_names_the_keys_that_a_reload_does_not_take() -> None:
    comment = " ".join(EXAMPLE.read_text(encoding="utf-8").replace("\n#", " ").split())
    named = re.search(r"those without one: ([^:]*?)\. ", f"{comment} ")
    need_restart = {
        path_text(path).replace("[0]", "[]")
        for path, key in walk_keys(Config)
        if not (key.required or key.kind.live or is_section(key))
    }
    assert named
    assert set(named[1].split(", ")) == need_restart


def is_section(key: KeyInfo) -> bool:
    return isinstance(key.kind, Section)


def is_told_of_alone(path: tuple[str | int, ...]) -> bool:
    """Whether it is a key of a list's entries that a new cluster's config does not have."""
    return "former_keys" in path or "former_nodes" in path or path[-1] == "voter"


def test_the_example_shows_every_key_with_its_default(tmp_path: Path) -> None:
    shown = yaml.safe_load(with_tls(EXAMPLE.read_text(encoding="utf-8")))
    config = load(write(tmp_path, with_tls(example_with_keys(tmp_path))), {})
    for path, key in walk_keys(Config):
        if is_told_of_alone(path) or key.default == "":  # there only as a comment
            continue
        place = shown
        for part in path:
            place = place[part]
        if not key.required and not isinstance(key.kind, Section) and path[0] != "nodes":
            holder = config if len(path) == 1 else getattr(config, str(path[0]))
            assert getattr(holder, key.field) == key.default, path


def test_who_does_not_sign_may_still_need_the_key_of_its_certificate(tmp_path: Path) -> None:
    whole = with_tls(example_with_keys(tmp_path))
    without = re.sub(r"\n  key: .*", "", whole, count=1)
    tls = load(write(tmp_path, whole), {}, signs=False).tls
    assert tls is not None
    assert tls.key_file.endswith(".key")
    with pytest.raises(ConfigError, match=r"tls: key is missing|tls\.key"):
        load(write(tmp_path, without), {}, signs=False)
    assert load(write(tmp_path, without), {}, signs=False, dials=False).tls is not None


def test_the_example_without_its_tls_is_a_config_for_this_machine(tmp_path: Path) -> None:
    assert load(write(tmp_path, example_with_keys(tmp_path)), {}).tls is None


def test_the_example_tells_of_every_default_in_a_comment() -> None:
    text = with_tls(EXAMPLE.read_text(encoding="utf-8"))
    for path, key in walk_keys(Config):
        if is_told_of_alone(path):
            assert re.search(rf"^ *#   (- |  )?{path[-1]}\b", text, re.MULTILINE), path
            continue
        if key.required or isinstance(key.kind, Section) or str(path[-1]).startswith("reconnect"):
            continue
        comments = re.search(rf"((?:^ *#.*\n)+) *#?{path[-1]}: ", text, re.MULTILINE)
        assert comments, path
        assert re.search(rf"[Dd]efault: {re.escape(key.kind.show(key.default))}\.", comments[1]), path

"""What people and their tools write: config, keys, environment, the command line and its input."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Any

import click
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from replicad import config, configfile, configvalues, fernetkeys, keys, tokensfile
from replicad.cli import lines, options
from replicad.configreload import plan
from replicad.configvalues import Bad
from replicad.core.record import encode_headers
from replicad.errors import ConfigError, KeyFileError
from replicad.vkeys import parse_vkey
from tests.fuzz.registry import Target
from tests.fuzz.scratch import scratch
from tests.support.builders import signer

_LINE_CHARS = 5000  # of a fault: a config's longest value, and what is said of it


def _text(data: bytes) -> str:
    """As the environment and the command line come to Python: what is not UTF-8 is there all the same."""
    return data.decode("utf-8", "surrogateescape")


def _mapping() -> dict[str, Any]:
    nodes = [
        {"name": name, "address": f"127.0.0.1:{5000 + at}", "public_key": signer(name).verifier.line}
        for at, name in enumerate(("n1", "n2", "n3"))
    ]
    return {
        "cluster": "test",
        "node": "n1",
        "role": "master",
        "listen": "127.0.0.1:5000",
        "data_dir": "data",
        "key": "key",
        "nodes": nodes,
        "write_concern": {"default": 2, "timeout": "5s"},
        "limits": {"payload": "1MiB", "batch_records": 100},
        "timeouts": {"heartbeat": "500ms", "suspect": 2},
        "log": {"level": "info"},
        "reflection": False,
    }


def config_file(data: bytes) -> None:
    """A config is taken as a whole, or every fault is a line that a person can read."""
    path = scratch() / "config.yaml"
    path.write_bytes(data)
    try:
        loaded = configfile.load(path, env={})
    except ConfigError as exc:
        _check_faults(exc.faults)
        raise
    assert plan(loaded, loaded).config == loaded
    assert loaded.this_node in loaded.nodes


def _check_faults(faults: list[str]) -> None:
    assert faults
    for fault in faults:
        assert len(fault.splitlines()) == 1, fault
        assert len(fault) <= _LINE_CHARS
        fault.encode()


def tokens_file(data: bytes) -> None:
    """As a config. What is taken can be taken back, entry by entry."""
    path = scratch() / "tokens.yaml"
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        entries = tokensfile.load(path)
    except ConfigError as exc:
        _check_faults(exc.faults)
        raise
    for name in {entry.name for entry in entries}:
        tokensfile.remove(path, name)
    assert tokensfile.load(path) == ()


def environment(data: bytes) -> None:
    """Three variables, parted by line ends."""
    parts = _text(data).split("\n")
    env = dict(zip(("PORT", "MACHINE_ID", "AUTH_TOKEN"), parts, strict=False))
    taken = config.parse(_mapping(), env=env)
    assert taken.node in {node.name for node in taken.nodes}
    taken.auth_token.encode("ascii")
    assert configvalues.split_address(taken.listen) is not None


_KINDS = (
    configvalues.Name(""),
    configvalues.FilePath(""),
    configvalues.Address(""),
    configvalues.PublicKey(""),
    configvalues.Choice("", words=("text", "json")),
    configvalues.Quorum("", highest=3),
    configvalues.Count("", at_most=1000),
    configvalues.Size("", at_most=1 << 30),
    configvalues.Duration("", at_most=3600),
    configvalues.Flag(""),
)


def config_values(data: bytes) -> None:
    """The first byte picks the kind and whether YAML reads the rest; what is taken can be shown and read again."""
    kind, text = _KINDS[data[0] % len(_KINDS)], _text(data[1:])
    value: object = text
    if data[0] & 0x80:
        value = int(text)
    read = kind.read(value)
    if isinstance(read, Bad):
        f"{read.wrong} {read.remedy}".encode()
        raise ValueError(read.wrong)
    if isinstance(kind, configvalues.Size | configvalues.Duration):
        again = kind.read(kind.show(read))
        assert not isinstance(again, Bad)
        assert abs(float(again) - float(read)) < 1e-6
    if isinstance(kind, configvalues.Address):
        split = configvalues.split_address(text)
        assert split is not None
        assert configvalues.split_address(configvalues.join_address(*split)) == split
        configvalues.is_loopback(split[0])


def vkey(data: bytes) -> None:
    verifier = parse_vkey(_text(data))
    again = parse_vkey(verifier.line)
    assert (again, again.key_id) == (verifier, verifier.key_id)
    assert not verifier.verify(bytes(64), b"x")


def key_file(data: bytes) -> None:
    path = scratch() / "node.key"
    path.write_bytes(data)
    path.chmod(0o600)
    loaded = keys.load_signer(path, "n1", env={})
    assert loaded.verifier.verify(loaded.sign(b"x"), b"x")


def fernet_keys(data: bytes) -> None:
    """What is taken from the environment is taken from a file, a key a line, too."""
    found = fernetkeys.from_text(_text(data), "FERNET_KEY")
    path = scratch() / "fernet.keys"
    path.write_text("\n".join(found))
    path.chmod(0o600)
    assert fernetkeys.from_file(path, env={}) == found


_OPTIONS: tuple[Any, ...] = (
    options.Duration(),
    options.Size(),
    options.Offset(),
    options.Moment(),
    options.WriteConcern(),
    options.Header(),
)


def cli_options(data: bytes) -> None:
    """The first byte picks the kind of option."""
    if not data:
        return
    kind, text = _OPTIONS[data[0] % len(_OPTIONS)], _text(data[1:])
    value = kind.convert(text, None, None)
    if isinstance(value, tuple):
        try:
            encode_headers(dict([value]))
        except ValueError as exc:  # told of when the headers of a message are put together
            raise click.UsageError(str(exc)) from exc
    elif not isinstance(value, str):
        assert 0 <= value < 1 << 63


def cli_first_id(data: bytes) -> None:
    ids = lines.LineIds(_text(data)).of(1, 3)
    assert len(set(ids)) == 3
    assert all(lines.LineIds(each).first == each for each in ids)


def cli_lines(data: bytes) -> None:
    """The first byte is how much comes at a time; lines are what lies between line feeds, however it comes."""
    step, text = (data[0] % 64 + 1, data[1:]) if data else (1, b"")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

        async def read() -> list[bytes]:
            writing = asyncio.create_task(write())
            found = [line async for part in lines.read_lines(ours.fileno()) for line in part]
            await writing
            return found

        async def write() -> None:
            theirs.setblocking(False)
            for at in range(0, len(text), step):
                await asyncio.get_running_loop().sock_sendall(theirs, text[at : at + step])
            theirs.shutdown(socket.SHUT_WR)

        found = asyncio.run(read())
    assert found == text.removesuffix(b"\n").split(b"\n") if text else not found


# --- good inputs --------------------------------------------------------------------------------------------------


def _configs() -> Iterable[bytes]:
    mapping = _mapping()
    yield yaml.safe_dump(mapping, sort_keys=False).encode()
    yield yaml.safe_dump(mapping, default_flow_style=True).encode()


def _tokens() -> Iterable[bytes]:
    entry = {"name": "app", "roles": ["writer", "reader"], "hash": "sha256:" + "0f" * 32, "rate": 100}
    other = {"name": "b", "roles": ["reader"], "certificate": "b.example", "expires": "2031-01-01T00:00:00Z"}
    yield yaml.safe_dump({"principals": [entry, other]}, sort_keys=False).encode()
    yield b"# none yet\nprincipals: []\n"


def _values() -> Iterable[bytes]:
    values: Mapping[int, str] = dict(
        enumerate(("node-1", "/a/b", "[::1]:50052", signer("n1").verifier.line, "json", "majority", "17", "1MiB"))
    )
    for kind, value in values.items():
        yield bytes((kind,)) + value.encode()
    yield b"\x082.5s"
    yield bytes((0x80 + 2,)) + b"12"  # a Duration: 130 % 10 == 0 is Name; what kind it is does not matter
    yield b"\x02localhost:1"
    yield b"\x02127.0.0.1:65535"


def _options() -> Iterable[bytes]:
    values = ("500ms", "64MiB", "9223372036854775807", "2026-01-31T12:00:00Z", "majority", "k=v")
    for kind, value in enumerate(values):
        yield bytes((kind,)) + value.encode()


def _key_files() -> Iterable[bytes]:
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    yield private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    yield private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


TARGETS = (
    Target(
        "text.config_file",
        config_file,
        (ConfigError,),
        ("configfile.load", "configfile.read", "config.examine"),
        _configs,
    ),
    Target(
        "text.tokens_file",
        tokens_file,
        (ConfigError,),
        ("tokensfile.load", "access.parse", "configfile.parse_yaml"),
        _tokens,
    ),
    Target(
        "text.environment",
        environment,
        (ConfigError,),
        ("config.parse", "configrules.read_environment"),
        lambda: [b"50060\nn2\na-token-of-some-length"],
    ),
    Target("text.config_values", config_values, (ValueError, IndexError), ("configvalues.split_address",), _values),
    Target("text.vkey", vkey, (KeyFileError,), ("vkeys.parse_vkey",), lambda: [signer("n1").verifier.line.encode()]),
    Target("text.key_file", key_file, (KeyFileError,), ("keys.load_signer",), _key_files),
    Target(
        "text.fernet_keys",
        fernet_keys,
        (KeyFileError,),
        ("fernetkeys.from_text", "files.read_with_stat"),
        lambda: [b",".join([b"A" * 43 + b"=", b"B" * 42 + b"A="])],
    ),
    Target("text.cli_options", cli_options, (click.UsageError,), (), _options),
    Target(
        "text.cli_first_id",
        cli_first_id,
        (click.UsageError,),
        (),
        lambda: [b"018f2d3c-0000-7000-8000-ffffffffffff"],
    ),
    Target(
        "text.cli_lines",
        cli_lines,
        (),
        ("cli.lines.read_lines", "cli.lines.read_chunks"),
        lambda: [b"\x07one\ntwo\n\nthree", b"\x00a\n", b"\x3f\n\n"],
    ),
)

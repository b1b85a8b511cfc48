"""End-to-end encryption against real nodes: what is on disk and on the wire, who can read it, and what a retry is."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from replicad import fernetkeys
from replicad.client import AsyncClient, Client, Encryption, IdConflict, NewMessage, Record
from replicad.client.encryption import Sealed
from replicad.core.record import decode_headers
from replicad.dev import DevCluster
from replicad.errors import Applied, BadRequest, TooLarge
from tests.support.commandline import ROOT, CommandLine, lines_from
from tests.support.nodes import TOKEN, all_level
from tests.support.rawlog import RawLog, new_id

OLD_KEY, NEW_KEY = fernetkeys.generate(), fernetkeys.generate()
OLD, NEW = Encryption.from_keys([OLD_KEY]), Encryption.from_keys([NEW_KEY])
ROTATED = Encryption.from_keys([NEW_KEY, OLD_KEY])

SECRET = b"the cargo leaves at dawn, berth 17"
CLEAR = b"everybody may know this: it rains"

POST_FROM_A_PROCESS = """
import sys
from replicad.client import Client, Encryption
with Client(encryption=Encryption.from_environment()) as client:
    posted = client.post(sys.argv[2], id=sys.argv[1])
    print(posted.offset, posted.duplicate)
"""

Logs = dict[str, RawLog]


def client_of(cluster: DevCluster, encryption: Encryption | None, address: str | None = None) -> AsyncClient:
    addresses = [address] if address else [node.address for node in cluster.nodes]
    return AsyncClient(addresses, token=TOKEN, timeout_s=20, encryption=encryption)


async def record_at(cluster: DevCluster, offset: int, encryption: Encryption | None) -> Record:
    async with client_of(cluster, encryption) as client:
        [record] = [each async for each in client.list(offset, limit=1, min_offset=offset)]
        return record


@asynccontextmanager
async def tapped(address: str) -> AsyncIterator[tuple[str, bytearray]]:
    """A way to that address through which every byte is seen."""
    seen = bytearray()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                seen.extend(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = address.rpartition(":")
        node_reader, node_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, node_writer), copy(node_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()


# --- what nodes and the network see -----------------------------------------------------------------------------------


async def test_neither_the_wire_nor_any_disk_holds_the_plaintext(cluster: DevCluster, logs: Logs) -> None:
    async with tapped(cluster.node("node-1").address) as (address, seen):
        async with client_of(cluster, NEW, address) as client:
            secret = await client.post(SECRET, headers={"kind": "cargo"}, write_concern=3)
            [opened] = [each async for each in client.list(secret.offset, limit=1)]
        async with client_of(cluster, None, address) as client:
            await client.post(CLEAR, write_concern=3)
    assert (opened.payload, opened.headers, opened.decrypted) == (SECRET, {"kind": "cargo"}, True)
    await all_level(logs)
    assert CLEAR in seen
    assert SECRET not in seen
    key = base64.urlsafe_b64decode(NEW_KEY)
    for node in cluster.nodes:
        disk = b"".join(path.read_bytes() for path in sorted(node.data_dir.iterdir()) if path.is_file())
        assert CLEAR in disk
        assert b"cargo" in disk, "headers stay in the clear"
        assert SECRET not in disk
        for secret_bytes in (NEW_KEY.encode(), key):
            assert secret_bytes not in disk
            assert secret_bytes not in seen
            assert secret_bytes not in node.log_file.read_bytes()


async def test_without_a_key_that_fits_a_record_is_shown_as_it_stands(cluster: DevCluster, logs: Logs) -> None:
    async with client_of(cluster, OLD) as client:
        posted = await client.post(SECRET, headers={"kind": "cargo"})
    for encryption in (None, NEW):
        record = await record_at(cluster, posted.offset, encryption)
        assert (record.encrypted, record.decrypted, record.text) == (True, False, None)
        assert record.headers["kind"] == "cargo"
        stored = Sealed(record.payload, b"")
        assert stored.payload.startswith(b"gAAAA")
    for encryption in (OLD, ROTATED):
        record = await record_at(cluster, posted.offset, encryption)
        assert (record.encrypted, record.decrypted, record.payload) == (True, True, SECRET)


async def test_a_log_of_clear_and_encrypted_records_is_listed_and_tailed_in_order(
    cluster: DevCluster, logs: Logs
) -> None:
    async with client_of(cluster, OLD) as old, client_of(cluster, NEW) as new, client_of(cluster, None) as clear:
        first = (await clear.post("0")).offset
        for number in range(1, 9):
            await (old, new, clear)[number % 3].post(str(number))
    async with client_of(cluster, ROTATED) as client:
        records = [record async for record in client.list(first)]
        assert [record.text for record in records] == [str(number) for number in range(9)]
        assert [record.encrypted for record in records] == [False, True, False, True, True, False, True, True, False]
        tailed = []
        async for record in client.tail(first):
            tailed.append(record)
            if len(tailed) == 9:
                break
        assert tailed == records


# --- retries and conflicts --------------------------------------------------------------------------------------------


async def test_a_retry_from_a_fresh_process_is_a_duplicate_and_what_is_kept_is_the_first(
    cluster: DevCluster, logs: Logs
) -> None:
    message_id = new_id()
    async with client_of(cluster, NEW) as client:
        original = await client.post(SECRET, id=message_id)
    before = await record_at(cluster, original.offset, None)

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", POST_FROM_A_PROCESS, message_id, SECRET.decode()],
        env=CommandLine.of(cluster).env | {"FERNET_KEY": NEW_KEY},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [str(original.offset), "True"]
    assert await record_at(cluster, original.offset, None) == before


async def test_the_node_tells_a_retry_by_its_tag_also_after_a_restart_when_it_must_ask_its_disk(
    cluster: DevCluster, logs: Logs
) -> None:
    message_id = new_id()
    first, again = NEW.seal(message_id, SECRET), NEW.seal(message_id, SECRET)
    other = NEW.seal(message_id, SECRET[::-1])
    assert first.payload != again.payload
    posted = await logs["node-1"].post(first.payload, id=message_id, headers=decode_headers(first.headers))
    for _ in range(2):
        answer = await logs["node-1"].post(again.payload, id=message_id, headers=decode_headers(again.headers))
        assert (answer.offset, answer.duplicate) == (posted.offset, True)
        for wrong in (other, Sealed(SECRET, b"")):
            with pytest.raises(IdConflict) as caught:
                await logs["node-1"].post(wrong.payload, id=message_id, headers=decode_headers(wrong.headers))
            assert (caught.value.offset, caught.value.applied) == (posted.offset, Applied.NO)
        await asyncio.to_thread(cluster.kill, "node-1")
        await asyncio.to_thread(cluster.start, "node-1")


async def test_another_message_under_an_encrypted_ones_id_is_a_conflict(cluster: DevCluster, logs: Logs) -> None:
    message_id = new_id()
    async with client_of(cluster, NEW) as client, client_of(cluster, None) as clear:
        posted = await client.post(SECRET, id=message_id)
        for attempt in (
            client.post(SECRET + b"!", id=message_id),
            client.post(SECRET, id=message_id, headers={"kind": "cargo"}),
            clear.post(SECRET, id=message_id),
        ):
            with pytest.raises(IdConflict) as caught:
                await attempt
            assert (caught.value.offset, caught.value.applied) == (posted.offset, Applied.NO)


async def test_a_retry_across_a_change_of_keys_is_a_duplicate_in_either_direction(
    cluster: DevCluster, logs: Logs
) -> None:
    async with client_of(cluster, OLD) as old, client_of(cluster, ROTATED) as rotated:
        original = await old.post(SECRET, headers={"kind": "cargo"})
        again = await rotated.post(SECRET, id=original.id, headers={"kind": "cargo"}, write_concern=3)
        assert (again.offset, again.duplicate, again.nodes) == (original.offset, True, 3)
        with pytest.raises(IdConflict) as caught:
            await rotated.post(SECRET, id=original.id)
        assert caught.value.applied is Applied.NO

        newer = await rotated.post(SECRET)
        with pytest.raises(IdConflict) as caught:  # who does not have the new key yet cannot tell, and says so
            await old.post(SECRET, id=newer.id)
        assert (caught.value.offset, caught.value.applied) == (newer.offset, Applied.UNKNOWN)
        async with client_of(cluster, Encryption.from_keys([OLD_KEY, NEW_KEY])) as both:
            assert (await both.post(SECRET, id=newer.id)).duplicate


async def test_many_at_once_survive_a_retry_and_a_change_of_keys(cluster: DevCluster, logs: Logs) -> None:
    messages = [NewMessage(b"number %d" % n, new_id(), {"n": str(n)} if n % 2 else None) for n in range(500)]
    async with client_of(cluster, OLD) as old, client_of(cluster, ROTATED) as rotated:
        first = [each async for results in old.post_many(messages) for each in results]
        again = [each async for results in old.post_many(messages) for each in results]
        assert [each.offset for each in again] == [each.offset for each in first]
        assert all(each.duplicate for each in again)

        mixed = [*messages[:300], NewMessage(b"one more", new_id()), *messages[300:]]
        later = [each async for results in rotated.post_many(mixed) for each in results]
        assert [each.offset for each in later if each.id != mixed[300].id] == [each.offset for each in first]

        start = min(each.offset for each in first)
        listed = {each.offset: each async for each in rotated.list(start, min_offset=later[300].offset)}
        assert [listed[each.offset].payload for each in later] == [message.payload for message in mixed]
        assert all(record.decrypted for record in listed.values())

        with pytest.raises(IdConflict, match="the first 0 messages are confirmed"):
            async for _ in rotated.post_many([*messages[:5], messages[5]._replace(payload=b"other")]):
                pass


# --- limits and refusals ----------------------------------------------------------------------------------------------


async def test_a_payload_that_only_its_ciphertext_makes_too_large_is_refused_with_both_sizes(
    cluster: DevCluster, logs: Logs
) -> None:
    async with client_of(cluster, NEW) as client, client_of(cluster, None) as clear:
        await clear.post(bytes(900_000))
        with pytest.raises(TooLarge, match="encrypted, its 900000 bytes are 1200100") as caught:
            await client.post(bytes(900_000))
        assert caught.value.applied is Applied.NO
        large = await client.post(bytes(700_000))
        [record] = [each async for each in client.list(large.offset, limit=1)]
        assert record.payload == bytes(700_000)


async def test_a_reserved_header_is_refused_by_library_and_node(cluster: DevCluster, logs: Logs) -> None:
    async with client_of(cluster, NEW) as client:
        with pytest.raises(BadRequest, match="rename it"):
            await client.post("x", headers={"replicad:encrypted": "fernet:" + "a" * 43})
    for headers, words in (({"replicad:x": "1"}, "rename it"), ({"replicad:encrypted": "1"}, "content tag")):
        with pytest.raises(BadRequest, match=words):
            await logs["node-1"].post(b"x", headers=headers)


async def test_a_record_whose_ciphertext_was_tampered_with_is_shown_and_the_list_goes_on(
    cluster: DevCluster, logs: Logs
) -> None:
    sealed = NEW.seal("tampered", SECRET)
    broken = sealed.payload[:-8] + b"AAAAAAA="
    posted = await logs["node-1"].post(broken, id="tampered", headers=decode_headers(sealed.headers))
    async with client_of(cluster, NEW) as client:
        await client.post("after it")
        first, second = [record async for record in client.list(posted.offset)]
    assert (first.payload, first.encrypted, first.decrypted) == (broken, True, False)
    assert second.text == "after it"


# --- the blocking client ----------------------------------------------------------------------------------------------


def test_the_blocking_client_encrypts_and_decrypts_too(cluster: DevCluster) -> None:
    for name in cluster.running():
        cluster.send_signal(name, signal.SIGCONT)
    addresses = [node.address for node in cluster.nodes]
    with Client(addresses, token=TOKEN, encryption=NEW) as client, Client(addresses, token=TOKEN) as keyless:
        one = client.post(SECRET, write_concern="all")
        assert client.post(SECRET, id=one.id).duplicate
        many = [each for results in client.post_many([b"a", b"b", b"c"], write_concern="all") for each in results]
        assert [each.offset for each in many] == [one.offset + n for n in (1, 2, 3)]
        wanted = [SECRET, b"a", b"b", b"c"]
        assert [record.payload for record in client.list(one.offset, limit=4)] == wanted
        tail = client.tail(one.offset)
        assert [next(tail).payload for _ in range(4)] == wanted
        tail.close()  # type: ignore[attr-defined]
        stored = list(keyless.list(one.offset, limit=4))
        assert all(record.encrypted and record.payload not in wanted for record in stored)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(cluster: DevCluster, tmp_path: Path) -> CommandLine:
    for name in cluster.running():
        cluster.send_signal(name, signal.SIGCONT)
    made = CommandLine.of(cluster)
    made.cwd = tmp_path
    return made


def test_from_a_new_key_to_a_decrypted_list_by_the_command_line_alone(cli: CommandLine, tmp_path: Path) -> None:
    cli.good("keys", "generate-fernet", "--out", "team.key")
    secret = SECRET.decode()
    [posted] = cli.objects("post", "--encrypt", "--fernet-key-file", "team.key", "--header", "kind=cargo", secret)
    at = ("--from", str(posted["offset"]), "--limit", "1")

    without = cli.good("list", *at).out.rstrip("\n").split("\t")
    assert without[6].startswith("(encrypted) gAAAA")
    assert without[5].startswith("kind=cargo,replicad:encrypted=fernet:")
    [plain] = cli.objects("list", *at)
    assert (plain["encrypted"], plain["decrypted"], "text" in plain) == (True, False, False)
    assert base64.b64decode(plain["payload"]).startswith(b"gAAAA")

    by_option = cli.good("list", *at, "--fernet-key-file", "team.key").out
    by_file = cli.but(REPLICAD_FERNET_KEY_FILE="team.key").good("list", *at).out
    key = (tmp_path / "team.key").read_text().strip()
    keys = f"{NEW_KEY},{key}"
    by_variable = cli.but(FERNET_KEY=keys).good("list", *at).out
    assert by_option == by_file == by_variable
    assert by_option.rstrip("\n").split("\t")[5:] == ["kind=cargo", secret]
    [opened] = cli.but(FERNET_KEY=keys).objects("list", *at)
    assert (opened["encrypted"], opened["decrypted"], opened["text"]) == (True, True, secret)

    with cli.but(FERNET_KEY=key).started("tail", "--from", str(posted["offset"])) as process:
        [line] = lines_from(process.stdout, 1)
        assert line.split("\t")[6] == secret
        assert key.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()

    again = cli.but(FERNET_KEY=key).good("post", "--encrypt", "--id", posted["id"], "--header", "kind=cargo", secret)
    assert "duplicate" in again.out
    error = cli.but(FERNET_KEY=NEW_KEY).fails(6, "post", "--encrypt", "--id", posted["id"], secret)
    assert (error["name"], error["applied"]) == ("ID_CONFLICT", "unknown")
    assert error["remedy"].startswith("give every key that was in use")
    error = cli.but(FERNET_KEY=key).fails(6, "post", "--encrypt", "--id", posted["id"], "other")
    assert (error["name"], error["applied"], error["offset"]) == ("ID_CONFLICT", "no", posted["offset"])


def test_lines_are_encrypted_one_by_one_and_a_run_is_resumed_after_a_change_of_keys(cli: CommandLine) -> None:
    lines = [b"line %d" % number for number in range(10_000)]
    stdin = b"\n".join(lines) + b"\n"
    first_id = "01a207f3-5112-77b6-880f-0000000000fe"
    arguments = ("post", "--lines", "--encrypt", "--id", first_id)
    with_old, rotated = cli.but(FERNET_KEY=OLD_KEY), cli.but(FERNET_KEY=f"{NEW_KEY},{OLD_KEY}")
    first = with_old.objects(*arguments, stdin=stdin)
    assert not any(posted["duplicate"] for posted in first)
    few = b"\n".join(lines[:200]) + b"\n"
    again = [*with_old.objects(*arguments, stdin=stdin), *rotated.objects(*arguments, stdin=few)]
    assert all(posted["duplicate"] for posted in again)
    assert [posted["offset"] for posted in again] == [posted["offset"] for posted in [*first, *first[:200]]]

    start = min(posted["offset"] for posted in first)
    texts = {record["offset"]: record["text"].encode() for record in rotated.objects("list", "--from", str(start))}
    assert [texts[posted["offset"]] for posted in first] == lines
    assert cli.objects("list", "--from", str(start), "--limit", "1")[0]["decrypted"] is False

    new_alone = cli.but(FERNET_KEY=NEW_KEY).run(*arguments, "--output", "json", stdin=few)
    assert (new_alone.error["name"], new_alone.error["line"], new_alone.error["applied"]) == (
        "ID_CONFLICT",
        1,
        "unknown",
    )
    assert "no key here decrypts it" in new_alone.error["message"]
    assert f"--id {first_id}" in new_alone.error["remedy"]

    lines[150] = b"changed"
    ran = rotated.run(*arguments, "--output", "json", stdin=b"\n".join(lines[:200]))
    assert (ran.code, len(ran.objects)) == (6, 150)
    assert (ran.error["name"], ran.error["line"], ran.error["applied"]) == ("ID_CONFLICT", 151, "no")


def test_a_missing_or_malformed_key_stops_the_command_before_anything_is_posted(
    cli: CommandLine, tmp_path: Path
) -> None:
    assert "FERNET_KEY" in cli.fails(2, "post", "--encrypt", "x")["message"]
    (tmp_path / "wide.key").write_text(NEW_KEY)
    (tmp_path / "wide.key").chmod(0o644)
    ran = cli.run("post", "--encrypt", "--fernet-key-file", "wide.key", "x")
    assert (ran.code, "chmod 600 wide.key" in ran.err) == (3, True)
    assert "add it" in cli.fails(2, "post", "--fernet-key-file", "wide.key", "x")["message"]
    for command in (("post", "--encrypt", "x"), ("list",), ("tail",)):
        error = cli.but(FERNET_KEY=f"{NEW_KEY},{OLD_KEY[:-4]}").fails(3, *command)
        assert "FERNET_KEY: key 2 of 2" in error["message"]
        assert "keys generate-fernet" in error["message"]
        assert OLD_KEY[:8] not in json.dumps(error)

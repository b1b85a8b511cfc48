"""Who may do what, against real servers: every method of every service, by everyone there is; and who is shut out."""

from __future__ import annotations

import asyncio
import pkgutil
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc import aio

from replicad import tokensfile
from replicad.access import RULES, Principal, Role, hash_of, new_token
from replicad.client import AsyncClient
from replicad.dev import DevCluster
from replicad.errors import ExitCode, Forbidden, NotFound, RateLimited, Unauthorized
from replicad.wire import v1
from replicad.wire.v1 import log_pb2
from tests.support.commandline import CommandLine
from tests.support.daemon import Daemon, run
from tests.support.forwarder import coming_from
from tests.support.nodes import edit, running_cluster
from tests.support.rawlog import CALL_S, OPTIONS, RawLog, RawPostStream, fault_of, new_id
from tests.support.waiting import eventually

HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
#: Every method that the generated code describes: one that is new is tried with the others.
METHODS = sorted(
    f"/{service.full_name}/{method.name}"
    for module in pkgutil.iter_modules(v1.__path__)
    if module.name.endswith("_pb2")
    for service in import_module(f"{v1.__name__}.{module.name}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
TOKENS = {role.value: new_token() for role in Role} | {"expired": new_token(), "revoked": new_token()}


def principal(name: str, *roles: Role, **more: Any) -> Principal:
    return Principal(name, frozenset(roles), hash=hash_of(TOKENS.get(name) or more.pop("token")), **more)


def entries() -> list[Principal]:
    """One for each role, and one with all roles that was valid once."""
    made = [principal(role.value, role) for role in Role]
    return [*made, principal("expired", *Role, expires_at=float(int(time.time()) - 60))]


@asynccontextmanager
async def one_node(folder: Path, *more: Principal, **settings: Any) -> AsyncIterator[tuple[Daemon, str, Path]]:
    """A master alone with a tokens file: the daemon, its address, the file."""
    with running_cluster(folder / "cluster", nodes=1, start=()) as cluster:
        tokens = folder / "tokens.yaml"
        for entry in [*entries(), *more]:
            tokensfile.add(tokens, entry)
        edit(cluster.master, tokens_file=str(tokens), **settings)
        with Daemon(cluster.master.config_file) as daemon:
            await asyncio.to_thread(daemon.wait_ready)
            yield daemon, cluster.master.address, tokens
            await asyncio.to_thread(daemon.terminate)
            assert daemon.process.returncode == 0
            assert not any(token in daemon.log for token in TOKENS.values())
            assert " exception=" not in daemon.log


async def outcome(address: str, path: str, token: str) -> tuple[grpc.StatusCode, Any]:
    """How a call that sends one empty message ends, and its error's own word; OK as soon as anything comes."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    async with aio.insecure_channel(address, options=OPTIONS) as channel:
        # On the wire a lone request is a stream of one; as a stream, grpc.aio may lose the status (grpc#36066).
        ask: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
        call = ask(b"", metadata=metadata, timeout=CALL_S)
        try:
            await call.read()
        except aio.AioRpcError as exc:
            return exc.code(), exc
        return grpc.StatusCode.OK, None


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """A master and a worker with the same tokens file, reflection on."""
    folder = tmp_path_factory.mktemp("table")
    tokens = folder / "tokens.yaml"
    for entry in [*entries(), principal("revoked", *Role)]:
        tokensfile.add(tokens, entry)
    assert tokensfile.remove(tokens, "revoked") == 1
    settings = {"tokens_file": str(tokens), "limits": {"auth_failures": 10_000}}
    with running_cluster(folder / "cluster", nodes=2, settings=settings) as made:
        yield made


def test_every_method_of_every_service_has_a_rule_and_every_rule_a_method() -> None:
    assert set(METHODS) == set(RULES)
    assert sum(path.startswith("/replicad.wire.v1.") for path in METHODS) >= 7


@pytest.mark.parametrize("who", ["", "never-was-one", *TOKENS])
@pytest.mark.parametrize("path", METHODS)
async def test_each_method_lets_in_whom_its_rule_names_and_nobody_else(table: DevCluster, path: str, who: str) -> None:
    rule = RULES[path]
    for node in table.nodes:
        code, error = await outcome(node.address, path, TOKENS.get(who, who))
        if rule is None or who in rule:
            assert code not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            assert code is not grpc.StatusCode.UNIMPLEMENTED
        elif who in list(Role):
            fault = fault_of(error)
            assert isinstance(fault, Forbidden), (code, error)
            assert (code, fault.code) == (grpc.StatusCode.PERMISSION_DENIED, 403)
            assert f"the role {' or '.join(rule)}" in fault.message
        else:
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert isinstance(fault_of(error), Unauthorized)


@pytest.mark.parametrize("path", sorted(path for path, rule in RULES.items() if rule))
async def test_what_is_wrong_with_a_token_can_not_be_told_from_the_answer(table: DevCluster, path: str) -> None:
    answers = set()
    for token in ("", "wrong", TOKENS["expired"], TOKENS["revoked"], TOKENS["reader"][:-1]):
        code, error = await outcome(table.master.address, path, token)
        answers.add((code, error.details(), tuple(sorted(error.trailing_metadata()))))
    assert len(answers) == 1


async def test_a_strangers_request_is_not_even_read(table: DevCluster) -> None:
    """It is refused at its headers: before it has sent what it could fill memory with."""
    for path, rule in RULES.items():
        if rule is None:
            continue
        async with aio.insecure_channel(table.master.address, options=OPTIONS) as channel:
            both: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
            call = both(timeout=CALL_S)  # and nothing is written
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, path


async def open_master(table: DevCluster) -> str:
    """The address of the node that is the master now: admins were let in to move it."""

    async def look() -> str | None:
        for node in table.nodes:
            async with RawLog(node.address, token=TOKENS["reader"]) as log:
                status = await log.status()
                if (status.role, status.state) == ("master", "open"):
                    return node.address
        return None

    return await eventually(look, within_s=20, what="a node is the master")


async def test_the_author_is_the_principal_whatever_a_client_says(table: DevCluster) -> None:
    address = await open_master(table)
    async with RawLog(address, token=TOKENS["writer"]) as log:
        log.metadata = (*log.metadata, ("author", "admin"), ("x-author", "admin"), ("user-agent", "admin"))
        posted = await log.post(b"who am I", headers={"author": "admin"})
    async with RawLog(address, token=TOKENS["reader"]) as log:
        [record] = (await log.list(posted.offset, limit=1)).records
    assert record.author == "writer"


async def test_revoking_ends_open_streams_and_a_new_token_is_taken_by_a_reload(tmp_path: Path) -> None:
    async with one_node(tmp_path) as (daemon, address, tokens):
        cli = CommandLine({})
        [made] = cli.objects(
            "tokens", "create", "shop", "--role", "writer", "--role", "reader", "--expires", "1h", "--file", str(tokens)
        )
        async with RawLog(address, token=made["token"]) as shop, RawLog(address, token=TOKENS["reader"]) as reader:
            with pytest.raises(Unauthorized):
                await shop.post(b"not yet")
            await asyncio.to_thread(daemon.reload)
            await shop.post(b"now")
            stream = shop.post_stream()
            await stream.send(["a"])
            assert (await stream.result()).error is None
            tails = []
            for log in (shop, reader):
                tail: aio.UnaryStreamMultiCallable[bytes, bytes] = log.channel.unary_stream(
                    "/replicad.wire.v1.Log/Tail"
                )
                tails.append(tail(b"", metadata=log.metadata))
                await tails[-1].read()

            listed = cli.objects("tokens", "list", "--file", str(tokens))
            assert [each["name"] for each in listed] == [*Role, "expired", "shop"]
            assert made["token"] not in tokens.read_text()
            assert cli.objects("tokens", "revoke", "shop", "--all", "--file", str(tokens)) == [
                {"name": "shop", "revoked": 1}
            ]
            await shop.post(b"still, until the reload")
            await asyncio.to_thread(daemon.reload)
            with pytest.raises(Unauthorized):
                await to_its_end(stream)
            assert await code_at_end(tails[0]) is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(Unauthorized):
                await shop.post(b"no more")
            assert not tails[1].done()
            tails[1].cancel()


async def test_a_request_that_comes_after_its_token_was_withdrawn_is_refused(tmp_path: Path) -> None:
    both = principal("both", Role.WRITER, Role.READER, token="a-token-of-both")
    async with (
        one_node(tmp_path, both, limits={"principal_calls": 1}) as (daemon, address, tokens),
        RawLog(address, token="a-token-of-both") as log,
    ):
        post: aio.StreamStreamMultiCallable[bytes, bytes] = log.channel.stream_stream("/replicad.wire.v1.Log/Post")
        call = post(metadata=log.metadata)
        await call.wait_for_connection()  # or a status takes the one place before it

        async def is_in() -> bool:
            try:
                await log.status()
            except RateLimited:
                return True
            return False

        await eventually(is_in, within_s=10, what="the post, which has sent no request yet, has its caller's one place")
        tokensfile.remove(tokens, "both")
        await asyncio.to_thread(daemon.reload)
        await call.write(log_pb2.PostRequest(id="late", payload=b"late").SerializeToString())
        assert await code_at_end(call) is grpc.StatusCode.UNAUTHENTICATED
        async with RawLog(address, token=TOKENS["reader"]) as reader:
            with pytest.raises(NotFound):
                await reader.outcome("late")


async def test_a_stream_ends_when_its_token_does(tmp_path: Path) -> None:
    ends_at = float(int(time.time()) + 4)
    short = principal("short", Role.READER, token="short-lived-token", expires_at=ends_at)
    async with one_node(tmp_path, short) as (_, address, _), RawLog(address, token="short-lived-token") as log:
        tail: aio.UnaryStreamMultiCallable[bytes, bytes] = log.channel.unary_stream("/replicad.wire.v1.Log/Tail")
        call = tail(b"", metadata=log.metadata)
        await call.read()
        assert await code_at_end(call) is grpc.StatusCode.UNAUTHENTICATED
        assert ends_at <= time.time() < ends_at + 3


async def test_a_faulty_tokens_file_is_told_whole_and_the_old_one_goes_on(tmp_path: Path) -> None:
    async with one_node(tmp_path) as (daemon, address, tokens):
        good = tokens.read_text()
        tokens.write_text(good + "  - name: x\n    roles: [boss]\n  - nam: y\n    roles: []\n    hash: sha256:12\n")
        await asyncio.to_thread(daemon.reload)
        faults = [line for line in daemon.log.splitlines() if " event=reload_refused " in line]
        assert len(faults) == 6, faults
        tokens.write_text("principals: []\n")
        tokens.chmod(0o666)
        await asyncio.to_thread(daemon.reload)
        assert "chmod 640" in daemon.log
        async with RawLog(address, token=TOKENS["writer"]) as log:
            await log.post(b"as before")


async def test_a_config_is_checked_with_its_tokens_file_and_does_not_start_with_a_faulty_one(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "cluster", nodes=1, start=()) as cluster:
        config = cluster.master.config_file
        edit(cluster.master, tokens_file="tokens.yaml")
        for arguments in (["--check-config"], []):
            code, _, told = await asyncio.to_thread(run, "--config", str(config), *arguments)
            assert code == ExitCode.CONFIG
            assert (
                f": tokens_file: {config.parent}/tokens.yaml: no such tokens file; make it: replicad-cli tokens create"
                in told
            )
        tokensfile.add(config.parent / "tokens.yaml", entries()[0])
        assert (await asyncio.to_thread(run, "--config", str(config), "--check-config"))[0] == 0


async def test_guessing_is_slowed_and_logged_and_a_good_token_is_not_held_up(tmp_path: Path) -> None:
    settings = {"limits": {"auth_failures": 3}, "timeouts": {"auth_delay": "1s"}}
    async with one_node(tmp_path, **settings) as (daemon, address, _):
        began = time.monotonic()
        for _ in range(3):
            await outcome(address, "/replicad.wire.v1.Log/Status", "guess")
        assert time.monotonic() - began < 1.0
        waits = []
        for _ in range(6):
            at = time.monotonic()
            await outcome(address, "/replicad.wire.v1.Log/Status", "guess")
            waits.append(time.monotonic() - at)
        for wait_s, least_s in zip(waits, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
            assert least_s <= wait_s < least_s + 1.0

        many = [asyncio.create_task(outcome(address, "/replicad.wire.v1.Log/Status", "guess")) for _ in range(50)]
        async with RawLog(address, token=TOKENS["writer"]) as log:
            at = time.monotonic()
            for _ in range(10):
                await log.post(b"mine is good")
            assert not all(task.done() for task in many)
        codes = {code for code, _ in await asyncio.gather(*many)}
        assert codes == {grpc.StatusCode.UNAUTHENTICATED}
        told = [line for line in daemon.log.splitlines() if " event=unauthorized " in line]
        assert 1 <= len(told) <= 12, "thinned"
        assert all("reason=wrong" in line and "peer=127.0.0.1" in line for line in told)
        assert "guess" not in daemon.log


async def test_guesses_in_parallel_are_refused_unread_beyond_a_number_but_for_connections_with_a_good_token(
    tmp_path: Path,
) -> None:
    settings = {"limits": {"auth_failures": 1}, "timeouts": {"auth_delay": "3s"}}
    async with one_node(tmp_path, **settings) as (_, address, _):
        for _ in range(7):
            await outcome(address, "/replicad.wire.v1.Log/Status", "guess")
        async with RawLog(address, token=TOKENS["writer"]) as log:
            await log.post(b"known before")
            tasks = [asyncio.create_task(outcome(address, "/replicad.wire.v1.Log/Status", "guess")) for _ in range(90)]
            ended = await asyncio.gather(*tasks)
            refused = [fault_of(error) for code, error in ended if code is grpc.StatusCode.RESOURCE_EXHAUSTED]
            assert 1 <= len(refused) <= 26
            assert all(isinstance(each, RateLimited) and each.retry_after_s for each in refused)
            await log.post(b"known still")


async def test_a_rate_is_told_with_when_to_come_again_and_the_client_library_waits_within_its_timeout(
    tmp_path: Path,
) -> None:
    slow = principal("slow", Role.WRITER, token="slow-token-0", rate=20)
    async with one_node(tmp_path, slow, limits={"rate_burst": "500ms"}) as (_, address, _):
        async with RawLog(address, token="slow-token-0") as log, log.post_stream() as stream:
            await stream.send([new_id() for _ in range(20)])
            assert (await stream.result()).error is None  # one frame beyond the burst is let through, and owed
            await stream.send([new_id()])
            error = (await stream.result()).error
            assert isinstance(error, RateLimited)
            assert error.retry_after_s is not None
            assert 0.3 <= error.retry_after_s <= 0.6  # 11 messages at 20 a second, less what passed

            other = RawLog(address, token=TOKENS["writer"])
            async with other:
                await other.post(b"another principal is not held up")

        async with AsyncClient(address, token="slow-token-0", timeout_s=30) as client:
            began = time.monotonic()
            for _ in range(4):
                await asyncio.gather(*(client.post(b"x") for _ in range(10)))
            assert time.monotonic() - began >= (40 - 10) / 20 - 0.3
            assert sum([len(posted) async for posted in client.post_many([b"y"] * 30, timeout_s=30)]) == 30
            with pytest.raises(RateLimited):
                await client.post(b"the wait is longer than this caller's patience", timeout_s=0.2)


async def test_a_rate_for_all_together_and_by_bytes_holds_too(tmp_path: Path) -> None:
    limits = {"total_bytes": "10KiB", "rate_burst": "1s"}
    async with one_node(tmp_path, limits=limits) as (_, address, _), RawLog(address, token=TOKENS["writer"]) as log:
        await log.post(bytes(9 << 10))
        with pytest.raises(RateLimited, match="bytes a second of all"):
            await log.post(bytes(9 << 10))


async def test_calls_of_one_principal_are_counted_over_all_its_connections(tmp_path: Path) -> None:
    async with one_node(tmp_path, limits={"principal_calls": 2}) as (_, address, _):
        logs = [RawLog(address, token=TOKENS["writer"]) for _ in range(3)]
        streams = []
        for log in logs[:2]:
            streams.append(log.post_stream())
            await streams[-1].send([new_id()])
            assert (await streams[-1].result()).error is None
        with pytest.raises(RateLimited, match=r"limits\.principal_calls"):
            await logs[2].post(b"a third")
        async with RawLog(address, token=TOKENS["reader"]) as reader:
            await reader.status()
        for log in logs:
            await log.channel.close()


async def test_idle_streams_and_half_requests_and_readers_that_do_not_read_are_ended(tmp_path: Path) -> None:
    timeouts = {"idle_stream": "500ms", "request": "500ms", "stalled": "1s"}
    async with one_node(tmp_path, timeouts=timeouts, limits={"read": "1MiB"}) as (daemon, address, _):
        async with RawLog(address, token=TOKENS["writer"]) as log:
            idle = log.post_stream()
            await idle.send([new_id()])
            assert (await idle.result()).error is None
            async with asyncio.timeout(CALL_S):
                assert await idle.call.code() is grpc.StatusCode.UNAVAILABLE

            both: aio.StreamStreamMultiCallable[bytes, bytes] = log.channel.stream_stream("/replicad.wire.v1.Log/Post")
            half = both(metadata=log.metadata)
            async with asyncio.timeout(CALL_S):
                assert await half.code() is grpc.StatusCode.INVALID_ARGUMENT
            for _ in range(20):
                await log.post(bytes(1 << 20))

        async with RawLog(address, token=TOKENS["reader"]) as reader:
            tail: aio.UnaryStreamMultiCallable[bytes, bytes] = reader.channel.unary_stream("/replicad.wire.v1.Log/Tail")
            call = tail(log_pb2.TailRequest().SerializeToString(), metadata=reader.metadata)
            await call.read()
            await eventually(lambda: _has(daemon, " event=stalled "), within_s=20, what="it is cut off")
            with pytest.raises(aio.AioRpcError):
                await read_all(call)


async def test_readers_that_do_not_read_take_memory_of_their_principals_room_and_hold_up_nobody_else(
    tmp_path: Path,
) -> None:
    bystander = principal("bystander", Role.READER, token="bystander-token")
    async with one_node(tmp_path, bystander) as (daemon, address, _):
        async with RawLog(address, token=TOKENS["writer"]) as log:
            for _ in range(20):
                await log.post(bytes(1 << 20))
        before = memory_of(daemon)
        async with RawLog(address, token=TOKENS["reader"]) as reader:
            lists: aio.UnaryStreamMultiCallable[bytes, bytes]
            lists = reader.channel.unary_stream("/replicad.wire.v1.Log/List")
            calls = [lists(log_pb2.ListRequest().SerializeToString(), metadata=reader.metadata) for _ in range(250)]
            await asyncio.sleep(5)
            grown = memory_of(daemon) - before
            assert grown < 500 << 20, f"{grown >> 20} MiB"
            async with RawLog(address, token="bystander-token") as other:
                assert len((await other.list(0)).records) == 21
            for call in calls[:-1]:
                call.cancel()
            async with asyncio.timeout(CALL_S):
                await read_all(calls[-1])
            assert (await reader.list(0, limit=2)).records


def memory_of(daemon: Daemon) -> int:
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def code_at_end(call: Any) -> grpc.StatusCode:
    """How a stream ends, once all of it is read."""
    with suppress(aio.AioRpcError):
        async with asyncio.timeout(CALL_S):
            await read_all(call)
    code: grpc.StatusCode = await call.code()
    return code


async def read_all(call: Any) -> None:
    while await call.read() is not aio.EOF:
        pass


async def to_its_end(stream: RawPostStream) -> None:
    while True:
        await stream.result()


async def _has(daemon: Daemon, text: str) -> bool:
    return text in daemon.log


async def test_without_a_token_anywhere_a_node_is_open_and_says_so(tmp_path: Path) -> None:
    with (
        running_cluster(tmp_path / "cluster", nodes=1, start=()) as cluster,
        Daemon(cluster.master.config_file) as daemon,
    ):
        await asyncio.to_thread(daemon.wait_ready)
        assert " event=open_to_all " in daemon.log
        async with RawLog(cluster.master.address) as log:
            posted = await log.post(b"anybody")
            [record] = (await log.list(posted.offset)).records
            assert record.author == "anonymous"
        await asyncio.to_thread(daemon.terminate)


async def test_a_reload_that_opens_a_node_to_all_says_so(tmp_path: Path) -> None:
    async with one_node(tmp_path) as (daemon, address, tokens):
        config_file = tokens.parent / "cluster" / "node-1" / "replicad.yaml"
        assert "open_to_all" not in daemon.log
        config = yaml.safe_load(config_file.read_text())
        del config["tokens_file"]
        config_file.write_text(yaml.safe_dump(config))
        await asyncio.to_thread(daemon.reload)
        assert daemon.log.count(" event=open_to_all ") == 1
        async with RawLog(address) as log:
            await log.status()
        await asyncio.to_thread(daemon.reload)
        assert daemon.log.count(" event=open_to_all ") == 1


async def test_over_tls_without_a_token_anywhere_no_client_may_call_and_the_node_says_so(tmp_path: Path) -> None:
    with (
        running_cluster(tmp_path / "cluster", nodes=1, start=(), tls=True) as cluster,
        Daemon(cluster.master.config_file) as daemon,
    ):
        await asyncio.to_thread(daemon.wait_ready)
        assert " event=shut_to_all " in daemon.log
        assert " event=open_to_all " not in daemon.log
        await asyncio.to_thread(daemon.terminate)


async def test_what_is_open_to_all_is_bounded_in_number_and_in_time(tmp_path: Path) -> None:
    async with (
        one_node(tmp_path, limits={"open_calls": 3}) as (_, address, _),
        coming_from("127.0.0.2", address) as forwarder,
        aio.insecure_channel(address, options=OPTIONS) as channel,
        aio.insecure_channel(forwarder, options=OPTIONS) as elsewhere,
    ):
        watch: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(HEALTH_WATCH)
        watching = [watch(b"") for _ in range(2)]
        for call in watching:
            await call.read()
        assert "this address has half of the 3" in await _refused(watch(b""))
        watch_elsewhere: aio.UnaryStreamMultiCallable[bytes, bytes] = elsewhere.unary_stream(HEALTH_WATCH)
        from_elsewhere = watch_elsewhere(b"")  # held: older releases of gRPC end a call that nobody has
        await from_elsewhere.read()
        assert "3 calls of it are under way" in await _refused(watch_elsewhere(b""))
        check: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"", timeout=CALL_S)  # counted for itself

        both: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/grpc.health.v1.Health/Check")
        half, began = both(), time.monotonic()
        async with asyncio.timeout(CALL_S):
            assert await half.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert time.monotonic() - began < 10  # timeouts.request, for those who are known, is longer
        watching[0].cancel()
        await eventually(lambda: _watches(watch), within_s=10, what="a place is free again")


async def _refused(call: Any) -> str:
    with pytest.raises(aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return str(caught.value.details())


async def _watches(watch: Any) -> bool:
    call = watch(b"")
    try:
        await call.read()
    except aio.AioRpcError:
        return False
    call.cancel()
    return True

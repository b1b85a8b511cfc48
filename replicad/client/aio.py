"""The async client: what a program calls. Owns argument checks and the order of questions.

The work is in posting, bulk and reading; it must not know how any of them do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from replicad.client import control, methods
from replicad.client.arguments import (
    LEVELS,
    checked_flag,
    checked_level,
    checked_messages,
    checked_node,
    checked_number,
    checked_optional,
    checked_record,
)
from replicad.client.bulk import Bulk
from replicad.client.connection import Connections
from replicad.client.cutting import (
    MAX_PAYLOAD_BYTES,
    BulkMessage,
    Content,
    checked_id,
    headers_bytes,
    payload_bytes,
    record_headers_bytes,
)
from replicad.client.encryption import Encryption
from replicad.client.ids import PROCESS_IDS
from replicad.client.lanes import LaneKey
from replicad.client.posting import Poster
from replicad.client.reading import Range, Reader
from replicad.client.retry import Route, may_retry
from replicad.client.sealed import Message, SealedPosts, opened
from replicad.client.settings import Settings, checked_address, checked_concern, checked_timeout, make_settings
from replicad.client.tls import ClientTls
from replicad.client.types import Leading, NodeKey, NodeStatus, Outcome, Posted, Record, Status
from replicad.errors import BadRequest, IdConflict, NotFound, ServiceError, TooLarge, Unavailable
from replicad.wire.parsing import parse_peer
from replicad.wire.v1 import log_pb2

RecordBatches = AsyncGenerator[list[Record], None]  # named here: inside the class `list` is the method
PostedBatches = AsyncGenerator[list[Posted], None]
PostedList = list[Posted]


class AsyncClient:
    """A client of one replicad cluster, for asyncio.

    ``addresses`` are HOST:PORT of any of its nodes (a list, or a text with commas); the client finds the master. None
    takes them from REPLICAD_ADDRESS, else 127.0.0.1:50052. ``token`` None takes AUTH_TOKEN. ``timeout_s`` is the time
    for a call, all retries included, where the call itself gives none. ``write_concern`` is how many nodes must have a
    message on disk before a post is answered: a number, "majority" or "all"; None leaves it to the server's config.
    ``encryption`` has the keys with which all payloads are encrypted before they leave and decrypted when they are
    read; ids and headers stay in the clear. None posts in the clear and hands out ciphertext as it is
    (``record.encrypted``); to take the keys from the environment give ``Encryption.from_environment()``.

    ``ca``, ``certificate`` and ``key`` are PEM files; None takes them from REPLICAD_CA, REPLICAD_CERTIFICATE and
    REPLICAD_KEY. With ``ca``, a bundle, every connection is TLS to a node whose certificate is of one of those CAs and
    has the address's host among its names. With ``certificate`` and ``key`` the nodes know us by those; the addresses
    are then those where a certificate is asked for (mutual_address in the nodes' config). Files that change are read
    again: a renewed certificate needs no new client. A token is never sent to another machine without TLS.

    Use it as ``async with AsyncClient() as client``. Every error it raises for a post is a
    :class:`replicad.errors.ServiceError`, whose ``applied`` says whether the message is in the log: no, yes or unknown.
    Raises ValueError for arguments that can never work, ConfigError for TLS files that can't be used.
    """

    def __init__(
        self,
        addresses: str | Sequence[str] | None = None,
        *,
        token: str | None = None,
        timeout_s: float = 10.0,
        write_concern: str | int | None = None,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        encryption: Encryption | None = None,
    ) -> None:
        self._settings: Settings = make_settings(
            addresses,
            token=token,
            timeout_s=timeout_s,
            write_concern=write_concern,
            ca=ca,
            certificate=certificate,
            key=key,
        )
        if not isinstance(encryption, Encryption | None):
            raise ValueError(f"encryption is {type(encryption).__name__}; give Encryption.from_keys([...]) or the like")
        self._encryption = encryption
        self._rng = Random()  # noqa: S311 - jitter
        tls = self._settings.tls
        self._connections = Connections(self._settings.token, ClientTls(tls) if tls else None)
        self._reader = Reader(
            self._settings.addresses, self._connections, timeout_s=self._settings.timeout_s, rng=self._rng
        )
        self._poster: Poster | None = None  # made in the running loop
        self._sealed: SealedPosts | None = None  # made with it, where there is encryption
        self._closed = False
        self._default_key: LaneKey = (self._settings.write_concern, self._settings.timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Posts that still wait fail with an error that says whether they may have been
        applied."""
        self._closed = True
        if self._poster is not None:
            await self._poster.close()
        await self._connections.close()

    # --- posting ----------------------------------------------------------------------------------------------------

    async def post(
        self,
        payload: bytes | str,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        write_concern: str | int | None = None,
        timeout_s: float | None = None,
    ) -> Posted:
        """Post one message and wait for its write concern. Text is sent as UTF-8.

        ``id`` names the message: posted again with the same id it is not applied twice, and the answer has the
        original offset. Without one a UUIDv7 is made; an error has it, too (``error.id``). Concurrent calls travel
        together in a few frames. Until the timeout is over the same message is sent again, to whichever node is master,
        as long as that may help.

        With encryption, a message that stands in the log encrypted with an older key is read back to tell a retry from
        a conflict; where that can't be done, IdConflict says ``applied`` unknown.

        Raises WriteConcernTimeout (applied; on too few nodes in time), OutcomeUnknown (no answer in time; it may be in
        the log), IdConflict (the id has other content), BadRequest, TooLarge, Unauthorized, Forbidden, StorageFull,
        and, when all tries until the timeout ended so, NotMaster, Unavailable, RateLimited or InternalError.
        """
        encoded = payload if type(payload) is bytes else payload_bytes(payload)
        encoded_headers = headers_bytes(headers) if headers else b""
        if len(encoded) > MAX_PAYLOAD_BYTES:
            raise TooLarge(f"payload has {len(encoded)} bytes, no log takes more than {MAX_PAYLOAD_BYTES}")
        poster = self._poster or self._start_poster()
        key = self.lane_key(write_concern, timeout_s)
        message_id = "" if id is None else checked_id(id)
        if self._sealed is not None:
            return await self._sealed.post(key, Message(message_id or PROCESS_IDS.one(), encoded, encoded_headers))
        return await poster.add(key, message_id, encoded, encoded_headers)

    async def repost(
        self, record: Record, *, write_concern: str | int | None = None, timeout_s: float | None = None
    ) -> Posted:
        """Post a record again, as it stood in a log: under its id, with its headers, and ciphertext as ciphertext.

        For what was dropped from a node's log (`replicad-cli quarantine`), or stands in another cluster's. Its author
        is who posts it now. An id that the log has with the same headers and payload, whoever was the author, is a
        duplicate. Raises as :meth:`post`; BadRequest for a record of the log itself.
        """
        if checked_record(record).decrypted:
            raise BadRequest(f"record {record.id!r} was decrypted; give it as it stands in the log")
        poster = self._poster or self._start_poster()
        key = self.lane_key(write_concern, timeout_s)
        payload, encoded = payload_bytes(record.payload), record_headers_bytes(record.headers)
        try:
            return await poster.add(key, checked_id(record.id), payload, encoded)
        except IdConflict as conflict:
            at = conflict.offset
            if at is None or not await self._stands(record, at):
                raise
            return Posted(record.id, at, duplicate=True, nodes=conflict.nodes)

    async def _stands(self, record: Record, offset: int) -> bool:
        """Whether the log has this id, headers and payload there, by whomever."""
        async for found in self._reader.list(Range(offset, 1, "local", offset, None, None)):
            for each in found:
                return (each.id, each.headers, each.payload) == (record.id, record.headers, record.payload)
        return False

    def post_many(
        self,
        messages: Iterable[BulkMessage] | AsyncIterable[BulkMessage],
        *,
        write_concern: str | int | None = None,
        timeout_s: float | None = None,
    ) -> PostedBatches:
        """Post many messages, many at a time; yields lists of results in the order of the input, as they are there.

        Reads ahead of the results by no more than a few frames. ``timeout_s`` is for each frame. A frame that is
        sent again after a break may come to stand behind later ones: results are in input order, offsets need not be.

        Raises as :meth:`post`, for the first message (in input order) that fails; the text of the error names how
        many were confirmed before. Messages after those may have been applied.
        """
        messages = checked_messages(messages)
        poster, key = self._poster or self._start_poster(), self.lane_key(write_concern, timeout_s)
        sealed = self._sealed

        def submit(content: Content) -> asyncio.Future[PostedList]:
            if sealed is not None:
                return asyncio.create_task(sealed.post_content(key, content))
            return poster.submit(key, **content._asdict())

        bulk = Bulk(submit)
        return bulk.run(messages) if isinstance(messages, Iterable) else bulk.run_async(messages)

    async def post_content(self, content: Content, key: LaneKey) -> PostedList:
        """Post one frame that is cut already: what the blocking client's post_many is made of. Raises as
        :meth:`post`."""
        poster = self._poster or self._start_poster()
        if self._sealed is not None:
            return await self._sealed.post_content(key, content)
        return await poster.submit(key, **content._asdict())

    def lane_key(self, write_concern: str | int | None, timeout_s: float | None) -> LaneKey:
        """What a post is sent with: what is given, else the client's own. Raises ValueError, BadRequest."""
        if write_concern is None and timeout_s is None:
            return self._default_key
        concern, timeout = self._default_key
        return (
            concern if write_concern is None else checked_concern(write_concern),
            timeout if timeout_s is None else checked_timeout(timeout_s),
        )

    def _start_poster(self) -> Poster:
        if self._closed:
            raise Unavailable("the client was closed")
        self._poster = Poster(Route(self._settings.addresses, self._rng), self._connections, self._rng)
        if self._encryption is not None:
            self._sealed = SealedPosts(self._encryption, self._poster, self._reader)
        return self._poster

    # --- reading ----------------------------------------------------------------------------------------------------

    def list(
        self,
        from_offset: int = 0,
        *,
        limit: int | None = None,
        level: str = "committed",
        min_offset: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> AsyncGenerator[Record, None]:
        """The records from ``from_offset`` on, in order, to the end of what the node has; at most ``limit``.

        ``level``: "committed" (never retracted), "local" (all that the node has) or "linearizable" (committed, and the
        master confirms with a majority that it still is master). ``min_offset`` waits until the node has that offset:
        with the offset of an own post, the list includes it whichever node serves it. ``since_ms`` (inclusive) and
        ``until_ms`` (exclusive), ms since 1970 UTC, select by time. Goes on by itself after a break, without a gap.

        A record that is encrypted says so in ``encrypted``; with ``decrypted`` its payload and headers are as they were
        posted, without it (no encryption, no key that fits, or tampered with) they are as they stand in the log.

        Raises OffsetExpired, BadRequest, Unauthorized, Forbidden, the last error (such as Unavailable) when no node
        serves it within the client's timeout, and PeerError when a node skips or repeats a record.
        """
        return _flatten(
            self.list_batches(
                from_offset, limit=limit, level=level, min_offset=min_offset, since_ms=since_ms, until_ms=until_ms
            )
        )

    def list_batches(
        self,
        from_offset: int = 0,
        *,
        limit: int | None = None,
        level: str = "committed",
        min_offset: int | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> RecordBatches:
        """As :meth:`list`, in lists of consecutive records as they come: faster for many."""
        wanted = Range(
            checked_number("from_offset", from_offset),
            checked_optional("limit", limit),
            checked_level(level, LEVELS),
            checked_optional("min_offset", min_offset),
            checked_optional("since_ms", since_ms),
            checked_optional("until_ms", until_ms),
        )
        return self._opened(self._reader.list(wanted))

    def tail(self, from_offset: int = 0, *, level: str = "committed") -> AsyncGenerator[Record, None]:
        """The records from ``from_offset`` on, and then each as it comes, for ever.

        After a break it goes on at the right offset, with whichever node serves it; it never skips or repeats.
        ``level`` is "committed" or "local". Raises as :meth:`list`; Unavailable only when no node could be reached at
        first.
        """
        return _flatten(self.tail_batches(from_offset, level=level))

    def tail_batches(self, from_offset: int = 0, *, level: str = "committed") -> RecordBatches:
        """As :meth:`tail`, in lists of consecutive records as they come."""
        offset = checked_number("from_offset", from_offset)
        return self._opened(self._reader.tail(offset, checked_level(level, LEVELS[:2])))

    def _opened(self, batches: RecordBatches) -> RecordBatches:
        return batches if self._encryption is None else opened(batches, self._encryption)

    # --- asking -----------------------------------------------------------------------------------------------------

    async def outcome(self, id: str) -> Outcome:
        """Where the message with this id stands in the log. The master is asked first, then the others.

        Raises NotFound when a master that a majority has confirmed says that no such id is in the log, and Unavailable
        when there is none within the client's timeout, and no other node has the id: it may be in the log nonetheless.
        """
        request = log_pb2.OutcomeRequest(id=checked_id(id)).SerializeToString()
        found = parse_peer(log_pb2.OutcomeResponse, await self._ask_outcome(request))
        return Outcome(id, found.offset, found.epoch, found.time_ms, found.committed, found.nodes)

    async def _ask_outcome(self, request: bytes) -> bytes:
        ask = partial(self._reader.call, deadline=asyncio.get_running_loop().time() + self._settings.timeout_s)
        reasons: dict[str, None] = {}  # in their order, each once

        def goes_on(error: ServiceError) -> bool:
            reasons[error.message] = None
            return may_retry(error) or (isinstance(error, NotFound) and not error.master)

        master_address = ""
        try:
            status = parse_peer(log_pb2.StatusResponse, await ask(methods.STATUS, b"", goes_on=goes_on))
            master_address = status.master_address
        except ServiceError as error:
            if not goes_on(error):
                raise
        if master_address:  # it alone knows how many nodes have it
            try:
                return await ask(methods.OUTCOME, request, address=master_address)
            except ServiceError as error:
                if isinstance(error, NotFound) or not goes_on(error):
                    raise
        try:
            return await ask(methods.OUTCOME, request, goes_on=goes_on)
        except ServiceError as error:
            if not goes_on(error):
                raise
            told = "; ".join(list(reasons)[-len(self._settings.addresses) - 1 :])
            raise Unavailable(f"no master can be asked, and no other node that answers has the id ({told})") from error

    async def status(self, address: str | None = None) -> Status:
        """A node's account of itself and of the others: of the node at ``address``, else of any that answers."""
        if address:
            checked_address(address)
        response = await self._reader.call(methods.STATUS, b"", address=address)
        message = parse_peer(log_pb2.StatusResponse, response)
        nodes = tuple(
            NodeStatus(
                each.name,
                each.address,
                each.role,
                each.health,
                each.size,
                each.lag,
                each.detail,
                keys=_keys_of(each),
                voter=not each.no_vote,
            )
            for each in message.nodes
        )
        return Status(
            cluster=message.cluster,
            node=message.node,
            version=message.version,
            role=message.role,
            state=message.state,
            epoch=message.epoch,
            size=message.size,
            commit_size=message.commit_size,
            root=message.root,
            master=message.master,
            master_address=message.master_address,
            uptime_ms=message.uptime_ms,
            rss_bytes=message.rss_bytes,
            nodes=nodes,
            commit_quorum=message.commit_quorum,
            detail=message.detail,
            key_id=message.key_id,
            certificate_expires_ms=message.certificate_expires_ms,
            damage=message.damage,
            scrubbed_ms=message.scrubbed_ms,
        )

    # --- steering ---------------------------------------------------------------------------------------------------

    async def promote(self, address: str, *, accept_data_loss: bool = False, timeout_s: float | None = None) -> Leading:
        """Make the node at ``address`` the master, when there is none; returns once it is open.

        It needs promises of R voters (docs/semantics.md), and fetches what it lacks. Called again, it waits for what is
        under way. ``accept_data_loss`` is for the day when quorums of the voters that the log names are not to be had:
        then all voters of the node's config are needed, and what the others acknowledged and none of these has is lost.

        Raises Unavailable when it is a worker still (the text says why), or not open in time: then it goes
        on trying; BadRequest for a node without a vote; Forbidden without the role admin.
        """
        return await control.promote(
            self._connections,
            checked_address(address),
            self._timeout(timeout_s),
            accept_data_loss=checked_flag("accept_data_loss", accept_data_loss),
        )

    async def switchover(self, to: str = "", *, address: str | None = None, timeout_s: float | None = None) -> Leading:
        """Have the master hand over to the node ``to``, or to the worker that has most; returns once that is open.
        ``address`` is the master's; None takes what a node that answers knows of it.

        Posts wait meanwhile, and nothing that was acknowledged is lost. Raises Unavailable when the master goes on (the
        text says why) or there is none; BadRequest for what is no worker with a vote; Forbidden without the role admin.
        """
        to, timeout_s = checked_node("to", to), self._timeout(timeout_s)
        address = checked_address(address) if address else (await self.status()).master_address
        if not address:
            raise Unavailable("the node that answers knows of no master: use promote")
        return await control.switchover(self._connections, address, to, timeout_s, ask_status=self.status)

    def _timeout(self, timeout_s: float | None) -> float:
        return self._settings.timeout_s if timeout_s is None else checked_timeout(timeout_s)


def _keys_of(node: log_pb2.NodeStatus) -> tuple[NodeKey, ...]:
    return tuple(NodeKey(key.key_id, key.until if key.HasField("until") else None) for key in node.keys)


async def _flatten(batches: RecordBatches) -> AsyncGenerator[Record, None]:
    async with aclosing(batches):
        async for records in batches:
            for record in records:
                yield record

"""Posts and reads of a client that has encryption keys.

Owns what becomes of a conflict that may be none: the same message, encrypted by an earlier try with another key. Must
not know ciphers, or how frames travel.

The work on a frame is cut into slices of a few ms, so that everything else in the loop keeps moving.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from replicad.client.cutting import MAX_PAYLOAD_BYTES, Content, split
from replicad.client.encryption import Encryption, Sealed, ciphertext_bytes
from replicad.client.lanes import LaneKey
from replicad.client.posting import Poster
from replicad.client.reading import Range, Reader
from replicad.client.retry import own_instance
from replicad.client.types import Posted, Record
from replicad.core.record import encode_headers
from replicad.errors import Applied, IdConflict, ReplicadError, ServiceError, TooLarge

SLICE_S = 0.002  # of work on a frame, before others in the loop have their turn
LARGE_BYTES = 256 << 10  # takes some ms, and so goes into a thread
COMPARED_AT_ONCE = 16  # conflicts of a frame that are looked into at the same time: each is a stream

RecordBatches = AsyncGenerator[list[Record], None]


class Message(NamedTuple):
    """A message before it is sealed; ``headers`` are canonically encoded."""

    id: str
    payload: bytes
    headers: bytes


class SealedPosts:
    """Encrypts messages and posts them. Every retry of a post sends the very same ciphertext."""

    def __init__(self, encryption: Encryption, poster: Poster, reader: Reader) -> None:
        self._encryption = encryption
        self._poster = poster
        self._reader = reader
        self._turn = asyncio.Lock()  # fair: frames leave in the order in which they came

    async def post(self, key: LaneKey, message: Message) -> Posted:
        """Post one message. Raises as the client's post does; a TooLarge tells both sizes."""
        return await self._post(key, message, await self._seal(message))

    async def post_content(self, key: LaneKey, content: Content) -> list[Posted]:
        """Post a frame's worth of messages. Raises the first one's error that fails."""
        messages = _messages(content)
        async with self._turn:
            parts = list(split(await self._seal_all(messages)))
            waiters = [self._poster.submit(key, **part._asdict()) for part in parts]
        posted: list[Posted] = []
        for part, outcome in zip(parts, await asyncio.gather(*waiters, return_exceptions=True), strict=True):
            if isinstance(outcome, IdConflict):
                start = len(posted)
                posted += await self._one_by_one(key, messages[start : start + len(part.ids)], part)
            elif isinstance(outcome, TooLarge):
                raise own_instance(
                    outcome, f"{outcome.message}; encrypted, a payload has 4/3 of its bytes and 100 more"
                )
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                posted += outcome
        return posted

    async def _one_by_one(self, key: LaneKey, messages: list[Message], part: Content) -> list[Posted]:
        """Post the messages of a frame in which an id conflicts, each for itself, with the ciphertext that it has."""
        room = asyncio.Semaphore(COMPARED_AT_ONCE)

        async def one(message: Message, sealed: Sealed) -> Posted:
            async with room:
                return await self._post(key, message, sealed)

        sealed = map(Sealed, part.payloads, part.headers)
        outcomes = await asyncio.gather(*map(one, messages, sealed), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, Posted)]

    async def _post(self, key: LaneKey, message: Message, sealed: Sealed) -> Posted:
        deadline = asyncio.get_running_loop().time() + key[1]
        try:
            return await self._poster.add(key, message.id, sealed.payload, sealed.headers)
        except IdConflict as conflict:
            stored = await self._same_message(conflict, message, deadline)
        except TooLarge as error:
            sizes = f"encrypted, its {len(message.payload)} bytes are {len(sealed.payload)}"
            raise own_instance(error, f"{error.message}; {sizes}") from error
        left_s = max(0.001, deadline - asyncio.get_running_loop().time())
        return await self._poster.add((key[0], left_s), message.id, stored.payload, stored.headers)

    # --- conflicts --------------------------------------------------------------------------------------------------

    async def _same_message(self, conflict: IdConflict, message: Message, deadline: float) -> Sealed:
        """The message as the log has it, where that is the same message under another ciphertext: one that a node
        could not tell, because it has a content tag of another key or was posted by another author. To be posted
        again as it is: the log then says of its own that it is a duplicate.

        Raises the conflict where it is one, and where it cannot be told, with ``applied`` unknown and the reason.
        """
        try:
            record = await self._record_at(conflict.offset, deadline)
        except (ReplicadError, TimeoutError) as exc:
            raise _undecided(conflict, f"it could not be read: {str(exc) or 'no answer in time'}") from exc
        if record is None or record.id != message.id:
            raise _undecided(conflict, "the node that was asked does not have it")
        if not record.encrypted:
            raise conflict
        opened = self._encryption.open(record)
        if not opened.decrypted:
            raise _undecided(conflict, "no key here decrypts it")
        if opened.payload != message.payload or encode_headers(opened.headers) != message.headers:
            raise conflict
        return Sealed(record.payload, encode_headers(record.headers))

    async def _record_at(self, offset: int | None, deadline: float) -> Record | None:
        if offset is None:
            return None
        async with asyncio.timeout_at(deadline):
            wanted = Range(offset, 1, "local", offset, None, None)
            async with aclosing(self._reader.list(wanted)) as batches:
                async for records in batches:
                    return records[0]
        return None

    # --- sealing ----------------------------------------------------------------------------------------------------

    async def _seal(self, message: Message) -> Sealed:
        size, sealed_bytes = len(message.payload), ciphertext_bytes(len(message.payload))
        if sealed_bytes > MAX_PAYLOAD_BYTES:
            raise TooLarge(
                f"payload has {size} bytes, encrypted {sealed_bytes}; no log takes more than {MAX_PAYLOAD_BYTES}"
            )
        if size > LARGE_BYTES:
            return await asyncio.to_thread(self._encryption.seal, *message)
        return self._encryption.seal(*message)

    async def _seal_all(self, messages: list[Message]) -> Content:
        payloads: list[bytes] = []
        headers: list[bytes] = []
        pause = Slices()
        for message in messages:
            sealed = await self._seal(message)
            payloads.append(sealed.payload)
            headers.append(sealed.headers)
            await pause.when_due()
        size_bytes = sum(map(len, payloads)) + sum(map(len, headers))
        return Content([message.id for message in messages], payloads, headers, size_bytes)


async def opened(batches: RecordBatches, encryption: Encryption) -> RecordBatches:
    """The same records, decrypted where a key fits."""
    async with aclosing(batches):
        async for records in batches:
            pause = Slices()
            for index, record in enumerate(records):
                if record.encrypted:
                    if len(record.payload) > LARGE_BYTES:
                        records[index] = await asyncio.to_thread(encryption.open, record)
                    else:
                        records[index] = encryption.open(record)
                    await pause.when_due()
            yield records


class Slices:
    """Parts long work: lets others in the loop have their turn every SLICE_S."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self._due = self._time() + SLICE_S

    async def when_due(self) -> None:
        if self._time() >= self._due:
            await asyncio.sleep(0)
            self._due = self._time() + SLICE_S


def _messages(content: Content) -> list[Message]:
    headers = content.headers or [b""] * len(content.ids)
    return list(map(Message, content.ids, content.payloads, headers))


def _undecided(conflict: IdConflict, reason: str) -> ServiceError:
    """The conflict, when it may be none: the message itself may stand there under another ciphertext."""
    error = own_instance(
        conflict, f"{conflict.message} (whether it is the same message, encrypted before, cannot be told: {reason})"
    )
    error.applied = Applied.UNKNOWN
    return error

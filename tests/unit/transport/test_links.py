"""A dialer against connections of the test's own: how it ends. What it is for, the integration tests see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc
import pytest

from replicad.configlimits import Timeouts
from replicad.logs import get_logger
from replicad.transport import links
from replicad.transport.links import Dialer
from tests.support.ending_call import EndingCall, broken, well
from tests.support.scripted_server import soon


class Channel:
    """A connection that is there at once, with one call."""

    def __init__(self, call: EndingCall) -> None:
        self._call = call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def get_state(self, *, try_to_connect: bool) -> grpc.ChannelConnectivity:
        del try_to_connect
        return grpc.ChannelConnectivity.READY

    def stream_stream(self, path: str) -> Any:
        del path
        return lambda requests, metadata: self._call


class Peers:
    """What a dialer tells the runtime."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def peer_up(self, peer: str, link: object) -> None:
        del link
        self.told.append(f"{peer} up")

    def peer_down(self, peer: str, link: object, reason: str) -> None:
        del link, reason
        self.told.append(f"{peer} down")


@pytest.mark.parametrize("end", [well, broken])
async def test_a_dialer_that_is_stopped_while_its_stream_ends_dials_no_more(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[], Exception]
) -> None:
    """As when the other node ends the stream of one that follows instead of leading: it would be a bug of ours, for
    which the node stops, or a worker that goes on dialling."""
    call, peers = EndingCall(end), Peers()
    runtime: Any = peers
    monkeypatch.setattr(links, "open_channel", lambda *_: Channel(call))
    dialer = Dialer(
        "n2", "127.0.0.1:1", runtime, encode=bytes, metadata=(), timeouts=Timeouts(), log=get_logger("test")
    )
    task = asyncio.create_task(dialer.run())
    await soon(call.waited_for.wait())
    task.cancel()
    await soon(asyncio.wait([task]))
    assert task.cancelled()
    assert peers.told == ["n2 up", "n2 down"]

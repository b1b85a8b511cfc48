"""A node's TLS while it runs, without a network: what is taken of files that change, and when their end is told of."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from replicad.certificates import DAY_S
from replicad.config import Config, Tls, parse
from replicad.errors import Unauthorized
from replicad.pki import Authority
from replicad.transport.access import peer_pem
from replicad.transport.addresses import address_for_caller, address_of, by_mutual_port
from replicad.transport.tls import EXPIRED_EVERY_S, NOTICE_EVERY_S, WARN_EVERY_S, NodeTls, Notice, end_notice, load
from tests.support.certificates import Shown, client_of, new_ca, node_of, now
from tests.support.waiting import eventually
from tests.unit.test_config import with_tls

END = Tls(certificate="", key_file="", ca="", mutual_listen="", notice_days=30, warn_days=7)


class Told:
    """A log that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def _tell(self, level: str, event: str, text: str = "", **fields: object) -> None:
        del fields
        self.events.append((f"{level} {event}", text))

    def __getattr__(self, level: str) -> Any:
        return lambda *args, **fields: self._tell(level, *args, **fields)

    def count(self, event: str) -> int:
        return sum(each == event for each, _ in self.events)


class Call:
    """What is looked at of a call's context."""

    def __init__(self, shown: Shown | None) -> None:
        self._pem = shown.certificate.read_bytes() if shown and shown.certificate else b""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._pem]} if self._pem else {}


class Stage:
    """A node's files, its TLS and a clock of ours."""

    def __init__(self, folder: Path) -> None:
        self.ca = new_ca(folder / "pki")
        self.shown = node_of(self.ca, "node-1", days=40)
        self.now_s = time.time()
        self.log = Told()
        self.removed = 0
        self.tls = NodeTls(self.config(), self._load(), log=self.log, clock=lambda: self.now_s)  # type: ignore[arg-type]
        self.tls.on_ca_removed = self._ca_removed

    def config(self, **changes: object) -> Config:
        files = {"certificate": str(self.shown.certificate), "key": str(self.shown.key), "ca": str(self.shown.ca)}
        return parse(with_tls(**{**files, "poll": "50ms", **changes}), env={})

    def _load(self) -> Any:
        return load(self.config(), now_s=self.now_s)

    def _ca_removed(self) -> None:
        self.removed += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        task = asyncio.create_task(self.tls.run())
        try:
            yield
        finally:
            task.cancel()

    async def told(self, event: str, count: int = 1) -> None:
        async def look() -> bool:
            return self.log.count(event) >= count

        await eventually(look, within_s=10, what=f"{event}; {self.log.events}")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize(
    ("left_days", "notice"),
    [
        (31, None),
        (30, Notice("info", NOTICE_EVERY_S)),
        (7.1, Notice("info", NOTICE_EVERY_S)),
        (7, Notice("warning", WARN_EVERY_S)),
        (0.01, Notice("warning", WARN_EVERY_S)),
        (0, Notice("error", EXPIRED_EVERY_S)),
        (-3, Notice("error", EXPIRED_EVERY_S)),
    ],
)
def test_the_nearer_the_end_the_louder_it_is_told(left_days: float, notice: Notice | None) -> None:
    assert end_notice(left_days * DAY_S, END) == notice


def test_no_more_is_told_of_the_end_than_its_interval_allows(stage: Stage) -> None:
    stage.now_s += 20 * DAY_S  # as many are left
    for hour in range(3 * 24):
        stage.tls._tell_end()
        stage.now_s += 3600
        assert stage.log.count("info certificate_ends") == hour // 24 + 1
    assert "ends in 17.0 days, on " in stage.tls.remark
    stage.now_s += 20 * DAY_S
    stage.tls._tell_end()
    assert stage.log.events[-1][0] == "error certificate_ends"
    assert "expired on " in stage.log.events[-1][1]


async def test_files_that_have_not_changed_are_not_told_of(stage: Stage) -> None:
    async def looked() -> bool:
        return stage.tls._seen != ()

    with stage.running():
        await eventually(looked, within_s=10, what="a look at the files")
    assert stage.log.events == []


async def test_a_whole_renewal_is_taken_once(stage: Stage) -> None:
    with stage.running():
        before = stage.tls.identity
        node_of(stage.ca, "node-1", days=60)
        await stage.told("info certificate_taken")
        assert stage.tls.identity.expires_s > before.expires_s
    assert stage.log.count("info certificate_taken") == 1
    assert stage.removed == 0


async def test_what_does_not_fit_is_told_only_when_it_has_come_to_stay_and_the_old_goes_on(stage: Stage) -> None:
    before = stage.tls.identity.key_pem
    assert stage.shown.key
    key = stage.shown.key.read_bytes()
    with stage.running():
        stage.shown.key.write_bytes(b"half a k")
        await stage.told("error certificate_refused")
        assert stage.tls.identity.key_pem == before
        assert stage.tls.remark.startswith("certificate refused: tls.key: ")
        stage.shown.key.write_bytes(key)

        async def well() -> bool:
            return stage.tls.remark == ""

        await eventually(well, within_s=10, what="the remark goes")
    assert stage.tls.identity.key_pem == key


async def test_a_change_between_two_files_is_told_at_a_reload_at_once(stage: Stage) -> None:
    assert stage.shown.key
    stage.shown.key.write_bytes(b"half a k")
    await stage.tls.configure(stage.config())
    assert stage.log.count("error certificate_refused") == 1


async def test_a_look_at_the_files_that_began_before_a_reload_does_not_undo_it(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow: the look has read the files from before when the reload asks for others."""
    began, go_on = threading.Event(), threading.Event()
    read = NodeTls._read

    def slowly(tls: NodeTls) -> Any:
        found = read(tls)
        if not began.is_set():
            began.set()
            go_on.wait(10)
        return found

    monkeypatch.setattr(NodeTls, "_read", slowly)
    with stage.running():
        assert await asyncio.to_thread(began.wait, 10)
        other = Stage(tmp_path / "other")
        reload = asyncio.create_task(stage.tls.configure(other.config(poll="1h")))
        await asyncio.sleep(0)
        go_on.set()
        await reload
        assert stage.tls.identity.key_pem == other.tls.identity.key_pem
        assert stage.log.events[-1][0] == "info certificate_taken"


async def test_a_reload_takes_other_paths_and_a_config_without_tls_changes_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    other = tmp_path / "other.crt"
    renewed = node_of(stage.ca, "node-1", days=60)
    assert renewed.certificate
    shutil.move(renewed.certificate, other)
    await stage.tls.configure(stage.config(certificate=str(other)))
    assert stage.log.events[-1][0] == "info certificate_taken"


async def test_a_call_whose_ca_has_gone_is_refused(stage: Stage, tmp_path: Path) -> None:
    strange = new_ca(tmp_path / "strange")
    mine, theirs = client_of(stage.ca, "mine"), client_of(strange, "theirs")
    bundle = stage.shown.ca.read_bytes()
    stage.shown.ca.write_bytes(bundle + theirs.ca.read_bytes())
    await stage.tls.configure(stage.config())
    for each in (mine, theirs, None):
        stage.tls.admit(Call(each))

    stage.shown.ca.write_bytes(bundle)
    await stage.tls.configure(stage.config())
    assert stage.removed == 1
    assert [stage.tls.believes(peer_pem(Call(each).auth_context())) for each in (mine, theirs)] == [True, False]
    with pytest.raises(Unauthorized, match="its CA is not in the bundle any more"):
        stage.tls.admit(Call(theirs))
    stage.tls.admit(Call(mine))


def test_a_call_with_a_certificate_that_has_expired_since_its_connection_was_made_is_refused(stage: Stage) -> None:
    shown = client_of(stage.ca, "mine", days=1)
    stage.tls.admit(Call(shown))
    stage.now_s += 2 * DAY_S
    with pytest.raises(Unauthorized, match="has expired"):
        stage.tls.admit(Call(shown))


def test_a_caller_is_told_the_address_of_the_kind_of_port_that_it_called(stage: Stage) -> None:
    config = stage.config()
    with contextlib.ExitStack() as stack:
        stack.callback(by_mutual_port.set, False)
        stage.tls.admit(Call(client_of(stage.ca, "mine")))
        assert address_of(config, "node-2") == "log-2.example.org:6002"
        stage.tls.admit(Call(None))
        assert address_of(config, "node-2") == address_for_caller(config.nodes[1]) == "127.0.0.1:50053"
        assert address_of(config, "nobody") == ""


async def test_a_renewed_ca_of_the_same_folder_is_seen(stage: Stage) -> None:
    """The way of `pki renew ca`: the bundle grows, then shrinks."""
    ca = Authority.open(stage.ca.folder)
    ca.add_ca(days=100, now=now(), force=False)
    await stage.tls.configure(stage.config())
    assert "2 CAs in the bundle" in stage.log.events[-1][1]
    node_of(ca, "node-1")
    await stage.tls.configure(stage.config())
    ca.drop_old_cas(force=False)
    await stage.tls.configure(stage.config())
    assert "1 CA in the bundle" in stage.log.events[-1][1]
    assert stage.removed == 1

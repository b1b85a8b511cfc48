"""A batch and the statement under its signature: the bytes that are signed must not drift."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from replicad.core.batch import SIGNED_CONTEXT, signed_statement
from replicad.vkeys import parse_vkey
from tests.support.builders import signer
from tests.support.golden import GOLDEN_BATCH, GOLDEN_ROOT, GOLDEN_SIGNATURE, GOLDEN_STATEMENT, GOLDEN_VKEY


def statement(
    *,
    cluster: str = "test",
    signer_name: str = "n1",
    epoch: int = 3,
    first_offset: int = 0,
    count: int = 3,
    time_ms: int = 1_700_000_000_000,
    root: bytes = GOLDEN_ROOT,
) -> bytes:
    return signed_statement(
        cluster=cluster,
        signer=signer_name,
        epoch=epoch,
        first_offset=first_offset,
        count=count,
        time_ms=time_ms,
        root=root,
    )


def test_the_signed_statement_is_the_golden_one() -> None:
    assert statement() == GOLDEN_STATEMENT


def test_the_golden_signature_verifies_with_the_golden_public_key() -> None:
    """Ed25519 is deterministic, so that key, statement and signature are fixed together (RFC 8032)."""
    assert signer("n1").verifier.line == GOLDEN_VKEY
    assert signer("n1").sign(GOLDEN_STATEMENT) == GOLDEN_SIGNATURE
    assert parse_vkey(GOLDEN_VKEY).verify(GOLDEN_SIGNATURE, GOLDEN_STATEMENT)


@pytest.mark.parametrize(
    "other",
    [
        statement(cluster="tesT"),
        statement(signer_name="n2"),
        statement(epoch=4),
        statement(first_offset=1),
        statement(count=4),
        statement(time_ms=1_700_000_000_001),
        statement(root=bytes(32)),
        statement(cluster="testn", signer_name="1"),
        statement(cluster="tes", signer_name="tn1"),
        statement(cluster="", signer_name="testn1"),
    ],
)
def test_every_part_of_the_place_is_in_the_statement(other: bytes) -> None:
    assert other != GOLDEN_STATEMENT


def test_the_statement_begins_with_a_context_that_no_other_use_of_the_key_has() -> None:
    assert SIGNED_CONTEXT == b"replicad batch v1\n"
    assert statement().startswith(SIGNED_CONTEXT)


def test_names_that_are_not_ascii_count_in_bytes() -> None:
    assert statement(cluster="é", signer_name="n").endswith(b"\x00\x02\xc3\xa9\x00\x01n")


def test_the_end_of_a_batch_is_the_size_of_the_log_after_it() -> None:
    assert replace(GOLDEN_BATCH, first_offset=10).end == 13


def test_a_batch_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        GOLDEN_BATCH.epoch = 4  # type: ignore[misc]

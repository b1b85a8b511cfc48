"""Errors as programs pass them on."""

from __future__ import annotations

import copy
import pickle

import pytest

from replicad.errors import (
    SERVICE_ERRORS,
    Applied,
    ConfigError,
    DamagedError,
    ForgottenError,
    KeyFileError,
    PeerError,
    ReplicadError,
)

ERRORS = [
    *(kind("why", offset=7, nodes=2, master="b", retry_after_s=1.5, id="x") for kind in SERVICE_ERRORS.values()),
    PeerError("gap", "the next record is 5"),
    ConfigError(["ca: no such file", "key: no such file"]),
    KeyFileError("no key"),
    DamagedError("torn", offset=3),
    ForgottenError("no promise"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_whole_to_another_process(error: ReplicadError) -> None:
    """One that does not ends a pool of processes, or has it wait for ever."""
    for there in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert (type(there), str(there), there.__dict__) == (type(error), str(error), error.__dict__)


def test_what_an_error_has_been_told_of_its_post_goes_along() -> None:
    error = SERVICE_ERRORS["UNAVAILABLE"]("closed")
    error.applied = Applied.UNKNOWN
    assert pickle.loads(pickle.dumps(error)).applied is Applied.UNKNOWN  # noqa: S301 - our own

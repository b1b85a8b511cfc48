"""What is not read to its end is no message, whichever protobuf runtime reads it."""

import pytest

from replicad.wire.parsing import ParseError, parse
from replicad.wire.v1 import log_pb2

GOOD = log_pb2.OutcomeRequest(id="x").SerializeToString()


@pytest.mark.parametrize("rest", [b"\0", b"\0\0", b"\x0c", b"\x0cmore", b"\0" + GOOD])
@pytest.mark.parametrize("good", [b"", GOOD])
@pytest.mark.filterwarnings("ignore:Unexpected end-group tag")
def test_bytes_behind_a_message_are_refused(good: bytes, rest: bytes) -> None:
    assert parse(log_pb2.OutcomeRequest, good).SerializeToString() == good
    with pytest.raises(ParseError):
        parse(log_pb2.OutcomeRequest, good + rest)

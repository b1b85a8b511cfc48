"""One batch, byte by byte: format version 1. A change here is a new version, never an edit.

Made once by the sealer and checked by hand against docs/formats.md: three records, the first with headers, from two
authors, salts that count up from 00, signed by :func:`tests.support.builders.signer` of "n1".
"""

from __future__ import annotations

from replicad.core.batch import Batch

GOLDEN_LEAVES = [
    bytes.fromhex(
        "01 0000000000000003 0000000000000000 0000018bcfe56800 00000005"  # version, epoch, offset, time, payload length
        "7c9f5b9e4cc36c703715bb6eedcbb8bd80840fd48d135a07af861d1a027be360"  # SHA-256(00..0f || "hello")
        "d4c9a053ab856dc65b50dc689c36d3c1dd5eaccc63081d5f31b60860cfa2529a"  # SHA-256 of the headers
        "04 09 69642d31 616e6f6e796d6f7573"  # lengths, id-1, anonymous
    ),
    bytes.fromhex(
        "01 0000000000000003 0000000000000001 0000018bcfe56800 00000000"
        "fc2e2c73072bfa2bda03ff9307472debd3cc8105028a8a9e235e35ba8d2e37f4"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        "04 05 69642d32 746f6b656e"
    ),
    bytes.fromhex(
        "01 0000000000000003 0000000000000002 0000018bcfe56800 00000002"
        "17c80bcd82c288a9db1b6fd4b6c718f34ba0bf0112725e5d636671ece84e14fa"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        "04 05 69642d33 746f6b656e"
    ),
]
GOLDEN_ROOT = bytes.fromhex("1ba2c1033fe6c715c127b848b5f207774c08fcbd37829d9810e2f1fed910ea13")
GOLDEN_STATEMENT = bytes.fromhex(
    "7265706c696361642062617463682076310a"  # "replicad batch v1\n"
    "0000000000000003 0000000000000000 00000003 0000018bcfe56800"  # epoch, first offset, count, time
    "1ba2c1033fe6c715c127b848b5f207774c08fcbd37829d9810e2f1fed910ea13"  # root
    "0004 74657374 0002 6e31"  # cluster "test", signer "n1", each with its length
)
GOLDEN_SIGNATURE = bytes.fromhex(
    "3274dc15804d845004600bf835cc6885ee012427a055b04f2d42bb75f2cb440e"
    "af08f15a0f93beefb5a396ed379100e9a90b0fd9b008897907f22346eb9ea40d"
)
GOLDEN_VKEY = "n1+bf6e6f74+Af3TLD8v4tUcv2mWK86PwYvWSZN5bbcTUfuwOnMv23RS"


def _fields(number: int, *values: bytes) -> bytes:
    """Length-delimited protobuf fields, each shorter than 128 bytes."""
    return b"".join(bytes((number << 3 | 2, len(value))) + value for value in values)


GOLDEN_HEADERS = bytes.fromhex("01 61 0001 78  03 746167 0008 6dc3bc6e6368656e")  # a: x, tag: münchen
GOLDEN_BODY = (
    _fields(1, *GOLDEN_LEAVES)
    + _fields(2, bytes(range(48)))  # salts
    + _fields(3, b"hello", b"", b"\x00\xff")
    + _fields(4, GOLDEN_HEADERS, b"", b"")
)
GOLDEN_BATCH = Batch(
    epoch=3,
    first_offset=0,
    count=3,
    time_ms=1_700_000_000_000,
    root=GOLDEN_ROOT,
    signer="n1",
    signature=GOLDEN_SIGNATURE,
    body=GOLDEN_BODY,
)

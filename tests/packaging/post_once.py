"""One post to one node by plain gRPC, which follows no hint to the master and does not try again:

    python -m tests.packaging.post_once ADDRESS CA-FILE TOKEN-FILE

Prints the status and its message, as "OK" or "FAILED_PRECONDITION: why". Needs replicad's own Python environment.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc

from replicad.wire.v1.log_pb2 import PostRequest, PostResponse


def main(address: str, ca: str, token: str) -> None:
    credentials = grpc.ssl_channel_credentials(Path(ca).read_bytes())
    metadata = (("authorization", f"Bearer {Path(token).read_text().strip()}"),)
    request = PostRequest(id="post-once", payload=b"once")
    with grpc.secure_channel(address, credentials) as channel:
        post: grpc.UnaryUnaryMultiCallable[PostRequest, PostResponse] = channel.unary_unary(
            "/replicad.wire.v1.Log/Post",
            request_serializer=PostRequest.SerializeToString,
            response_deserializer=PostResponse.FromString,
        )
        try:
            post(request, timeout=10, metadata=metadata)
        except grpc.RpcError as exc:
            print(f"{exc.code().name}: {exc.details()}")
        else:
            print("OK")


if __name__ == "__main__":
    main(*sys.argv[1:])

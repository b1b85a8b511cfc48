"""A stranger's program: the stock health and reflection stubs of gRPC, with nothing of ours. Run as a script.

In a process of its own, since their descriptors and ours have the same names. Prints what it found as JSON.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import MessageFactory

# By name: they are there for tests alone, and bring no types.
health_pb2: Any = import_module("grpc_health.v1.health_pb2")
health_pb2_grpc: Any = import_module("grpc_health.v1.health_pb2_grpc")
described_by: Any = import_module("grpc_reflection.v1alpha.proto_reflection_descriptor_database")


def message_class(descriptor: Any) -> Any:
    """A class made of a descriptor: protobuf has changed how."""
    try:
        return import_module("google.protobuf.message_factory").GetMessageClass(descriptor)
    except AttributeError:  # before 4.22
        return MessageFactory().GetPrototype(descriptor)  # type: ignore[attr-defined]


def main(address: str, token: str) -> None:
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        found: dict[str, object] = {}
        for service in ("", "replicad.wire.v1.Log"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            found[f"health of {service!r}"] = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="no.such"), timeout=10)
        found["watch of an unknown one"] = health_pb2.HealthCheckResponse.ServingStatus.Name(next(watch).status)
        watch.cancel()

        described = described_by.ProtoReflectionDescriptorDatabase(channel)
        found["services"] = sorted(described.get_services())
        pool = DescriptorPool(described)
        log = pool.FindServiceByName("replicad.wire.v1.Log")
        found["methods"] = sorted(method.name for method in log.methods)
        # What grpcurl does: a call made of nothing but what the server tells of itself.
        post = log.methods_by_name["Post"]
        request = message_class(post.input_type)(id="from-a-stranger", payload=b"hello")
        call: grpc.UnaryUnaryMultiCallable[Any, Any] = channel.unary_unary(
            "/replicad.wire.v1.Log/Post",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class(post.output_type).FromString,
        )
        answer = call(request, timeout=10, metadata=(("authorization", f"Bearer {token}"),))
        found["posted"] = [answer.code, answer.name, answer.duplicate]
    print(json.dumps(found))


main(sys.argv[1], sys.argv[2])

"""gRPC server reflection (grpc/doc/server-reflection.md), v1 and v1alpha, so that stock tools work against a node.

Owns the answers. Must not know the services: it is given the file descriptors that describe them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from replicad.transport.calls import Context, parse_request
from replicad.wire.v1 import reflection_alpha_pb2, reflection_pb2

SERVICES = {
    "grpc.reflection.v1.ServerReflection": reflection_pb2,
    "grpc.reflection.v1alpha.ServerReflection": reflection_alpha_pb2,
}


class Reflection:
    """Describes the services of these files. One instance for each version of the protocol."""

    def __init__(self, protocol: Any, files: Sequence[FileDescriptor]) -> None:
        self._pb = protocol
        self._by_name: dict[str, FileDescriptor] = {}
        self._by_symbol: dict[str, FileDescriptor] = {}
        self._services: list[str] = []
        for file in files:
            self._add(file)
            self._services += [service.full_name for service in file.services_by_name.values()]

    def _add(self, file: FileDescriptor) -> None:
        if file.name in self._by_name:
            return
        self._by_name[file.name] = file
        for service in file.services_by_name.values():
            self._by_symbol[service.full_name] = file
            self._by_symbol.update((f"{service.full_name}.{method.name}", file) for method in service.methods)
        for message in file.message_types_by_name.values():
            self._by_symbol[message.full_name] = file
            self._by_symbol.update((nested.full_name, file) for nested in message.nested_types)
        for dependency in file.dependencies:
            self._add(dependency)

    async def info(self, requests: AsyncIterator[bytes], context: Context, author: str) -> AsyncGenerator[bytes, None]:
        """The handler of ServerReflectionInfo."""
        del context, author
        async for data in requests:
            request = parse_request(self._pb.ServerReflectionRequest, data)
            response = self._pb.ServerReflectionResponse(valid_host=request.host)
            response.original_request.CopyFrom(request)
            self._answer(request, response)
            yield response.SerializeToString()

    def _answer(self, request: Any, response: Any) -> None:
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
            return
        file = None
        if kind == "file_by_filename":
            file = self._by_name.get(request.file_by_filename)
        elif kind == "file_containing_symbol":
            file = self._by_symbol.get(request.file_containing_symbol)
        if file is None:
            code = grpc.StatusCode.NOT_FOUND if kind else grpc.StatusCode.INVALID_ARGUMENT
            response.error_response.error_code = code.value[0]
            response.error_response.error_message = "not described here"
            return
        response.file_descriptor_response.file_descriptor_proto.extend(_with_dependencies(file))


def _with_dependencies(file: FileDescriptor) -> list[bytes]:
    """The file and all that it imports, serialized: a client need not ask again."""
    done: dict[str, bytes] = {}

    def visit(each: FileDescriptor) -> None:
        if each.name not in done:
            proto = descriptor_pb2.FileDescriptorProto()
            each.CopyToProto(proto)
            done[each.name] = proto.SerializeToString()
            for dependency in each.dependencies:
                visit(dependency)

    visit(file)
    return list(done.values())

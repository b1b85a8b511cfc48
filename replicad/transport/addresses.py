"""Which of a node's two addresses a caller is told: the one for the kind of port that it has called itself."""

from __future__ import annotations

from contextvars import ContextVar

from replicad.config import Config, Node

#: Whether the call under way came in on the port where a certificate is asked for. Each call has a task of its own.
by_mutual_port: ContextVar[bool] = ContextVar("by_mutual_port", default=False)


def address_for_caller(node: Node) -> str:
    """Where the caller of the call under way reaches ``node``."""
    return node.mutual_address if by_mutual_port.get() else node.address


def address_of(config: Config, name: str) -> str:
    """The same by the node's name; "" when it is none of the config."""
    return next((address_for_caller(node) for node in config.nodes if node.name == name), "")

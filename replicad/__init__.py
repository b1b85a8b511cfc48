"""replicad: a durable, ordered, signed message log, replicated from one master to its workers."""

__version__ = "0.2.0"

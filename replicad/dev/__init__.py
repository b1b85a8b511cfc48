"""A cluster on one machine: ``replicad dev``, and :class:`DevCluster` for tests and benchmarks.

layout.py is the folder (keys, configs, token, env), process.py one node's process, cluster.py the nodes together,
commands.py the command line. Nothing else of replicad knows of this package but app.py, for the word ``dev``.
"""

from replicad.dev.cluster import DevCluster
from replicad.dev.commands import main
from replicad.dev.layout import DevNode, free_ports

__all__ = ["DevCluster", "DevNode", "free_ports", "main"]

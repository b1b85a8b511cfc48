"""How fast others do the same job on the same machine: ``python -m benchmarks.others`` (benchmarks/README.md)."""

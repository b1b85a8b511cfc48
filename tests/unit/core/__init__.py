"""Tests of replicad.core. A package, so that its modules may be called as those of other folders are."""

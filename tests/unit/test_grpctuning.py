"""What our programs put into the environment that gRPC's C core reads."""

import subprocess
import sys

import grpc
import pytest

from replicad.grpctuning import installed_version, tune

WITHOUT_EVENT_ENGINE = "-event_engine_client,-event_engine_listener"


@pytest.mark.parametrize("version", ["1.75.0", "1.85.1", "1.80.0rc1"])
def test_the_event_engine_is_switched_off_where_python_would_run_on_it(version: str) -> None:
    env: dict[str, str] = {}
    tune(env, version)
    assert env["GRPC_EXPERIMENTS"] == WITHOUT_EVENT_ENGINE


@pytest.mark.parametrize("version", ["1.51.1", "1.74.9", "1.86.0", "2.0.0"])
def test_no_experiment_is_named_to_a_release_that_may_not_know_it(version: str) -> None:
    env: dict[str, str] = {}
    tune(env, version)
    assert "GRPC_EXPERIMENTS" not in env


def test_what_somebody_has_set_stays() -> None:
    env = {"GRPC_EXPERIMENTS": "theirs", "GRPC_VERBOSITY": "DEBUG"}
    tune(env, "1.85.1")
    assert env == {"GRPC_EXPERIMENTS": "theirs", "GRPC_VERBOSITY": "DEBUG"}


def test_the_version_is_the_one_that_is_installed() -> None:
    assert installed_version() == grpc.__version__


def test_the_command_sets_it_before_anything_imports_grpc() -> None:
    """gRPC reads the environment while it is imported: what is set later has no effect, and nobody is told."""
    program = "import sys, replicad.__main__; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

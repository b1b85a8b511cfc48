"""What our programs put into the environment that gRPC's C core reads."""

import os
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


@pytest.mark.parametrize("module", ["replicad.__main__", "replicad.cli.main"])
def test_a_command_can_set_it_before_anything_imports_grpc(module: str) -> None:
    """gRPC reads the environment while it is imported: what is set later has no effect, and nobody is told."""
    program = f"import sys, {module}; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("module", ["replicad.__main__", "replicad.cli.main"])
def test_a_command_runs_with_it(module: str) -> None:
    program = (
        f"import os, sys; sys.argv[1:] = ['--help']\n"
        f"import {module} as command\n"
        f"import replicad.grpctuning as grpctuning\n"
        f"grpctuning.installed_version = lambda: '1.75.0'\n"
        f"try:\n    command.main()\nexcept SystemExit:\n    pass\n"
        f"sys.exit(os.environ.get('GRPC_EXPERIMENTS') != '{WITHOUT_EVENT_ENGINE}')"
    )
    env = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr

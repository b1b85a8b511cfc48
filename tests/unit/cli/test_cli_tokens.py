"""Tokens from the command line."""

import json
from pathlib import Path

import pytest

from replicad.cli.main import main


@pytest.mark.parametrize("step", ["create", "list", "revoke"])
def test_help_names_every_field_that_json_has(step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, json_output = str(tmp_path / "tokens.yaml"), ["--output", "json"]
    arguments = {"create": ["other", "--role", "reader"], "list": [], "revoke": ["shop", "--all"]}[step]
    assert main(["tokens", "create", "shop", "--role", "writer", "--file", file]) == 0
    capsys.readouterr()
    assert main(["tokens", step, *arguments, "--file", file, *json_output]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert main(["tokens", step, "--help"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  Json: ")]
    assert sorted(line.removeprefix("  Json: ").removesuffix(".").split(", ")) == sorted(fields)

"""The command group: what --help says, what completion gives, what is imported when."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click
import pytest

import replicad
from replicad.cli.main import COMMANDS, cli, main
from tests.support.commandline import ROOT
from tests.support.scripted_server import ScriptedServer, forever

RUN = [sys.executable, "-m", "replicad.cli"]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name, groups included."""
    context = click.Context(cli, info_name="replicad-cli")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield from commands_of(name, command)


def commands_of(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for inner, each in command.commands.items():
            yield from commands_of(f"{name} {inner}", each)


ALL = dict(commands())
OFFLINE = ("verify", "backup", "restore", "rebuild", "quarantine", "keys", "tokens", "pki", "completion")
LEAVES = [name for name, command in ALL.items() if not isinstance(command, click.Group)]


def help_of(arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*arguments.split(), "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["", *ALL])
def test_help_fits_a_terminal_of_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    too_wide = [line for line in help_of(name, capsys).splitlines() if len(line) > 79 and "replicad-cli" not in line]
    assert not too_wide


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_examples_and_the_options_that_all_have(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(name, capsys)
    assert "Examples:" in text
    assert f"    replicad-cli {name}" in text
    assert "--output [text|json]" in text
    offline = name.split(maxsplit=1)[0] in OFFLINE and name != "quarantine resubmit"
    assert ("--address HOST:PORT" in text) is not offline


@pytest.mark.parametrize("name", sorted(set(ALL) - set(LEAVES)))
def test_the_help_of_a_group_has_whole_sentences_of_its_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    listed = " ".join(help_of(name, capsys).partition("Commands:\n")[2].split())
    command = ALL[name]
    assert isinstance(command, click.Group)
    for inner, each in command.commands.items():
        [row] = re.findall(rf"(?:^|(?<=\. )){inner} (.*?\.)(?= [a-z-]+ [A-Z]|$)", listed)
        assert " ".join((each.help or "").split()).startswith(row)


def test_resubmit_says_where_its_own_defaults_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of("quarantine resubmit", capsys).split())
    assert "[default: REPLICAD_ADDRESS, else the config's nodes]" in text
    assert "[default: REPLICAD_CA, else the config's CA]" in text
    text = " ".join(help_of("list", capsys).split())
    assert "[default: REPLICAD_ADDRESS, else 127.0.0.1:50052]" in text
    assert "[default: REPLICAD_CA, else no TLS]" in text


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_has_a_help_text(name: str) -> None:
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_help_documents_the_environment_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("", capsys)
    for word in ("REPLICAD_ADDRESS", "AUTH_TOKEN", "NO_COLOR", *COMMANDS):
        assert word in text
    assert [int(code) for code in re.findall(r"^ +(\d+)  ", text, re.MULTILINE)] == [*range(12), 130, 141]


def test_no_option_takes_a_token() -> None:
    for name, command in ALL.items():
        for parameter in command.params:
            assert "token" not in (parameter.name or ""), name


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"replicad-cli {replicad.__version__}\n"


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: replicad-cli")
    assert err == ""


def run_by_shell(command: str) -> tuple[int, str, str]:
    """How `replicad-cli COMMAND` ends, redirections and all: exit code, standard output, standard error."""
    shell = ["bash", "-o", "pipefail", "-c", f"{shlex.join(RUN)} {command}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # it need not be installed, and the test may be elsewhere
    done = subprocess.run(shell, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["list", "--help", "keys generate n1"])
def test_a_closed_standard_output_is_bad_usage_and_nothing_is_done(command: str, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        code, _, err = run_by_shell(f"{command} >&-")
    assert (code, err) == (
        2,
        "error: Standard output is closed; let it go to a file, or to /dev/null\ntry: replicad-cli --help\n",
    )
    assert not list(tmp_path.iterdir())


def test_a_closed_standard_error_gets_nothing_and_nobody_else_gets_it() -> None:
    assert run_by_shell("--address 127.0.0.1:1 status 2>&-") == (7, "", "")
    code, out, _ = run_by_shell("--version 2>&-")
    assert (code, out) == (0, f"replicad-cli {replicad.__version__}\n")


@pytest.mark.parametrize("command", ["--help", "--version", "keys --help", "post --help"])
def test_a_page_of_help_ends_as_other_output_does_where_it_cannot_be_written(command: str) -> None:
    assert run_by_shell(f"{command} >/dev/full")[::2] == (
        11,
        "error: standard output cannot be written: No space left on device\n",
    )
    assert run_by_shell(f"{command} | (exec <&-; sleep 0.5)") == (141, "", "")


def test_a_standard_input_that_cannot_be_read_is_bad_usage(tmp_path: Path) -> None:
    for command in ("post", "post -", "post --lines"):
        code, out, err = run_by_shell(f"--address 127.0.0.1:1 {command} 0>{tmp_path / 'file'}")
        assert (code, out) == (2, "")
        assert "standard input cannot be read: Bad file descriptor" in err
        assert "applied: no\ntry: let standard input come from a file or a pipe" in err


def test_where_a_deed_cannot_be_told_the_error_says_that_it_is_done(tmp_path: Path) -> None:
    said = "error: standard output cannot be written: No space left on device; "
    file, key = tmp_path / "tokens.yaml", tmp_path / "n1.key"
    assert run_by_shell(f"tokens create shop --role writer --file {file} >/dev/full") == (
        11,
        "",
        f"{said}the token is lost, and its hash is in {file}\n"
        f"try: make another; then withdraw those before it: replicad-cli tokens revoke shop --file {file}\n",
    )
    assert run_by_shell(f"keys generate n1 --out {key} >/dev/full") == (
        11,
        "",
        f"{said}the key is made: {key}\ntry: the public line again: replicad-cli keys show {key} --node n1\n",
    )


async def test_where_a_post_cannot_be_told_the_error_says_where_the_message_is() -> None:
    async with ScriptedServer() as server:
        server.on_frame = lambda call, frame: call.accept(frame, first_offset=7)
        at = f"--address {server.address}"
        alone = await asyncio.to_thread(run_by_shell, f"{at} post --id mine x >/dev/full")
        as_json = await asyncio.to_thread(run_by_shell, f"{at} --output json post --id mine x >/dev/full")
        lines = await asyncio.to_thread(run_by_shell, f"{at} post --lines >/dev/full <<-END\n\ta line\nEND\n")
    said = "error: standard output cannot be written: No space left on device; "
    told = f"{said}the message is in the log: offset 7  id mine  on 2 nodes\napplied: yes, at offset 7, on 2 nodes\n"
    assert alone == (11, "", told)
    fields = json.loads(as_json[2])
    assert (as_json[0], fields["applied"], fields["offset"], fields["id"]) == (11, "yes", 7, "mine")
    assert lines[0] == 11
    assert lines[2].startswith(f"{said}all is done: posted 1 line  offsets 7 to 7")


async def test_a_list_that_waits_for_an_offset_in_vain_says_so() -> None:
    async with ScriptedServer() as server:
        server.scripts.append(lambda _: _silence())
        command = f"--address {server.address} list --min-offset 999 --timeout 1s"
        code, out, err = await asyncio.to_thread(run_by_shell, command)
    assert (code, out) == (7, "")
    assert err.endswith("\ntry: offset 999 may not be there yet: give a longer --timeout, or see replicad-cli status\n")
    assert "and --address" in run_by_shell("--address 127.0.0.1:1 list --min-offset 9 --timeout 100ms")[2]


async def _silence() -> AsyncIterator[bytes]:
    await forever()
    yield b""


def modules_after(*arguments: str) -> set[str]:
    """The modules that a run of replicad-cli has imported by its end."""
    script = (
        "import sys; from replicad.cli.main import main; code = main(sys.argv[1:]); "
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_waits_neither_for_grpc_nor_for_rich() -> None:
    assert not {"grpc", "rich", "asyncio", "cryptography", "yaml"} & modules_after("--help")


def test_a_command_in_a_pipe_does_not_wait_for_rich() -> None:
    for command in ("post", "list", "tail", "status", "verify", "bench"):
        assert "rich" not in modules_after(command, "--help")


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --no")])
def test_the_completion_script_is_clicks(shell: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert word in script
    assert f"_REPLICAD_CLI_COMPLETE={shell}_complete" in script
    assert main(["completion", shell, "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": script}


def completed(words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    env = os.environ | {
        "_REPLICAD_CLI_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(RUN, env=env, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_knows_commands_options_and_values() -> None:
    assert completed("replicad-cli ") == list(COMMANDS)
    assert completed("replicad-cli sta") == ["status"]
    assert completed("replicad-cli --out") == ["--output"]
    assert completed("replicad-cli list --le") == ["--level"]
    assert completed("replicad-cli list --level ") == ["committed", "local", "linearizable"]
    assert completed("replicad-cli post -w m") == ["majority"]
    assert completed("replicad-cli keys g") == ["generate", "generate-fernet"]

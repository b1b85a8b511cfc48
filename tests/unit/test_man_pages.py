"""The man pages: every key, option, command, exit code and event is in, and groff has nothing to say against them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from replicad.cli.errors import EXIT_CODES
from replicad.cli.main import PROGRAM, cli
from replicad.config import Config
from replicad.configkeys import Section, path_text, walk_keys
from replicad.errors import ExitCode
from replicad.logevents import EVENTS
from scripts.generate_man import pages
from scripts.roff import Page, text

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_man.py"
PAGES = pages()
groff = pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")


def rendered(page: str, *options: str) -> tuple[str, str]:
    """What a reader of the page sees, and what groff warns of."""
    command = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-P-c", "-P-b", "-P-u", *options]
    ran = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
    return " ".join(ran.stdout.split()), ran.stderr


def plain(page: str) -> str:
    """The page's text without its escapes."""
    for escape, character in {"-": "\\-", "'": "\\(aq", "`": "\\(ga", "~": "\\(ti", "^": "\\(ha", '"': "\\(dq"}.items():
        page = page.replace(character, escape)
    return re.sub(r"\\f[BIR]|\\&", "", page).replace("\\e", "\\")


def test_the_script_writes_every_page_into_a_folder_that_it_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "a" / "b")], check=True, cwd=tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "a" / "b").iterdir()} == PAGES


def test_a_page_is_the_same_each_time_and_has_the_date_that_the_build_says(tmp_path: Path) -> None:
    env = {"SOURCE_DATE_EPOCH": "1735689600", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, env=env)
    assert '"2025-01-01"' in (tmp_path / "replicad.8").read_text()
    assert pages() == PAGES


@pytest.mark.parametrize(
    ("path", "key"), list(walk_keys(Config)), ids=lambda value: path_text(value) if isinstance(value, tuple) else ""
)
def test_every_key_is_there_with_its_value_default_and_whether_reload_takes_it(path, key) -> None:  # type: ignore[no-untyped-def]
    page = plain(PAGES["replicad.yaml.5"])
    name = path_text(path).replace("[0]", "[]")
    found = re.search(rf"^\.TP\n{re.escape(name)}\n(.*)\n\.br\n(.*)$", page, re.MULTILINE)
    assert found, name
    assert found[1] == key.kind.doc
    facts = f"Value: {key.kind.form()}"
    if not isinstance(key.kind, Section):
        facts += f". Default: {'none, must be given' if key.required else key.kind.show(key.default)}"
        facts += f". Reload: {'taken' if key.kind.live else 'needs a restart'}"
    assert found[2] == f"{facts}."


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, click.Context(inner, info_name=name, parent=context))


COMMANDS = {
    context.command_path: (command, context)
    for command, context in commands(cli, click.Context(cli, info_name=PROGRAM))
}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_there_with_its_options_and_all_that_its_help_says(path: str) -> None:
    command, context = COMMANDS[path]
    page = plain(PAGES["replicad-cli.1"])
    if command is not cli:
        heading = f'.SS "{path.removeprefix(PROGRAM + " ")}"'
        page = page[page.index(heading) :].split(".SS ")[1]
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert all(option in page for option in parameter.opts), parameter.opts
            assert " ".join((parameter.help or "").split("  [")[0].split()) in page
    words = " ".join(page.split())
    for paragraph in (command.help or "").split("\n\n"):
        assert " ".join(paragraph.split()) in words.replace(".PP ", "")
    for example in re.findall(r"^  (replicad-cli .*)$", command.epilog or "", re.MULTILINE):
        assert example in page
    assert context.command_path in page


def test_there_are_several_commands() -> None:
    assert len(COMMANDS) > 10
    assert f"{PROGRAM} keys generate" in COMMANDS


def test_every_exit_code_and_event_is_there() -> None:
    client, daemon = plain(PAGES["replicad-cli.1"]), plain(PAGES["replicad.8"])
    for code, meaning in EXIT_CODES.items():
        assert f".TP\n{int(code)}\n{meaning}\n" in client
    for code in (ExitCode.OK, ExitCode.FAILED, ExitCode.USAGE, ExitCode.CONFIG, ExitCode.STORAGE):
        assert f".TP\n{int(code)}\n{EXIT_CODES[code]}\n" in daemon
    for event, kind in EVENTS.items():
        assert f".TP\n{event}{' *' if kind.repeats else ''}\n{kind.meaning}\n.br\n{kind.message_id}\n" in daemon
    for option in ("--config FILE", "--check-config", "--version", "--base-port PORT"):
        assert option in daemon


@groff
@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say_against_a_page(name: str) -> None:
    seen, warnings = rendered(PAGES[name])
    assert warnings == ""
    assert "NAME" in seen
    assert "\\" not in seen.replace("\\n", ""), "an escape shows"


@groff
def test_groff_would_say_so() -> None:
    assert "macro" in rendered(PAGES["replicad.8"] + ".NO_SUCH_MACRO\n")[1]


@groff
@pytest.mark.parametrize(
    "odd", [".TH of a macro", "'br", "a\\fBc", '"quoted"', "--long-option -x", "~/.zfunc ^a `b`", "a\n.SH b", "\\(aq"]
)
def test_whatever_stands_in_a_text_shows_as_it_stands(odd: str) -> None:
    page = Page("x", 1, date="", source="")
    page.paragraph(text(odd))
    page.literal(odd)
    page.section(odd.replace("\n", " "))
    seen, warnings = rendered(page.content())
    assert warnings == ""
    assert seen.count(" ".join(odd.split())) == 3, seen

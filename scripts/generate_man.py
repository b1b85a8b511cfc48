"""Generate the man pages into a folder: replicad.8, replicad.yaml.5 and replicad-cli.1.

Owns the pages' order and the words between. What the program says of itself is taken from where it says it: options
from the parsers, keys from the config's annotations, events and exit codes from their tables. So nothing drifts, and a
page for a tree is made by that tree. Runs on the runtime's dependencies alone, from a checkout, installed or not.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from replicad import __version__, app
from replicad.cli.errors import EXIT_CODES
from replicad.cli.main import PROGRAM, cli
from replicad.config import Config
from replicad.configkeys import Section, Sections, keys_of, path_text, walk_keys
from replicad.configvalues import Duration, Size
from replicad.dev import commands as dev
from replicad.errors import ExitCode
from replicad.logevents import EVENTS
from scripts.roff import Page, bold, italic, text

DAEMON_EXIT_CODES = (ExitCode.OK, ExitCode.FAILED, ExitCode.USAGE, ExitCode.CONFIG, ExitCode.STORAGE)

ENVIRONMENT = {
    "PORT": "The port to listen on, in place of the one of listen in the config.",
    "MACHINE_ID": "This node's name, in place of node in the config.",
    "AUTH_TOKEN": "The token that clients and other nodes have to show, the same on all nodes. It has no other place.",
    "CREDENTIALS_DIRECTORY": "Set by systemd. The file node.key in it is the node's key, tls.key that of its"
    " certificate; either may be missing.",
    "NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM": "Set by systemd; see sd_notify(3) and systemd.exec(5).",
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate the man pages.")
    parser.add_argument("outdir", type=Path, help="the folder to write them into; it is made if need be")
    outdir: Path = parser.parse_args().outdir
    outdir.mkdir(parents=True, exist_ok=True)
    for name, content in pages().items():
        (outdir / name).write_text(content, encoding="utf-8")
    return 0


def pages() -> dict[str, str]:
    """Every page's file name and content."""
    return {"replicad.8": daemon_page(), "replicad.yaml.5": config_page(), "replicad-cli.1": cli_page()}


def begin(name: str, section: int, summary: str) -> Page:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")  # a build that is to be repeated says when it is
    date = time.strftime("%Y-%m-%d", time.gmtime(int(epoch))) if epoch else ""
    page = Page(name, section, date=date, source=f"replicad {__version__}")
    page.section("NAME")
    page.paragraph(f"{text(name)} \\- {text(summary)}")
    return page


# --- replicad(8) ------------------------------------------------------------------------------------------------------


def daemon_page() -> str:
    page = begin("replicad", 8, "a durable, ordered, signed message log: the node's daemon")
    page.section("SYNOPSIS")
    page.synopsis("replicad", "[--config FILE] [--check-config]")
    page.synopsis("replicad dev", "[OPTION]...")
    page.section("DESCRIPTION")
    page.prose(
        "`replicad` keeps a log that is replicated from one master to its workers. A node is one daemon with one config"
        " file, replicad.yaml(5). The master puts messages in order, signs and stores them, and sends them to the"
        " workers; a post is answered when as many nodes as it asks for have it on disk. Clients use replicad-cli(1)."
    )
    page.prose(
        "`replicad dev` runs a whole cluster on this machine, for trying it out; `replicad dev --help` tells more."
    )
    page.section("OPTIONS")
    for option, effect in argparse_options(app._parser()):
        page.tagged(bold(option), text(effect))
    page.subsection("replicad dev")
    for option, effect in argparse_options(dev._parser()):
        page.tagged(bold(option), text(effect))
    page.section("SIGNALS")
    page.tagged(
        bold("SIGTERM, SIGINT"),
        text("Take no more posts, answer what is under way (timeouts.stop), leave within 10 s. Exit code 0."),
    )
    page.tagged(
        bold("SIGHUP"),
        text(
            "Read the config again. Keys that reload takes (replicad.yaml(5) says which) hold at once; each other key"
            " that differs is named in a warning and stays until a restart. A config with a fault changes nothing."
        ),
    )
    page.section("UNDER SYSTEMD")
    page.prose(
        "The daemon tells the service manager when it is ready: a worker when it listens, a master when its epoch is"
        " open, which needs a majority of the nodes. Until then `systemctl start` waits, and the status line of"
        " `systemctl status` says for whom; more time is asked for as long as the start gets on or waits for others."
        " `systemctl start --no-block` does not wait."
    )
    page.prose(
        "The watchdog is fed only while the event loop runs and no write to the disk hangs. A start that fails leaves"
        " its reason as the status. With python3-systemd, each log record has fields of its own in the journal:"
    )
    page.literal("journalctl -u replicad PEER=node-2\njournalctl -u replicad EVENT=refused -o verbose")
    page.section("ENVIRONMENT")
    for name, meaning in ENVIRONMENT.items():
        page.tagged(bold(name), text(meaning))
    page.section("FILES")
    page.tagged(italic(app.DEFAULT_CONFIG), text("The config, where no other is named; see replicad.yaml(5)."))
    page.tagged(italic("/var/lib/replicad"), text("The log, where the packaged config has its data_dir."))
    exit_status(page, {code: EXIT_CODES[code] for code in DAEMON_EXIT_CODES})
    page.section("EVENTS")
    page.prose(
        "The log has one line an event. Events marked with * repeat while their cause lasts: the first ones are logged,"
        " then ever fewer, with left_out, the count of those between. The number is the MESSAGE_ID in the journal."
    )
    for event, kind in EVENTS.items():
        page.tagged(f"{bold(event)}{' *' if kind.repeats else ''}", f"{text(kind.meaning)}\n.br\n{kind.message_id}")
    see_also(page, "replicad.yaml(5)", "replicad-cli(1)", "journalctl(1)", "systemctl(1)")
    return page.content()


def argparse_options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:  # argparse has no public list
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        help_text = (action.help or "") % {"default": action.default, "prog": parser.prog}
        yield ", ".join(f"{flag}{value}" for flag in action.option_strings) or str(action.metavar), help_text


# --- replicad.yaml(5) -------------------------------------------------------------------------------------------------


def config_page() -> str:
    page = begin("replicad.yaml", 5, "the config of one replicad node")
    page.section("SYNOPSIS")
    page.paragraph(italic(app.DEFAULT_CONFIG))
    page.section("DESCRIPTION")
    page.prose(
        "The config is YAML, one mapping. Keys with no default must be given; all others may be left out. Every fault"
        " is told, with its line and the remedy, by `replicad --config FILE --check-config`, and at a start."
    )
    page.prose(
        f"Durations are written like 500ms, 5s, 2m or 1h ({', '.join(Duration.units)}), or as a number of seconds;"
        f" sizes like 512KiB or 1MiB ({', '.join(Size.units)}), or as a number of bytes."
    )
    page.prose(
        "At a reload (SIGHUP, `systemctl reload replicad`) the file is read again. Below, `Reload: taken` is a key"
        " whose new value holds from then on; a change of any other needs a restart, which the log says."
    )
    for heading, paths in (("KEYS", top_keys()), *sections()):
        if heading == "KEYS":
            page.section(heading)
        else:
            page.subsection(heading)
        for path in paths:
            describe_key(page, path)
    page.section("ENVIRONMENT")
    for name in ("PORT", "MACHINE_ID", "AUTH_TOKEN", "CREDENTIALS_DIRECTORY"):
        page.tagged(bold(name), text(ENVIRONMENT[name]))
    page.section("EXAMPLES")
    page.prose("A cluster of one; an example for each role is in /usr/share/doc/replicad/examples.")
    page.literal(
        "cluster: example\nnode: node-1\nrole: master\nlisten: 127.0.0.1:50052\ndata_dir: /var/lib/replicad\n"
        "key: /etc/replicad/node.key\nnodes:\n  - name: node-1\n    address: 127.0.0.1:50052\n"
        "    public_key: node-1+...        # from: replicad-cli keys generate node-1"
    )
    see_also(page, "replicad(8)", "replicad-cli(1)")
    return page.content()


def top_keys() -> list[tuple[str | int, ...]]:
    return [(key.name,) for key in keys_of(Config)]


def sections() -> Iterator[tuple[str, list[tuple[str | int, ...]]]]:
    """Each section's heading and the paths of its keys."""
    for path, key in walk_keys(Config):
        name = path_text(path).replace("[0]", "[]")
        match key.kind:
            case Section(of=of):
                yield f"Keys of {name}", [(*path, inner.name) for inner in keys_of(of)]
            case Sections(of=of):
                yield f"Keys of each of {name}", [(*path, 0, inner.name) for inner in keys_of(of)]


def describe_key(page: Page, path: tuple[str | int, ...]) -> None:
    key = dict(walk_keys(Config))[path]
    kind = key.kind
    facts = {"Value": kind.form()}
    if not isinstance(kind, Section):
        facts["Default"] = "none, must be given" if key.required else kind.show(key.default)
        facts["Reload"] = "taken" if kind.live else "needs a restart"
    line = ". ".join(f"{name}: {fact}" for name, fact in facts.items())
    page.tagged(bold(path_text(path).replace("[0]", "[]")), f"{text(kind.doc)}\n.br\n{text(line)}.")


# --- replicad-cli(1) --------------------------------------------------------------------------------------------------


def cli_page() -> str:
    page = begin("replicad-cli", 1, "talk to a replicad log: post messages, read records, look after nodes")
    root = click.Context(cli, info_name=PROGRAM, **cli.context_settings)
    page.section("SYNOPSIS")
    page.synopsis(PROGRAM, " ".join(cli.collect_usage_pieces(root)))
    page.section("DESCRIPTION")
    help_text(page, cli)
    page.section("OPTIONS")
    click_options(page, cli, root)
    page.section("COMMANDS")
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        if command is not None:
            describe_command(page, command, root)
    exit_status(page, {int(code): meaning for code, meaning in EXIT_CODES.items()})
    blocks(page, cli, but=("Exit codes",))
    see_also(page, "replicad(8)", "replicad.yaml(5)")
    return page.content()


def describe_command(page: Page, command: click.Command, parent: click.Context) -> None:
    context = click.Context(command, info_name=command.name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    page.subsection(context.command_path.removeprefix(f"{PROGRAM} "))
    page.synopsis(context.command_path, usage)
    help_text(page, command)
    click_options(page, command, context)
    blocks(page, command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                describe_command(page, inner, context)


def click_options(page: Page, command: click.Command, context: click.Context) -> None:
    for parameter in command.get_params(context):
        record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(context)
        if record is not None:  # an argument is told of in the text; newer releases of click list it, too
            option, effect = record
            page.tagged(bold(option), text(re.sub(r"\s+\[(.*)\]$", r" (\1)", effect)))


def help_text(page: Page, command: click.Command) -> None:
    for paragraph in (command.help or "").split("\n\n"):
        page.prose(" ".join(paragraph.split()))


def blocks(page: Page, command: click.Command, *, but: tuple[str, ...] = ()) -> None:
    """The paragraphs behind the options, which are printed as they stand; those of the whole program as sections."""
    for block in (command.epilog or "").split("\b\n")[1:]:
        heading, _, body = block.strip("\n").partition("\n")
        title = heading.removesuffix(":")
        if title in but:
            continue
        if not (heading.endswith(":") and body):
            for paragraph in re.split(r"\n(?=\S)", block.strip()) if command is not cli else ():
                page.prose(" ".join(paragraph.split()))
        elif command is cli:
            page.section(title.upper())
            page.literal(body)
        else:
            page.prose(heading)
            page.literal(body)


# --- what pages share -------------------------------------------------------------------------------------------------


def exit_status(page: Page, codes: dict[int, str]) -> None:
    page.section("EXIT STATUS")
    for code, meaning in codes.items():
        page.tagged(bold(str(int(code))), text(meaning))


def see_also(page: Page, *others: str) -> None:
    page.section("SEE ALSO")
    page.paragraph(",\n".join(re.sub(r"(.*)(\(\d\))", lambda m: f"{bold(m[1])}{m[2]}", other) for other in others))


if __name__ == "__main__":
    sys.exit(main())

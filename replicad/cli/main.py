"""The command group: which commands there are, and how each run of the program ends.

Owns the table of commands, the exit code and the last word on every error. A command's module is imported when the
command is called: a shell that completes a word, or ``--help``, must not wait for gRPC.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from replicad import __version__, grpctuning
from replicad.cli.errors import (
    CLOSED_OUTPUT,
    EXIT_CODES,
    INTERRUPTED,
    Failure,
    Interrupted,
    expected_failure,
    unexpected_failure,
)
from replicad.cli.options import Session, common_options, epilog, wants_json
from replicad.cli.output import (
    OutputClosed,
    abandon_output,
    flush_output,
    need_output,
    never_fail_to_encode,
    stand_in_for_standard_error,
    unwritten_page,
)
from replicad.errors import ExitCode

PROGRAM = "replicad-cli"

#: Each command's module under replicad.cli, and what `replicad-cli --help` says of it.
COMMANDS: dict[str, tuple[str, str]] = {
    "post": ("post", "Post a message, or one for each line of standard input."),
    "list": ("listing", "Print records of the log."),
    "tail": ("tail", "Follow the log: print its records, then each new one."),
    "outcome": ("outcome", "Say whether and where an id stands in the log."),
    "status": ("status", "Show all nodes: role, state, sizes, lag, root."),
    "switchover": ("switchover", "Have the master hand over to another node."),
    "promote": ("promote", "Make a node the master, when the one there was is gone."),
    "verify": ("verify", "Prove a data folder or a backup, offline, with public keys alone."),
    "backup": ("backup", "Copy a node's log into one file, while it runs."),
    "restore": ("restore", "Make a backup the log of a node that has none."),
    "rebuild": ("rebuild", "Make a damaged log anew, of what is whole and of other nodes' copies."),
    "quarantine": ("quarantine", "Look after what a node took off the end of its log."),
    "keys": ("keys", "Make, show and replace keys, of nodes and for encryption."),
    "tokens": ("tokens", "Make, list and withdraw tokens."),
    "pki": ("pki", "Make a CA and certificates for nodes and clients."),
    "bench": ("bench.command", "Measure five workloads."),
    "completion": ("completion", "Print the completion script of a shell."),
}

_EXIT_CODES = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())
_EPILOG = epilog(
    """\
Environment:
  REPLICAD_ADDRESS  HOST:PORT of nodes, with commas between
  AUTH_TOKEN        the cluster's bearer token; `ps` would show an option
  REPLICAD_CA       TLS, to nodes whose certificate is of a CA in this file
  REPLICAD_CERTIFICATE, REPLICAD_KEY
                    files by which nodes know us, at their mutual addresses
  FERNET_KEY        keys that payloads are encrypted with, the newest first,
                    with commas between; or, in a file, a key a line:
  REPLICAD_FERNET_KEY_FILE
  NO_COLOR          when set, no colours on a terminal either""",
    f"Exit codes:\n{_EXIT_CODES}",
    """\
Examples:
  replicad-cli post "hello, log"
  replicad-cli list --limit 10
  replicad-cli status --output json | jq .size
  AUTH_TOKEN=$(cat token) replicad-cli --address 127.0.0.1:50053 tail""",
    "Each command has its own: replicad-cli post --help",
)


class Commands(click.Group):
    """A group that knows its commands' names and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"replicad.cli.{COMMANDS[cmd_name][0]}")
        command = module.command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=help_line)
            for name, (_, help_line) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    PROGRAM,
    cls=Commands,
    epilog=_EPILOG,
    no_args_is_help=False,  # which releases of click end with 0, and which with 2, is not alike
    context_settings={"help_option_names": ["-h", "--help"]},
)
@common_options
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Talk to a replicad log: post messages, read records, look after nodes.

    --address and --output may stand before or after the command. Results go to standard output, errors to standard
    error; with --output json each is one object a line, and nothing else is on standard output.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``replicad-cli`` with these arguments (None: the process's); the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    stand_in_for_standard_error()
    grpctuning.tune(os.environ, grpctuning.installed_version())  # before a command's module imports gRPC
    never_fail_to_encode()
    session, stdout = Session(json=wants_json(arguments)), sys.stdout
    try:
        need_output()
        result = cli.main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=session)
        flush_output()
        return result if isinstance(result, int) else ExitCode.OK
    except OutputClosed:
        abandon_output()
        return CLOSED_OUTPUT
    except SystemExit:
        if sys.stdout is stdout:  # else click has wrapped it, which is how it ends `--help | true`
            raise
        abandon_output()
        return CLOSED_OUTPUT
    except (Interrupted, click.Abort, KeyboardInterrupt):
        abandon_output()
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt is not to stand behind the terminal's ^C
        return INTERRUPTED
    except Exception as exc:  # whatever it is, it ends in a message and an exit code
        with contextlib.suppress(OutputClosed, Failure):
            flush_output()
        return _report(unwritten_page(exc) if isinstance(exc, OSError) else exc, session)


def _report(exc: Exception, session: Session) -> int:
    """Tell of the error; the exit code."""
    failure = expected_failure(exc)
    if failure is None:
        failure = unexpected_failure(exc)
        if not session.json:
            traceback.print_exception(exc)
    with contextlib.suppress(OSError):  # standard error may be closed: the exit code still tells
        print(failure.as_json() if session.json else failure.as_text(), file=sys.stderr, flush=True)
    return failure.exit_code

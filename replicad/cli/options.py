"""What all commands take: --address, the TLS files, --output and --help; and the kinds of values that options have.

Owns the reading of command line values. Must not know commands, and imports nothing that starts slowly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

FORMATS = ("text", "json")
DEFAULT_CONFIG = "/etc/replicad.yaml"
LEVELS = ("committed", "local", "linearizable")
DAY_S = 86_400.0  # a longer timeout is a mistake
MAX_PAYLOAD_BYTES = 64 << 20  # no log takes more: docs/formats.md

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|)")
_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_MAX_NUMBER = (1 << 63) - 1

if TYPE_CHECKING:
    _Kind = click.ParamType[Any]
else:
    _Kind = click.ParamType  # generic only in newer releases of click than Debian's

_Function = TypeVar("_Function", bound=Callable[..., Any])


class FilePath(click.Path):
    """A file's path, or with ``folder`` a folder's that may be made. To pathlib an empty one, which a variable gives
    that nobody has set, is this folder, and a folder that is not there (``backups/``) is a file."""

    def __init__(self, *, folder: bool = False) -> None:
        super().__init__(path_type=Path, readable=False)  # whoever reads it tells why it can't be read
        self._may_be_made = folder

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if not text:
            self.fail("the path is empty; is a variable not set?", param, ctx)
        if text.endswith(os.sep) and not self._may_be_made and not os.path.isdir(text):  # noqa: PTH112 - as it is given
            self.fail(f"{text} is no folder that is there; make it, or leave out the {os.sep} at its end", param, ctx)
        return super().convert(value, param, ctx)


@dataclass(slots=True)
class Session:
    """What the options that all commands have say."""

    addresses: list[str] = field(default_factory=list)  # empty: REPLICAD_ADDRESS, or the client's default
    json: bool = False
    ca: str | None = None  # None: from the environment
    certificate: str | None = None
    key: str | None = None


def _add_addresses(ctx: click.Context, _: click.Parameter, values: tuple[str, ...]) -> None:
    ctx.ensure_object(Session).addresses.extend(values)


def _set_output(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Session).json = value == "json"


def output_option(function: _Function) -> _Function:
    """Adds --output, which every command and group has."""
    return click.option(
        "--output",
        type=click.Choice(FORMATS),
        callback=_set_output,
        expose_value=False,
        is_eager=True,
        help="How results and errors are printed; json: one object a line.  [default: text]",
    )(function)


def config_option(help_text: str) -> Callable[[_Function], _Function]:
    """Adds --config, as ``config_file``, which every command has that works on the files of this host's node."""
    return click.option(
        "--config",
        "config_file",
        type=FilePath(),
        default=DEFAULT_CONFIG,
        show_default=True,
        metavar="FILE",
        help=help_text,
    )


def address_option(help_text: str) -> Callable[[_Function], _Function]:
    """Adds --address, which every command has that speaks to nodes."""
    return click.option(
        "--address", multiple=True, metavar="HOST:PORT", callback=_add_addresses, expose_value=False, help=help_text
    )


def _set_file(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        setattr(ctx.ensure_object(Session), str(parameter.name), value)


def tls_options(function: _Function, *, otherwise: str = "no TLS") -> _Function:
    """Adds --ca, --certificate and --key, which every command has that speaks to nodes; ``otherwise`` is what serves
    as CA where none is given."""
    for name, help_text in (
        ("key", "Its private key.  [default: REPLICAD_KEY]"),
        ("certificate", "Our certificate, for nodes' mutual addresses.  [default: REPLICAD_CERTIFICATE]"),
        ("ca", f"TLS, to nodes of these CAs.  [default: REPLICAD_CA, else {otherwise}]"),
    ):
        function = click.option(
            f"--{name}",
            type=click.Path(readable=False),
            metavar="FILE",
            callback=_set_file,
            expose_value=False,
            help=help_text,
        )(function)
    return function


def common_options(function: _Function) -> _Function:
    """Adds all of these."""
    return _node_options("127.0.0.1:50052", ca="no TLS")(function)


def common_options_with_config(function: _Function) -> _Function:
    """The same, where a node's config knows the others."""
    return _node_options("the config's nodes", ca="the config's CA")(function)


def _node_options(nodes: str, *, ca: str) -> Callable[[_Function], _Function]:
    """``nodes`` and ``ca`` are the defaults where neither the command line nor the environment has any."""
    text = f"A node of the cluster; more than one may be given.  [default: REPLICAD_ADDRESS, else {nodes}]"
    return lambda function: address_option(text)(tls_options(output_option(function), otherwise=ca))


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether --output json is among the arguments; also where they are otherwise wrong, so that even that is told in
    the right format."""
    value = ""
    for position, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == "--output" and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif argument.startswith("--output="):
            value = argument.removeprefix("--output=")
    return value == "json"


def epilog(*paragraphs: str) -> str:
    """Paragraphs for the end of a help page, to be printed as they are."""
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in paragraphs)


class Group(click.Group):
    """A group whose help has the first sentence of each command whole; click's own cuts it at 45 characters or so."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, _first_sentence(self.commands[name].help or "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0]


class Duration(_Kind):
    """``5s``, ``500ms``, ``2m``, ``1h``, or a number of seconds; gives seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is not a duration; write 5s, 500ms, 2m or a number of seconds", param, ctx)
        seconds = float(match[1]) * _SECONDS[match[2]]
        if not 0.001 <= seconds <= DAY_S:
            self.fail(f"{value!r} is not within 1ms to 24h", param, ctx)
        return seconds


class Size(_Kind):
    """``100``, ``1KiB``, ``1MiB``; gives bytes, 1 at the least."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _SIZE.fullmatch(str(value))
        size_bytes = int(match[1]) * _BYTES[match[2]] if match else 0
        if not 1 <= size_bytes <= MAX_PAYLOAD_BYTES:
            self.fail(f"{value!r} is not a size; write 100, 1KiB or 1MiB, 64MiB at the most", param, ctx)
        return size_bytes


class Offset(_Kind):
    """An offset or a count: 0 or more."""

    name = "number"

    def __init__(self, what: str = "an offset", *, at_least: int = 0, at_most: int = _MAX_NUMBER) -> None:
        self._what = what
        self._at_least = at_least
        self._at_most = at_most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        lowest, highest = self._at_least, self._at_most
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and lowest <= int(text) <= highest):
            self.fail(f"{value!r} is not {self._what}; write a number from {lowest} to {highest}", param, ctx)
        return int(text)


class Moment(_Kind):
    """A time: ISO 8601, UTC unless it says otherwise, or ms since 1970 UTC; gives those ms."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and len(text) <= 15:
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
            since_1970 = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is not a time; write 2026-01-31T12:00:00Z, 2026-01-31 or ms since 1970", param, ctx)
        ms = since_1970.days * 86_400_000 + since_1970.seconds * 1000 + since_1970.microseconds // 1000
        if ms < 0:
            self.fail(f"{text!r} is before 1970", param, ctx)
        return ms


class WriteConcern(_Kind):
    """A number of nodes, majority or all; whether there are so many nodes, the master knows."""

    name = "write concern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text in ("majority", "all") or re.fullmatch(r"0*[1-9][0-9]{0,3}", text):
            return text
        return self.fail(f"{text!r} is not a number from 1, majority or all", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in ("1", "majority", "all") if word.startswith(incomplete)]


class Header(_Kind):
    """KEY=VALUE."""

    name = "header"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{value!r} is not UTF-8", param, ctx)
        return key, text


def key_file_option(help_text: str) -> Callable[[_Function], _Function]:
    """Adds --fernet-key-file. The keys themselves are never on a command line, where `ps` would show them."""
    return click.option("--fernet-key-file", "key_file", type=FilePath(), metavar="FILE", help=help_text)


def timeout_option(default: str, help_text: str) -> Callable[[_Function], _Function]:
    """Adds --timeout, in seconds as ``timeout_s``."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=Duration(),
        default=default,
        show_default=True,
        metavar="DURATION",
        help=help_text,
    )

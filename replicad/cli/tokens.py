"""``replicad-cli tokens``: who may call, in a tokens file. What an entry means, :mod:`replicad.access` owns."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import click

from replicad import tokensfile
from replicad.access import RESERVED_NAMES, Principal, Role, Roles, hash_of, new_token, time_text
from replicad.cli.errors import Failure
from replicad.cli.options import FilePath, Group, Session, Size, epilog, output_option
from replicad.cli.output import Output, columns_text
from replicad.configvalues import is_name
from replicad.errors import ExitCode

DAY_S = 86_400
MAX_DAYS = 36_500  # as a certificate's; whoever means longer means for ever, and leaves it out
_LIFETIME = re.compile(r"([1-9][0-9]{0,5})(m|h|d)")
_SECONDS = {"m": 60, "h": 3600, "d": DAY_S}
_TAKES_EFFECT = (
    "it takes effect when the nodes reload: systemctl reload replicad (SIGHUP), on each that reads this file"
)


class Lifetime(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer releases only
    """``90d``, ``12h``, ``30m``; gives seconds."""

    name = "lifetime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = _LIFETIME.fullmatch(str(value))
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 0 < seconds <= MAX_DAYS * DAY_S:
            self.fail(f"{value!r} is not a lifetime; write 90d, 12h or 30m, {MAX_DAYS}d at the most", param, ctx)
        return seconds


file_option = click.option(
    "--file",
    "path",
    type=FilePath(),
    required=True,
    metavar="FILE",
    help="The tokens file: what tokens_file in the config names.",
)


@click.group("tokens", cls=Group, no_args_is_help=False)
@output_option
def command() -> None:
    """Make, list and withdraw tokens. The file holds their hashes alone."""


@command.command(
    "create",
    epilog=epilog(
        """\
Json: name, token, roles, by, source, expires, rate, rate_bytes.""",
        """\
Examples:
  replicad-cli tokens create shop --role writer --file /etc/replicad/tokens.yaml
  replicad-cli tokens create audit --role reader --expires 90d --file tokens.yaml > token""",
    ),
)
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="May be repeated.",
)
@click.option("--expires", "lifetime_s", type=Lifetime(), metavar="LIFETIME", help="90d, 12h or 30m.  [default: never]")
@click.option("--rate", type=click.IntRange(1, 1_000_000_000), help="Messages a second that NAME may post.")
@click.option("--rate-bytes", type=Size(), metavar="SIZE", help="Bytes a second that NAME may post: 1MiB.")
@file_option
@output_option
@click.pass_obj
def create(
    session: Session,
    *,
    name: str,
    roles: tuple[str, ...],
    lifetime_s: int | None,
    rate: int | None,
    rate_bytes: int | None,
    path: Path,
) -> None:
    """Make a token for NAME: printed this once, its hash goes into the file.

    NAME may have several: make the new one, hand it out, reload, and then revoke the old one. A further token of a name
    has the rates of the first, where none are given.
    """
    if not is_name(name) or name in RESERVED_NAMES:
        raise click.UsageError(f"{name!r} can't be a name: 1 to 64 of a-z 0-9 . _ -; not {', '.join(RESERVED_NAMES)}.")
    first = next((each for each in tokensfile.load(path) if each.name == name), None) if path.exists() else None
    token = new_token()
    principal = Principal(
        name,
        frozenset(Role(role) for role in roles),
        hash=hash_of(token),
        expires_at=float(int(time.time()) + lifetime_s) if lifetime_s else 0.0,
        rate=rate or (first.rate if first else 0),
        rate_bytes=rate_bytes or (first.rate_bytes if first else 0),
    )
    tokensfile.add(path, principal)
    Output(session).tell(
        token,
        {**_fields(principal), "token": token},
        done=f"the token is lost, and its hash is in {path}",
        remedy=f"make another; then withdraw those before it: replicad-cli tokens revoke {name} --file {path}",
    )
    _tell(session, f"{name}: its hash is in {path}; this is the only time the token is shown; {_TAKES_EFFECT}")


@command.command(
    "list",
    epilog=epilog(
        """\
Json: name, roles, by, source, expires, expired, rate, rate_bytes.""",
        """\
Examples:
  replicad-cli tokens list --file /etc/replicad/tokens.yaml""",
    ),
)
@file_option
@output_option
@click.pass_obj
def list_tokens(session: Session, path: Path) -> None:
    """Show who may call, an entry a line. There are no tokens in the file to be shown."""
    principals, output, now_s = tokensfile.load(path), Output(session), time.time()
    if session.json:
        for each in principals:
            output.show("", {**_fields(each), "expired": each.expired(now_s)})
        return
    rows = [("NAME", "ROLES", "KNOWN BY", "EXPIRES", "RATE", "RATE BYTES")]
    for each in principals:
        expires = time_text(each.expires_at) if each.expires_at else "never"
        expires += " (expired)" if each.expired(now_s) else ""
        source = each.certificate and f"certificate {each.certificate}"
        rates = (str(each.rate or ""), str(each.rate_bytes or ""))
        rows.append((each.name, Roles("").show(each.roles), source or each.hash[: len("sha256:") + 8], expires, *rates))
    output.write(columns_text(rows))


@command.command(
    "revoke",
    epilog=epilog(
        """\
Json: name, revoked.""",
        """\
Examples:
  replicad-cli tokens revoke shop --all --file /etc/replicad/tokens.yaml
  replicad-cli tokens revoke shop --file tokens.yaml    # all but its newest, at the end of a rotation""",
    ),
)
@click.argument("name")
@click.option("--all", "every", is_flag=True, help="The newest too: NAME is shut out.")
@file_option
@output_option
@click.pass_obj
def revoke(session: Session, name: str, every: bool, path: Path) -> None:
    """Withdraw the tokens of NAME: its older ones, with --all every one. Open streams of theirs end at the reload."""
    entries = [each for each in tokensfile.load(path) if each.name == name]
    if not entries:
        raise Failure(f"{path} has no entry of {name}", exit_code=ExitCode.NOT_FOUND)
    if len(entries) == 1 and not every:
        remedy = f"replicad-cli tokens revoke {name} --all --file {path}"
        raise Failure(f"{name} has one entry: without it, it is shut out", exit_code=ExitCode.USAGE, remedy=remedy)
    count = tokensfile.remove(path, name, keep_newest=not every)
    entries_text = "1 entry" if count == 1 else f"{count} entries"
    Output(session).show(f"{name}: {entries_text} withdrawn", {"name": name, "revoked": count})
    _tell(session, _TAKES_EFFECT)


def _fields(principal: Principal) -> dict[str, object]:
    return {
        "name": principal.name,
        "roles": [role.value for role in Role if role in principal.roles],
        "by": "token" if principal.hash else "certificate",
        "source": principal.source,
        "expires": time_text(principal.expires_at) if principal.expires_at else None,
        "rate": principal.rate or None,
        "rate_bytes": principal.rate_bytes or None,
    }


def _tell(session: Session, text: str) -> None:
    if not session.json:
        click.echo(text, err=True)

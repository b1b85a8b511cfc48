"""``replicad-cli pki``: a CA in a folder, and what it issues. What is in a certificate, :mod:`replicad.pki` owns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from replicad import certificates, pki
from replicad.cli.options import FilePath, Group, Offset, Session, epilog, output_option
from replicad.cli.output import Output, columns_text
from replicad.errors import OperatorError
from replicad.pki import Authority, Entry

DEFAULT_DIR = Path("pki")

_TITLES = ("NAME", "KIND", "SUBJECT", "NAMES", "USE", "ENDS", "ISSUED BY", "FILE")
_DAYS = Offset("a number of days", at_least=1, at_most=pki.MAX_DAYS)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _dir_option(function: _Function) -> _Function:
    return click.option(
        "--dir",
        "folder",
        type=FilePath(folder=True),
        default=DEFAULT_DIR,
        show_default=True,
        metavar="DIR",
        help="The CA's folder. Keep it off the nodes: who has its ca.key can make nodes.",
    )(output_option(function))


def _days_option(default: int) -> Callable[[_Function], _Function]:
    return click.option(
        "--days",
        type=_DAYS,
        default=default,
        show_default=True,
        metavar="N",
        help=f"How long it is valid, {pki.MAX_DAYS} at the most; never longer than its CA.",
    )


_force_option = click.option("--force", is_flag=True, help="Replace what is there.")


@click.group("pki", cls=Group, no_args_is_help=False)
@output_option
def command() -> None:
    """Make a CA and certificates for nodes and clients.

    For those who have no PKI of their own. Copy to each node its NAME.crt and NAME.key, and ca.crt to everybody. A
    certificate that is put in the old one's place is taken within seconds, with no restart.
    """


@command.command(
    "init",
    epilog=epilog(
        """\
Json: as pki show has it, of the CA; made: whether it was made now.""",
        """\
Examples:
  replicad-cli pki init
  replicad-cli pki init --dir ~/replicad-pki --name "Example log CA\"""",
    ),
)
@click.option("--name", default="replicad CA", show_default=True, metavar="NAME", help="Its common name begins so.")
@_days_option(pki.CA_DAYS)
@_dir_option
@click.pass_obj
def init(session: Session, folder: Path, name: str, days: int) -> None:
    """Make a CA in DIR: ca.key, which is secret, and ca.crt, which everybody gets. One that is there stays."""
    authority, made = Authority.create(folder, name=name, days=days, now=_now())
    _show(Output(session), authority.entries()[:1], made=made)


@command.group("issue", cls=Group, no_args_is_help=False)
@output_option
def issue() -> None:
    """Issue a certificate with a new key: DIR/NAME.crt and DIR/NAME.key."""


@issue.command(
    "node",
    epilog=epilog(
        """\
Json: as pki show has it; made: whether it was made now.""",
        """\
Examples:
  replicad-cli pki issue node node-1 --host log-1.example.org --host 192.0.2.1""",
    ),
)
@click.argument("name")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    metavar="HOST|IP",
    help="A host name or IP address by which clients reach the node; more than one may be given.",
)
@_days_option(pki.LEAF_DAYS)
@_force_option
@_dir_option
@click.pass_obj
def issue_node(session: Session, *, folder: Path, name: str, hosts: tuple[str, ...], days: int, force: bool) -> None:
    """For node NAME, as the config calls it. The same once more leaves it as it is."""
    _issue(session, folder, name, kind=pki.NODE, hosts=hosts, days=days, force=force)


@issue.command(
    "client",
    epilog=epilog(
        """\
Json: as pki show has it; made: whether it was made now.""",
        """\
Examples:
  replicad-cli pki issue client billing""",
    ),
)
@click.argument("name")
@_days_option(pki.LEAF_DAYS)
@_force_option
@_dir_option
@click.pass_obj
def issue_client(session: Session, folder: Path, name: str, days: int, force: bool) -> None:
    """For a client that is to be known as NAME. The same once more leaves it as it is."""
    _issue(session, folder, name, kind=pki.CLIENT, hosts=(), days=days, force=force)


def _issue(
    session: Session, folder: Path, name: str, *, kind: str, hosts: tuple[str, ...], days: int, force: bool
) -> None:
    with Authority.changing(folder) as authority:
        entry, made = authority.issue(name, kind=kind, hosts=hosts, days=days, now=_now(), force=force)
    _show(Output(session), [entry], made=made)


@command.command(
    "renew",
    epilog=epilog(
        """\
Json: as pki show has it, an object a certificate.""",
        """\
Examples:
  replicad-cli pki renew                       # all nodes and clients
  replicad-cli pki renew --within 30           # those that end within 30 days
  replicad-cli pki renew node-1""",
        """\
A new CA, with no stop; wait after each step until all nodes have it:
  replicad-cli pki renew ca                    # 1. hand out ca.crt: old and new
  replicad-cli pki renew                       # 2. hand out each NAME.crt, .key
  replicad-cli pki renew ca --drop-old         # 3. hand out ca.crt: new alone""",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--within",
    type=Offset("a number of days"),
    metavar="DAYS",
    help="Only those that end within so many days.",
)
@click.option("--keep-key", is_flag=True, help="Keep the private key: for nodes that have it as a credential.")
@click.option("--drop-old", is_flag=True, help="With the name ca: leave only the newest CA in ca.crt.")
@click.option(
    "--days",
    type=_DAYS,
    metavar="N",
    help=f"How long they are valid.  [default: {pki.LEAF_DAYS}; a CA: {pki.CA_DAYS}]",
)
@_force_option
@_dir_option
@click.pass_obj
def renew(
    session: Session,
    *,
    folder: Path,
    names: tuple[str, ...],
    within: int | None,
    keep_key: bool,
    drop_old: bool,
    days: int | None,
    force: bool,
) -> None:
    """The same names with a new lifetime and a new key: of NAME..., else of all nodes and clients.

    The name ca stands for the CA itself: a new one is made beside the old, and issues from then on.
    """
    if pki.CA in names:
        if len(names) > 1 or within is not None:
            raise click.UsageError("The name ca stands alone: its steps are for all nodes to follow one by one.")
        with Authority.changing(folder) as authority:
            if drop_old:
                authority.drop_old_cas(force=force)
            else:
                authority.add_ca(days=days or pki.CA_DAYS, now=_now(), force=force)
        _show(Output(session), [entry for entry in authority.entries() if entry.kind == pki.CA])
        return
    if drop_old:
        raise click.UsageError("--drop-old goes with the name ca.")
    with Authority.changing(folder) as authority:
        renewed = _renewed(authority, names, within=within, days=days or pki.LEAF_DAYS, keep_key=keep_key)
    _show(Output(session), renewed)
    if not (renewed or session.json):
        which = "there is no certificate of a node or client" if within is None else f"none ends within {within} days"
        click.echo(f"nothing is to be renewed: {which}", err=True)


def _renewed(
    authority: Authority, names: Sequence[str], *, within: int | None, days: int, keep_key: bool
) -> list[Entry]:
    now = _now()
    entries = [_found(authority, name) for name in names] or [e for e in authority.entries() if e.kind != pki.CA]
    if within is not None:
        end_s = now.timestamp() + within * certificates.DAY_S
        entries = [entry for entry in entries if entry.expires_s <= end_s]
    return [authority.renew(entry, days=days, now=now, keep_key=keep_key) for entry in entries]


@command.command(
    "show",
    epilog=epilog(
        """\
Json, an object a certificate: name, kind (ca, node or client), subject,
  names (SAN), usages, expires_ms, issuer, file, current (a CA: whether it
  issues; others: whether they are of the CA that does).""",
        """\
Examples:
  replicad-cli pki show
  replicad-cli pki show --output json | jq -r 'select(.kind == "node") | .name'""",
    ),
)
@_dir_option
@click.pass_obj
def show(session: Session, folder: Path) -> None:
    """Show all certificates in DIR: what for, which names, until when."""
    _show(Output(session), Authority.open(folder).entries())


def _found(authority: Authority, name: str) -> Entry:
    entry = authority.find(name)
    if entry is None:
        raise OperatorError(f"{authority.folder}/{name}.crt is not there; pki issue makes it, pki show has all names")
    return entry


def _show(output: Output, entries: list[Entry], *, made: bool | None = None) -> None:
    if output.json:
        for entry in entries:
            output.show("", _fields(entry) | ({} if made is None else {"made": made}))
        return
    if made is False:
        click.echo("it is there already, and stays as it is", err=True)
    if entries:
        output.write(columns_text([_TITLES, *(_cells(entry) for entry in entries)]))


def _fields(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "subject": entry.certificate.subject.rfc4514_string(),
        "names": entry.names,
        "usages": pki.usages(entry.certificate),
        "expires_ms": int(entry.expires_s * 1000),
        "issuer": entry.certificate.issuer.rfc4514_string(),
        "current": entry.current,
        "file": str(entry.file),
    }


def _cells(entry: Entry) -> tuple[str, ...]:
    old = "" if entry.current else " (old)"
    issuer = "itself" if entry.kind == pki.CA else entry.certificate.issuer.rfc4514_string()
    subject, names = entry.certificate.subject.rfc4514_string(), ",".join(entry.names) or "-"
    use = "+".join(pki.usages(entry.certificate))
    ends = certificates.day(entry.expires_s)
    return (entry.name, entry.kind + old, subject, names, use, ends, issuer, str(entry.file))


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)

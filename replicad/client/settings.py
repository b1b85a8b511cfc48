"""What a client is told when it is made: addresses, token, timeout, write concern; from arguments or environment."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replicad.client.tls import TlsFiles
from replicad.configvalues import is_loopback, split_address
from replicad.errors import BadRequest

DEFAULT_ADDRESS = "127.0.0.1:50052"
ADDRESS_VARIABLE = "REPLICAD_ADDRESS"
TOKEN_VARIABLE = "AUTH_TOKEN"  # noqa: S105 - the variable's name
MAX_CONCERN_DIGITS = 9  # far more nodes than there can be
LONGEST_S = 1e9  # 30 years: beyond some 200, gRPC takes a call's time for over before it begins

CA_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE = "REPLICAD_CA", "REPLICAD_CERTIFICATE", "REPLICAD_KEY"


@dataclass(frozen=True, slots=True)
class Settings:
    """1. ``addresses`` has at least one HOST:PORT, none twice. 2. ``timeout_s`` is positive and finite.
    3. Without ``tls`` and with a token, every address is on this machine.
    """

    addresses: tuple[str, ...]
    token: str = field(repr=False)  # "" for none
    timeout_s: float
    write_concern: str  # "" for the server's default
    tls: TlsFiles | None = None


def make_settings(
    addresses: str | Sequence[str] | None,
    *,
    token: str | None,
    timeout_s: float,
    write_concern: str | int | None,
    ca: str | Path | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> Settings:
    """Settings from arguments, and from the environment where those are None. Raises ValueError."""
    if addresses is None:
        addresses = env.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    stripped = _addresses(addresses)
    token = checked_token(env.get(TOKEN_VARIABLE, "") if token is None else token)
    tls = _tls_files(
        env.get(CA_VARIABLE, "") if ca is None else ca,
        env.get(CERTIFICATE_VARIABLE, "") if certificate is None else certificate,
        env.get(KEY_VARIABLE, "") if key is None else key,
    )
    if token and tls is None and (open_to_all := [each for each in stripped if not stays_here(each)]):
        raise ValueError(
            f"the token would go to {open_to_all[0]} unencrypted, for all on the way to read; give the nodes' CA bundle"
            f" (--ca, {CA_VARIABLE}), or reach them by a tunnel that ends on this machine"
        )
    return Settings(
        addresses=stripped,
        token=token,
        timeout_s=checked_timeout(timeout_s),
        write_concern=checked_concern(write_concern),
        tls=tls,
    )


def _addresses(given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        given = given.split(",")
    elif not isinstance(given, Iterable):
        raise ValueError(f"addresses is {type(given).__name__}; give HOST:PORT, or a list of them")
    stripped = [address.strip() if isinstance(address, str) else address for address in given]
    if not any(stripped):
        raise ValueError("no address of a node; give HOST:PORT")
    return tuple(dict.fromkeys(checked_address(address) for address in stripped if address))


def checked_address(address: str) -> str:
    """The address. Raises ValueError: gRPC would take a port beyond 65535 for another one."""
    if not isinstance(address, str) or split_address(address) is None:
        raise ValueError(
            f"address {address!r} is not HOST:PORT; write it like 127.0.0.1:50052 or [::1]:50052, port 1 to 65535"
        )
    return address


def checked_token(token: str) -> str:
    """The token. Raises ValueError, which shows nothing of it, for what no call can carry."""
    if not isinstance(token, str):
        raise ValueError(f"token is {type(token).__name__}; give it as text")
    if re.fullmatch("[!-~]*", token) is None:
        raise ValueError(
            "token holds white space, a line's end or what is not printable ASCII, which no token has; give the token"
            f" alone, without the rest of the file or line that it stands in (token, {TOKEN_VARIABLE})"
        )
    return token


def stays_here(address: str) -> bool:
    """Whether what is sent to HOST:PORT does not leave this machine."""
    split = split_address(address)
    return split is not None and is_loopback(split[0])


def _tls_files(ca: str | Path, certificate: str | Path, key: str | Path) -> TlsFiles | None:
    for name, path in (("ca", ca), ("certificate", certificate), ("key", key)):
        if not isinstance(path, str | Path):
            raise ValueError(f"{name} is {type(path).__name__}; give the path of a PEM file")
    if bool(certificate) != bool(key):
        missing, there = ("key", "certificate") if certificate else ("certificate", "key")
        raise ValueError(f"a {there} is given without its {missing}: --{missing} FILE, or REPLICAD_{missing.upper()}")
    if certificate and not ca:
        raise ValueError(f"a certificate is given without the CA bundle to know nodes by: --ca FILE, or {CA_VARIABLE}")
    return TlsFiles(str(ca), str(certificate), str(key)) if ca else None


def checked_timeout(timeout_s: float) -> float:
    """The timeout, LONGEST_S at the most. Raises ValueError unless it is a positive number of seconds."""
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not (is_number and 0 < timeout_s <= sys.float_info.max):
        raise ValueError(f"timeout {timeout_s!r} is not a positive number of seconds")
    return min(float(timeout_s), LONGEST_S)


def checked_concern(write_concern: str | int | None) -> str:
    """The write concern as it is sent; None is "", the server's default. Raises BadRequest for what is none."""
    if write_concern is None:
        return ""
    text = str(write_concern)
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_CONCERN_DIGITS
    if text not in ("", "majority", "all") and not (is_number and int(text) > 0):
        raise BadRequest(f"write concern {text[:32]!r} is not a number from 1, majority or all")
    return text

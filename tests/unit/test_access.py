"""Who may do what: the tokens file's rules, tokens and certificates, and who is refused and how."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest

from replicad.access import (
    ALL_ROLES,
    ANONYMOUS,
    NODES,
    REFUSAL,
    RULES,
    TOKEN_PREFIX,
    Book,
    Principal,
    Refused,
    Role,
    hash_of,
    judge,
    new_token,
    parse,
)
from replicad.errors import Forbidden

HASHES = [hash_of(f"token {number}") for number in range(4)]


def entry(**changes: Any) -> dict[str, Any]:
    made = {"name": "shop", "roles": ["writer"], "hash": HASHES[0]} | changes
    return {key: value for key, value in made.items() if value is not None}


def faults(*entries: object) -> list[str]:
    principals, found = parse({"principals": list(entries)}, nodes=["node-1"])
    assert bool(found) is not bool(principals)
    return [fault.line() for fault in found]


def test_a_good_entry_is_read_with_all_that_it_says() -> None:
    text = {"expires": "2027-01-31T12:00:00Z", "rate": 10, "rate_bytes": "1MiB"}
    [found], none = parse({"principals": [entry(**text)]})
    assert none == []
    assert found == Principal("shop", frozenset({Role.WRITER}), HASHES[0], "", 1801396800.0, 10, 1 << 20)
    assert parse({"principals": []}) == ((), [])


FAULTS = {
    "no role": (entry(roles=[]), "principals[0].roles: is a list; write a list"),
    "a role in plain text": (entry(roles="writer"), "principals[0].roles: is 'writer'; write a list"),
    "a role misspelt": (entry(roles=["writr"]), "did you mean writer?"),
    "a token": (entry(hash=f"{TOKEN_PREFIX}secret"), "principals[0].hash: is a token itself (not shown)"),
    "a token as a key": (entry(token="secret"), "principals[0].token: a token (not shown) has no place"),
    "half a hash": (entry(hash="sha256:12"), "is not sha256: and 64 hex digits"),
    "neither": (entry(hash=None), "principals[0]: has neither a hash nor a certificate"),
    "both": (entry(certificate="shop.example"), "principals[0]: has a hash and a certificate"),
    "a certificate as node": (entry(hash=None, certificate="x", roles=["node"]), "remove the role"),
    "a node's certificate": (entry(hash=None, certificate="node-1"), "names a node of the config"),
    "a node's name": (entry(name="node-1"), "principals[0].name: is node-1, a node of the config"),
    "the shared token's name": (entry(name="token"), "which the node itself gives out"),
    "anonymous": (entry(name="anonymous"), "which the node itself gives out"),
    "a time": (entry(expires="soon"), "principals[0].expires: is 'soon', not a time"),
    "a rate": (entry(rate=0), "principals[0].rate: is 0; write a number from 1"),
    "another key": (entry(role=["writer"]), "principals[0].role: no such key; did you mean roles?"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_an_entry_is_told_with_its_remedy(name: str) -> None:
    wrong, part = FAULTS[name]
    [line] = faults(wrong)
    assert part in line
    assert "; " in line
    assert "secret" not in line


def test_every_fault_is_told_at_once() -> None:
    assert len(faults(entry(roles=["boss"], hash="x"), 5, entry(name="A", hash=HASHES[1]))) == 4


def test_a_token_stands_once_and_a_name_has_one_rate() -> None:
    assert "is the same as principals[0].hash" in faults(entry(), entry(name="other"))[0]
    assert "a rate is the name's" in faults(entry(rate=1), entry(rate=2, hash=HASHES[1]))[0]
    principals, none = parse({"principals": [entry(rate=1), entry(rate=1, hash=HASHES[1], roles=["reader"])]})
    assert (len(principals), none) == (2, [])


def test_a_token_has_a_prefix_and_256_bits_and_never_comes_twice() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"rpcd_[A-Za-z0-9_-]{43}", token) for token in tokens)


def book(*principals: Principal, **more: Any) -> Book:
    return Book(principals, nodes=["node-1"], **more)


SHOP = Principal("shop", frozenset({Role.WRITER}), hash=hash_of("t"), expires_at=1000.0)
CERTIFIED = Principal("billing", frozenset({Role.READER}), certificate="billing.example")


def test_a_token_is_found_whole_and_nothing_that_is_near_it() -> None:
    found = book(SHOP)
    assert found.by_token("t") == SHOP
    assert [found.by_token(token) for token in ("", "T", "t ", "tt", SHOP.hash)] == [None] * 5


def test_the_shared_token_has_all_roles_unless_the_file_says_otherwise() -> None:
    shared = book(shared_token="s" * 20).by_token("s" * 20)
    assert shared is not None
    assert (shared.name, shared.roles) == ("token", ALL_ROLES)
    narrow = Principal("nodes", frozenset({Role.NODE}), hash=hash_of("s" * 20))
    assert book(narrow, shared_token="s" * 20).by_token("s" * 20) == narrow


def test_a_certificate_that_names_a_node_is_that_node_before_all_else() -> None:
    found = book(CERTIFIED).by_certificate(["billing.example", "node-1"])
    assert found is not None
    assert (found.name, found.roles) == ("node-1", frozenset({Role.NODE}))
    assert book(CERTIFIED).by_certificate(["billing.example"]) == CERTIFIED
    assert book(CERTIFIED).by_certificate(["other.example"]) is None


def test_an_expired_one_and_a_missing_one_get_the_very_same_refusal() -> None:
    with pytest.raises(Refused) as caught:
        judge(SHOP, (Role.WRITER,), now_s=1000.0, secure=False)
    assert (caught.value.message, caught.value.reason, caught.value.principal) == (REFUSAL, "expired", "shop")
    judge(SHOP, (Role.WRITER,), now_s=999.9, secure=False)
    assert Refused("missing").message == caught.value.message


def test_a_missing_role_is_named_and_over_tls_no_token_makes_a_node() -> None:
    with pytest.raises(Forbidden, match="shop lacks the role reader"):
        judge(SHOP, (Role.READER,), now_s=0.0, secure=False)
    node = Principal("nodes", frozenset({Role.NODE}), hash=HASHES[0])
    judge(node, NODES, now_s=0.0, secure=False)
    with pytest.raises(Forbidden, match="certificate"):
        judge(node, NODES, now_s=0.0, secure=True)


def test_an_admin_may_see_how_the_nodes_are_and_read_no_record() -> None:
    admin = Principal("operator", frozenset({Role.ADMIN}), hash=HASHES[0])
    may = set()
    for path, rule in RULES.items():
        with contextlib.suppress(Forbidden):
            judge(admin, rule or tuple(Role), now_s=0.0, secure=False)
            may.add(path.rpartition("/")[2])
    assert may - {"Check", "Watch", "ServerReflectionInfo"} == {"Promote", "Switchover", "Status"}
    with pytest.raises(Forbidden, match="shop lacks the role reader or admin, which"):
        judge(SHOP, (Role.READER, Role.ADMIN), now_s=0.0, secure=False)


def test_who_was_let_in_is_judged_again_by_the_book_as_it_is_now() -> None:
    book(SHOP).again(SHOP, (Role.WRITER,), now_s=0.0, secure=False)
    with pytest.raises(Refused) as caught:
        book().again(SHOP, (Role.WRITER,), now_s=0.0, secure=False)
    assert caught.value.reason == "revoked"
    with pytest.raises(Forbidden):
        book(Principal("shop", frozenset({Role.READER}), hash=SHOP.hash)).again(
            SHOP, (Role.WRITER,), now_s=0.0, secure=False
        )
    book(is_open=True).again(ANONYMOUS, (Role.WRITER,), now_s=0.0, secure=False)
    with pytest.raises(Refused):
        book().again(ANONYMOUS, (Role.WRITER,), now_s=0.0, secure=False)


def test_without_principals_a_book_is_open_only_where_it_is_said() -> None:
    assert not book().is_open
    assert book(is_open=True).is_open
    assert not book(is_open=True, shared_token="s" * 20).is_open

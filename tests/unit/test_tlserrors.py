"""What gRPC's C core says of a failed handshake, in the words of its releases 1.51 and 1.85, and what we make of it."""

from __future__ import annotations

import pytest

from replicad.tlserrors import _MEANINGS, explain, remedy

FAILED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
CLOSED = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed"


@pytest.mark.parametrize(
    ("details", "meaning"),
    [
        (f"{FAILED}Peer name node-2 is not in peer certificate", "other names"),
        (f"{FAILED}Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.",
         "other names"),
        (f"{FAILED}Ssl handshake failed: SSL_ERROR_SSL: error:0A000086:SSL routines::certificate verify failed",
         "of no CA in the bundle"),
        (f"{FAILED}Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"
         "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
         "of no CA in the bundle"),
        (f"{FAILED}Tls handshake failed: OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
         "its certificate has expired"),
        (f"{FAILED}Ssl handshake failed: SSL_ERROR_SSL: error:0A00010B:SSL routines::wrong version number",
         "does not speak TLS"),
        (f"{FAILED}Tls handshake failed: OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification",
         "does not speak TLS"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_other_side_is_said(details: str, meaning: str) -> None:
    assert meaning in explain(details, secure=True, certificate=False)


def test_a_connection_that_is_cut_off_is_explained_by_what_we_came_with() -> None:
    assert "may want TLS" in explain(CLOSED, secure=False, certificate=False)
    assert "asks for a client certificate" in explain(CLOSED, secure=True, certificate=False)
    assert "does not take our certificate" in explain(CLOSED, secure=True, certificate=True)


@pytest.mark.parametrize("details", ["", "Socket closed", f"{FAILED}Failed to connect to remote host: refused"])
def test_what_has_nothing_to_do_with_tls_is_left_as_it_is(details: str) -> None:
    assert explain(details, secure=True, certificate=True) == ""


@pytest.mark.parametrize("came_with", [(False, False), (True, False), (True, True)])
def test_each_meaning_has_its_remedy(came_with: tuple[bool, bool]) -> None:
    secure, certificate = came_with
    said = [CLOSED, *(f"{FAILED}{sign}" for signs, _ in _MEANINGS for sign in signs)]
    for details in said:
        meaning = explain(details, secure=secure, certificate=certificate)
        assert meaning
        assert remedy(f"127.0.0.1:1: {meaning} ({details})")
    assert remedy("127.0.0.1:1: Connection refused") == ""

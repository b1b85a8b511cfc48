"""What gRPC says of a connection that TLS did not let come about, in words for who can mend it. Pure."""

from __future__ import annotations

#: (what gRPC's C core says, in any of its releases; what that means)
_MEANINGS = (
    (
        ("is not in peer certificate", "Hostname Verification"),
        "its certificate is for other names than the one dialled",
    ),
    (("certificate has expired",), "its certificate has expired"),
    (
        ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed"),
        "its certificate is of no CA in the bundle, or expired",
    ),
    (("WRONG_VERSION_NUMBER", "wrong version number"), "it does not speak TLS there"),
)
_REFUSED = "it ended the handshake: it does not take our certificate (expired, or of a CA that it does not have)"
_ASKED = "it ended the handshake: it asks for a client certificate"
_PLAIN = "it may want TLS: give a CA"
#: What a client can do about it, by its meaning.
_REMEDIES = {
    "its certificate is for other names than the one dialled": "give --address as one of the names in its certificate",
    "its certificate has expired": "renew the node's certificate: replicad-cli pki renew, or as your CA does it",
    "its certificate is of no CA in the bundle, or expired": "give these nodes' CA bundle: --ca FILE, or REPLICAD_CA",
    "it does not speak TLS there": "correct --address, or leave out --ca and unset REPLICAD_CA",
    _REFUSED: "renew the client's certificate, and see that the nodes' `tls.ca` has its CA",
    _ASKED: "give --certificate and --key, or the nodes' addresses for callers with a token",
    _PLAIN: "give the nodes' CA bundle: --ca FILE, or REPLICAD_CA",
}
_CUT_OFF = ("Socket closed", "Connection reset", "connection reset")
_CONNECTING = "failed to connect to all addresses"


def explain(details: str, *, secure: bool, certificate: bool) -> str:
    """The remedy behind gRPC's ``details``, or "": ``secure`` and ``certificate`` are what we came with."""
    for signs, meaning in _MEANINGS:
        if any(sign in details for sign in signs):
            return meaning
    if _CONNECTING in details and any(sign in details for sign in _CUT_OFF):
        if certificate:
            return _REFUSED
        return _ASKED if secure else _PLAIN
    return ""


def remedy(text: str) -> str:
    """What a client can do about an error whose text has one of these meanings; "" for any other."""
    return next((remedy for meaning, remedy in _REMEDIES.items() if meaning in text), "")

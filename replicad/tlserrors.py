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
_CUT_OFF = ("Socket closed", "Connection reset", "connection reset")
_CONNECTING = "failed to connect to all addresses"


def explain(details: str, *, secure: bool, certificate: bool) -> str:
    """The remedy behind gRPC's ``details``, or "": ``secure`` and ``certificate`` are what we came with."""
    for signs, meaning in _MEANINGS:
        if any(sign in details for sign in signs):
            return meaning
    if _CONNECTING in details and any(sign in details for sign in _CUT_OFF):
        if certificate:
            return (
                "it ended the handshake: it does not take our certificate (expired, or of a CA that it does not have)"
            )
        return "it ended the handshake: it asks for a client certificate" if secure else "it may want TLS: give a CA"
    return ""

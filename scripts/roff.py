"""Writes a page in man(7)'s macros, so that whatever stands in a text shows as it stands.

Owns escaping. Must not know what the pages are about.
"""

from __future__ import annotations

import re

_ESCAPES = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def text(plain: str) -> str:
    """Plain text as roff: also one that begins with a dot, which would be a macro."""
    escaped = "".join(_ESCAPES.get(character, character) for character in plain)
    return re.sub(r"^\.", r"\\&.", escaped, flags=re.MULTILINE)


def bold(plain: str) -> str:
    return f"\\fB{text(plain)}\\fR"


def italic(plain: str) -> str:
    return f"\\fI{text(plain)}\\fR"


class Page:
    """A man page that grows."""

    def __init__(self, name: str, section: int, *, date: str, source: str) -> None:
        self._lines = [
            f'.TH "{text(name.upper())}" "{section}" "{date}" "{text(source)}" "replicad"',
            ".nh",  # no hyphenation: names of keys and options stand in the text
            ".ad l",
        ]

    def section(self, title: str) -> None:
        self._lines.append(f'.SH "{text(title)}"')

    def subsection(self, title: str) -> None:
        self._lines.append(f'.SS "{text(title)}"')

    def paragraph(self, roff: str) -> None:
        self._lines += [".PP", roff]

    def prose(self, plain: str) -> None:
        """A paragraph in which `such` is a command or a word of the config, and name(8) another page."""
        parts = re.split(r"`([^`]+)`|\b([a-z][a-z.-]+)(?=\([1-8]\))", plain)
        roff = ""
        for index, part in enumerate(parts):
            roff += (text(part) if index % 3 == 0 else bold(part)) if part else ""
        self.paragraph(roff)

    def synopsis(self, command: str, arguments: str) -> None:
        self.paragraph(f"{bold(command)} {text(arguments)}")

    def tagged(self, tag: str, roff: str) -> None:
        self._lines += [".TP", tag, roff]

    def literal(self, plain: str) -> None:
        """Lines that stay as they are."""
        self._lines += [".PP", ".RS 4", ".nf", text(plain), ".fi", ".RE"]

    def content(self) -> str:
        return "\n".join(self._lines) + "\n"

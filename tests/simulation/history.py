"""What was posted, and what was said about it: the clients' side of the story.

Owns every message ever made and how many of its posts may have been applied. Must not know of nodes or logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replicad.core.record import Messages

Content = tuple[str, bytes, bytes]  # id, payload, encoded headers


@dataclass(slots=True, eq=False)
class Message:
    """1. ``open_posts`` counts the posts of it that reached a master and were not answered applied=no."""

    content: Content
    posts: int = 0  # that reached a master
    open_posts: int = 0
    settled: bool = False  # the client knows all it wants to know

    @property
    def id(self) -> str:
        return self.content[0]

    @property
    def may_be_applied(self) -> bool:
        return self.open_posts > 0

    def posted(self) -> None:
        self.posts += 1
        self.open_posts += 1

    def refused(self) -> None:
        """One of its posts was answered applied=no."""
        self.open_posts -= 1


@dataclass(slots=True, eq=False)
class Attempt:
    """A frame as posted once."""

    messages: list[Message]
    nodes: int
    deadline: float
    good: set[int] = field(default_factory=set)  # indexes that were answered with an offset

    def concluded(self, index: int) -> None:
        self.good.add(index)

    def frame(self) -> Messages:
        headers = [message.content[2] for message in self.messages]
        payloads = [message.content[1] for message in self.messages]
        size_bytes = sum(map(len, payloads)) + sum(map(len, headers))
        return Messages([m.id for m in self.messages], payloads, headers if any(headers) else [], size_bytes)


class History:
    """All messages of a simulation, by content."""

    def __init__(self) -> None:
        self.messages: dict[Content, Message] = {}

    def message(self, content: Content) -> Message:
        """The message of that content, made when there is none."""
        return self.messages.setdefault(content, Message(content))

    def fault_of_record(self, content: Content) -> str | None:
        """Why a record of this content must not be in a committed log, or None."""
        message = self.messages.get(content)
        if message is None:
            return "nobody posted that content"
        if not message.may_be_applied:
            return "every post of it was answered applied=no"
        return None

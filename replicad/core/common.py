"""Finding the last size on which two logs agree, in log(n) questions.

Owns the search. Must not know what follows from it.
"""

from __future__ import annotations

from replicad.core.effects import Effect, ReadRoot, Send
from replicad.core.frames import RootQuery, Welcome
from replicad.core.ownlog import OwnLog


class CommonSize:
    """The search for the largest size at which two logs have the same root.

    The logs are taken to agree at ``low`` until that has been asked too: the last answer always stands for a real
    comparison of roots.

    1. Ask about :attr:`question` until it is None; then :attr:`agreed` is the size, or -1: they part below ``low``.
    """

    __slots__ = ("_differs", "_low", "_proven", "question")

    def __init__(self, *, low: int, high: int) -> None:
        self._low, self._differs = low, high + 1
        self._proven = False  # whether the roots at _low were compared
        self.question: int | None = high

    @property
    def agreed(self) -> int:
        return self._low if self._proven else -1

    def answer(self, same: bool) -> None:
        asked = self.question
        if asked is None:
            return
        if same:
            self._low, self._proven = asked, True
        elif asked <= self._low:
            self.question = None  # they part even below what was taken for granted
            return
        else:
            self._differs = asked
        if self._differs - self._low > 1:
            self.question = (self._low + self._differs) // 2
        else:
            self.question = None if self._proven else self._low


class RootSearch:
    """:class:`CommonSize` put to work against one peer: gets both roots at each size in question and compares them.

    Roots that are known (in memory, or told in the peer's Welcome) are not asked for.
    """

    __slots__ = ("_own", "_peer_root", "_search", "_session", "_welcome", "peer")

    def __init__(self, peer: str, session: int, welcome: Welcome, *, low: int, high: int) -> None:
        self.peer = peer
        self._session, self._welcome = session, welcome
        self._search = CommonSize(low=min(low, high), high=high)
        self._own: bytes | None = None
        self._peer_root: bytes | None = None

    @property
    def agreed(self) -> int | None:
        """The size, once it is found; -1: they part below ``low``."""
        return self._search.agreed if self._search.question is None else None

    def ask(self, log: OwnLog) -> list[Effect]:
        """Start, or go on with the next question."""
        while (size := self._search.question) is not None:
            self._own = log.known_root(size)
            self._peer_root = self._welcome.root if size == self._welcome.size else None
            effects: list[Effect] = []
            if self._own is None:
                log.roots_asked += 1
                effects.append(ReadRoot(self.peer, self._session, size))
            if self._peer_root is None:
                effects.append(Send(self.peer, RootQuery(size)))
            if effects:
                return effects
            self._search.answer(self._own == self._peer_root)
        return []

    def own_root(self, size: int, root: bytes, log: OwnLog) -> list[Effect]:
        if size == self._search.question:
            self._own = root
        return self._compare(log)

    def peer_root(self, size: int, root: bytes, log: OwnLog) -> list[Effect]:
        if size == self._search.question:
            self._peer_root = root
        return self._compare(log)

    def _compare(self, log: OwnLog) -> list[Effect]:
        if self._own is None or self._peer_root is None:
            return []
        self._search.answer(self._own == self._peer_root)
        self._own = self._peer_root = None
        return self.ask(log)

"""The methods of the services Log and Control by name. Requests and responses go as bytes; the codec reads them."""

from __future__ import annotations

from typing import Final

_LOG: Final = "/replicad.wire.v1.Log/"

POST_STREAM: Final = _LOG + "PostStream"
LIST: Final = _LOG + "List"
TAIL: Final = _LOG + "Tail"
OUTCOME: Final = _LOG + "Outcome"
STATUS: Final = _LOG + "Status"

_CONTROL: Final = "/replicad.wire.v1.Control/"

PROMOTE: Final = _CONTROL + "Promote"
SWITCHOVER: Final = _CONTROL + "Switchover"

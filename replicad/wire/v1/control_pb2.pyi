from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PromoteRequest(_message.Message):
    __slots__ = ["accept_data_loss", "timeout_ms"]
    ACCEPT_DATA_LOSS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    accept_data_loss: bool
    timeout_ms: int
    def __init__(self, timeout_ms: _Optional[int] = ..., accept_data_loss: bool = ...) -> None: ...

class PromoteResponse(_message.Message):
    __slots__ = ["epoch", "node", "size"]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    node: str
    size: int
    def __init__(self, node: _Optional[str] = ..., epoch: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class SwitchoverRequest(_message.Message):
    __slots__ = ["timeout_ms", "to"]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    timeout_ms: int
    to: str
    def __init__(self, to: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class SwitchoverResponse(_message.Message):
    __slots__ = ["master"]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    master: str
    def __init__(self, master: _Optional[str] = ...) -> None: ...

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Ack(_message.Message):
    __slots__ = ["probe", "size"]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    probe: int
    size: int
    def __init__(self, size: _Optional[int] = ..., probe: _Optional[int] = ...) -> None: ...

class Align(_message.Message):
    __slots__ = ["size"]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class Aligned(_message.Message):
    __slots__ = ["size"]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class Append(_message.Message):
    __slots__ = ["batch", "commit_size"]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    COMMIT_SIZE_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    commit_size: int
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., commit_size: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ["body", "count", "epoch", "first_offset", "root", "signature", "signer", "time_ms"]
    BODY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SIGNER_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    count: int
    epoch: int
    first_offset: int
    root: bytes
    signature: bytes
    signer: str
    time_ms: int
    def __init__(self, epoch: _Optional[int] = ..., first_offset: _Optional[int] = ..., count: _Optional[int] = ..., time_ms: _Optional[int] = ..., root: _Optional[bytes] = ..., signer: _Optional[str] = ..., signature: _Optional[bytes] = ..., body: _Optional[bytes] = ...) -> None: ...

class BatchesRequest(_message.Message):
    __slots__ = ["cluster", "from_offset", "until_offset"]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    FROM_OFFSET_FIELD_NUMBER: _ClassVar[int]
    UNTIL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    from_offset: int
    until_offset: int
    def __init__(self, cluster: _Optional[str] = ..., from_offset: _Optional[int] = ..., until_offset: _Optional[int] = ...) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ["cluster"]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    def __init__(self, cluster: _Optional[str] = ...) -> None: ...

class EndResponse(_message.Message):
    __slots__ = ["size"]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class Fetch(_message.Message):
    __slots__ = ["from_offset", "max_bytes"]
    FROM_OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    from_offset: int
    max_bytes: int
    def __init__(self, from_offset: _Optional[int] = ..., max_bytes: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ["commit_size", "probe"]
    COMMIT_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    commit_size: int
    probe: int
    def __init__(self, commit_size: _Optional[int] = ..., probe: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ["cluster", "epoch", "master"]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    epoch: int
    master: str
    def __init__(self, cluster: _Optional[str] = ..., master: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Inquiry(_message.Message):
    __slots__ = ["cluster", "node"]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    node: str
    def __init__(self, cluster: _Optional[str] = ..., node: _Optional[str] = ...) -> None: ...

class MasterFrame(_message.Message):
    __slots__ = ["align", "append", "fetch", "heartbeat", "hello", "inquiry", "root_query", "take_over"]
    ALIGN_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    INQUIRY_FIELD_NUMBER: _ClassVar[int]
    ROOT_QUERY_FIELD_NUMBER: _ClassVar[int]
    TAKE_OVER_FIELD_NUMBER: _ClassVar[int]
    align: Align
    append: Append
    fetch: Fetch
    heartbeat: Heartbeat
    hello: Hello
    inquiry: Inquiry
    root_query: RootQuery
    take_over: TakeOver
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., root_query: _Optional[_Union[RootQuery, _Mapping]] = ..., align: _Optional[_Union[Align, _Mapping]] = ..., append: _Optional[_Union[Append, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., fetch: _Optional[_Union[Fetch, _Mapping]] = ..., inquiry: _Optional[_Union[Inquiry, _Mapping]] = ..., take_over: _Optional[_Union[TakeOver, _Mapping]] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ["promised_epoch", "promised_to", "reason", "text"]
    PROMISED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROMISED_TO_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    promised_epoch: int
    promised_to: str
    reason: str
    text: str
    def __init__(self, reason: _Optional[str] = ..., text: _Optional[str] = ..., promised_epoch: _Optional[int] = ..., promised_to: _Optional[str] = ...) -> None: ...

class Root(_message.Message):
    __slots__ = ["root", "size"]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    root: bytes
    size: int
    def __init__(self, size: _Optional[int] = ..., root: _Optional[bytes] = ...) -> None: ...

class RootQuery(_message.Message):
    __slots__ = ["size"]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ["asks", "last_epoch", "leads", "node", "promised_epoch", "promised_to", "size"]
    ASKS_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEADS_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    PROMISED_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROMISED_TO_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    asks: bool
    last_epoch: int
    leads: bool
    node: str
    promised_epoch: int
    promised_to: str
    size: int
    def __init__(self, node: _Optional[str] = ..., promised_epoch: _Optional[int] = ..., promised_to: _Optional[str] = ..., last_epoch: _Optional[int] = ..., size: _Optional[int] = ..., leads: bool = ..., asks: bool = ...) -> None: ...

class Supply(_message.Message):
    __slots__ = ["batches", "size"]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    batches: _containers.RepeatedCompositeFieldContainer[Batch]
    size: int
    def __init__(self, batches: _Optional[_Iterable[_Union[Batch, _Mapping]]] = ..., size: _Optional[int] = ...) -> None: ...

class TakeOver(_message.Message):
    __slots__ = ["epoch"]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ["commit_size", "last_epoch", "node", "root", "size"]
    COMMIT_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    commit_size: int
    last_epoch: int
    node: str
    root: bytes
    size: int
    def __init__(self, node: _Optional[str] = ..., last_epoch: _Optional[int] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ..., commit_size: _Optional[int] = ...) -> None: ...

class WorkerFrame(_message.Message):
    __slots__ = ["ack", "aligned", "refused", "root", "standing", "supply", "welcome"]
    ACK_FIELD_NUMBER: _ClassVar[int]
    ALIGNED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    SUPPLY_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ack: Ack
    aligned: Aligned
    refused: Refused
    root: Root
    standing: Standing
    supply: Supply
    welcome: Welcome
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., root: _Optional[_Union[Root, _Mapping]] = ..., aligned: _Optional[_Union[Aligned, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., supply: _Optional[_Union[Supply, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ...) -> None: ...

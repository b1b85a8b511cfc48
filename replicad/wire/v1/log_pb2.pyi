from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorDetail(_message.Message):
    __slots__ = ["applied", "code", "master", "master_address", "message", "name", "nodes", "offset", "retry_after_ms"]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MASTER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    applied: str
    code: int
    master: str
    master_address: str
    message: str
    name: str
    nodes: int
    offset: int
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., name: _Optional[str] = ..., applied: _Optional[str] = ..., message: _Optional[str] = ..., offset: _Optional[int] = ..., nodes: _Optional[int] = ..., master: _Optional[str] = ..., master_address: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ["from_offset", "level", "limit", "min_offset", "since_ms", "until_ms"]
    FROM_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MIN_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    UNTIL_MS_FIELD_NUMBER: _ClassVar[int]
    from_offset: int
    level: str
    limit: int
    min_offset: int
    since_ms: int
    until_ms: int
    def __init__(self, from_offset: _Optional[int] = ..., limit: _Optional[int] = ..., level: _Optional[str] = ..., min_offset: _Optional[int] = ..., since_ms: _Optional[int] = ..., until_ms: _Optional[int] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ["commit_size", "records"]
    COMMIT_SIZE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    commit_size: int
    records: _containers.RepeatedCompositeFieldContainer[Records]
    def __init__(self, commit_size: _Optional[int] = ..., records: _Optional[_Iterable[_Union[Records, _Mapping]]] = ...) -> None: ...

class NodeKey(_message.Message):
    __slots__ = ["key_id", "until"]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    until: int
    def __init__(self, key_id: _Optional[str] = ..., until: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ["address", "detail", "health", "keys", "lag", "name", "no_vote", "role", "size"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NO_VOTE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    address: str
    detail: str
    health: str
    keys: _containers.RepeatedCompositeFieldContainer[NodeKey]
    lag: int
    name: str
    no_vote: bool
    role: str
    size: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., role: _Optional[str] = ..., health: _Optional[str] = ..., size: _Optional[int] = ..., lag: _Optional[int] = ..., detail: _Optional[str] = ..., keys: _Optional[_Iterable[_Union[NodeKey, _Mapping]]] = ..., no_vote: bool = ...) -> None: ...

class OutcomeRequest(_message.Message):
    __slots__ = ["id"]
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class OutcomeResponse(_message.Message):
    __slots__ = ["committed", "epoch", "nodes", "offset", "time_ms"]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    committed: bool
    epoch: int
    nodes: int
    offset: int
    time_ms: int
    def __init__(self, offset: _Optional[int] = ..., epoch: _Optional[int] = ..., time_ms: _Optional[int] = ..., committed: bool = ..., nodes: _Optional[int] = ...) -> None: ...

class PostFrame(_message.Message):
    __slots__ = ["headers", "ids", "payloads", "sequence", "timeout_ms", "write_concern"]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    WRITE_CONCERN_FIELD_NUMBER: _ClassVar[int]
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    ids: _containers.RepeatedScalarFieldContainer[str]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    sequence: int
    timeout_ms: int
    write_concern: str
    def __init__(self, sequence: _Optional[int] = ..., ids: _Optional[_Iterable[str]] = ..., payloads: _Optional[_Iterable[bytes]] = ..., headers: _Optional[_Iterable[bytes]] = ..., write_concern: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class PostFrameResult(_message.Message):
    __slots__ = ["error", "errors", "nodes", "runs", "sequence"]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    error: ErrorDetail
    errors: _containers.RepeatedCompositeFieldContainer[PostMessageError]
    nodes: int
    runs: _containers.RepeatedCompositeFieldContainer[PostRun]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ..., runs: _Optional[_Iterable[_Union[PostRun, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[PostMessageError, _Mapping]]] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ..., nodes: _Optional[int] = ...) -> None: ...

class PostFrameResults(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[PostFrameResult]
    def __init__(self, results: _Optional[_Iterable[_Union[PostFrameResult, _Mapping]]] = ...) -> None: ...

class PostMessageError(_message.Message):
    __slots__ = ["error", "index"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    error: ErrorDetail
    index: int
    def __init__(self, index: _Optional[int] = ..., error: _Optional[_Union[ErrorDetail, _Mapping]] = ...) -> None: ...

class PostRequest(_message.Message):
    __slots__ = ["headers", "id", "payload", "timeout_ms", "write_concern"]
    class HeadersEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    WRITE_CONCERN_FIELD_NUMBER: _ClassVar[int]
    headers: _containers.ScalarMap[str, str]
    id: str
    payload: bytes
    timeout_ms: int
    write_concern: str
    def __init__(self, id: _Optional[str] = ..., payload: _Optional[bytes] = ..., headers: _Optional[_Mapping[str, str]] = ..., write_concern: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class PostResponse(_message.Message):
    __slots__ = ["code", "duplicate", "name", "nodes", "offset"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    code: int
    duplicate: bool
    name: str
    nodes: int
    offset: int
    def __init__(self, code: _Optional[int] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ..., duplicate: bool = ..., nodes: _Optional[int] = ...) -> None: ...

class PostRun(_message.Message):
    __slots__ = ["count", "duplicate", "first_index", "first_offset"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    count: int
    duplicate: bool
    first_index: int
    first_offset: int
    def __init__(self, first_index: _Optional[int] = ..., count: _Optional[int] = ..., first_offset: _Optional[int] = ..., duplicate: bool = ...) -> None: ...

class Records(_message.Message):
    __slots__ = ["headers", "leaves", "payloads", "salts"]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    SALTS_FIELD_NUMBER: _ClassVar[int]
    headers: _containers.RepeatedScalarFieldContainer[bytes]
    leaves: _containers.RepeatedScalarFieldContainer[bytes]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    salts: bytes
    def __init__(self, leaves: _Optional[_Iterable[bytes]] = ..., salts: _Optional[bytes] = ..., payloads: _Optional[_Iterable[bytes]] = ..., headers: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ["certificate_expires_ms", "cluster", "commit_quorum", "commit_size", "damage", "detail", "epoch", "key_id", "master", "master_address", "node", "nodes", "role", "root", "rss_bytes", "scrubbed_ms", "size", "state", "uptime_ms", "version"]
    CERTIFICATE_EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_QUORUM_FIELD_NUMBER: _ClassVar[int]
    COMMIT_SIZE_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MASTER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCRUBBED_MS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    certificate_expires_ms: int
    cluster: str
    commit_quorum: int
    commit_size: int
    damage: str
    detail: str
    epoch: int
    key_id: str
    master: str
    master_address: str
    node: str
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    role: str
    root: bytes
    rss_bytes: int
    scrubbed_ms: int
    size: int
    state: str
    uptime_ms: int
    version: str
    def __init__(self, cluster: _Optional[str] = ..., node: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[str] = ..., state: _Optional[str] = ..., epoch: _Optional[int] = ..., size: _Optional[int] = ..., commit_size: _Optional[int] = ..., root: _Optional[bytes] = ..., master: _Optional[str] = ..., master_address: _Optional[str] = ..., uptime_ms: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., commit_quorum: _Optional[int] = ..., detail: _Optional[str] = ..., key_id: _Optional[str] = ..., damage: _Optional[str] = ..., scrubbed_ms: _Optional[int] = ..., certificate_expires_ms: _Optional[int] = ...) -> None: ...

class TailRequest(_message.Message):
    __slots__ = ["from_offset", "level"]
    FROM_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    from_offset: int
    level: str
    def __init__(self, from_offset: _Optional[int] = ..., level: _Optional[str] = ...) -> None: ...

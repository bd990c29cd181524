from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Payload(_message.Message):
    __slots__ = ("dtype", "size_bytes")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    size_bytes: int
    def __init__(self, dtype: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class RequestEnvelope(_message.Message):
    __slots__ = ("job", "sender", "incarnation", "addressee_life", "payload", "ticket", "room", "join", "fetch", "push", "ask", "finish", "copy", "install", "relay", "document", "fetch_point", "crossing")
    JOB_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESSEE_LIFE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ROOM_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    COPY_FIELD_NUMBER: _ClassVar[int]
    INSTALL_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    FETCH_POINT_FIELD_NUMBER: _ClassVar[int]
    CROSSING_FIELD_NUMBER: _ClassVar[int]
    job: str
    sender: str
    incarnation: int
    addressee_life: int
    payload: Payload
    ticket: str
    room: str
    join: Join
    fetch: Fetch
    push: Push
    ask: Ask
    finish: Finish
    copy: Copy
    install: Install
    relay: Relay
    document: Document
    fetch_point: FetchPoint
    crossing: Pass
    def __init__(self, job: _Optional[str] = ..., sender: _Optional[str] = ..., incarnation: _Optional[int] = ..., addressee_life: _Optional[int] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ..., ticket: _Optional[str] = ..., room: _Optional[str] = ..., join: _Optional[_Union[Join, _Mapping]] = ..., fetch: _Optional[_Union[Fetch, _Mapping]] = ..., push: _Optional[_Union[Push, _Mapping]] = ..., ask: _Optional[_Union[Ask, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., copy: _Optional[_Union[Copy, _Mapping]] = ..., install: _Optional[_Union[Install, _Mapping]] = ..., relay: _Optional[_Union[Relay, _Mapping]] = ..., document: _Optional[_Union[Document, _Mapping]] = ..., fetch_point: _Optional[_Union[FetchPoint, _Mapping]] = ..., crossing: _Optional[_Union[Pass, _Mapping]] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Fetch(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FetchPoint(_message.Message):
    __slots__ = ("point",)
    POINT_FIELD_NUMBER: _ClassVar[int]
    point: int
    def __init__(self, point: _Optional[int] = ...) -> None: ...

class Push(_message.Message):
    __slots__ = ("sequence", "gradients", "samples", "based_on")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BASED_ON_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    gradients: int
    samples: int
    based_on: int
    def __init__(self, sequence: _Optional[int] = ..., gradients: _Optional[int] = ..., samples: _Optional[int] = ..., based_on: _Optional[int] = ...) -> None: ...

class Pass(_message.Message):
    __slots__ = ("round", "phase", "message")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    round: int
    phase: str
    message: int
    def __init__(self, round: _Optional[int] = ..., phase: _Optional[str] = ..., message: _Optional[int] = ...) -> None: ...

class Ask(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Finish(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Copy(_message.Message):
    __slots__ = ("number", "sender", "life", "push", "finish", "document")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    sender: str
    life: int
    push: Push
    finish: Finish
    document: Document
    def __init__(self, number: _Optional[int] = ..., sender: _Optional[str] = ..., life: _Optional[int] = ..., push: _Optional[_Union[Push, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., document: _Optional[_Union[Document, _Mapping]] = ...) -> None: ...

class Install(_message.Message):
    __slots__ = ("manifest", "name")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    manifest: str
    name: str
    def __init__(self, manifest: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Relay(_message.Message):
    __slots__ = ("path", "offset", "data")
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    path: str
    offset: int
    data: bytes
    def __init__(self, path: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("kind", "json")
    KIND_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    json: bytes
    def __init__(self, kind: _Optional[str] = ..., json: _Optional[bytes] = ...) -> None: ...

class ReplyEnvelope(_message.Message):
    __slots__ = ("job", "life", "payload", "in_room", "progress", "parameters", "accepted", "finished", "refusal", "misaddressed", "behind", "relayed", "document", "not_mapped")
    JOB_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    IN_ROOM_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    MISADDRESSED_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    RELAYED_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    NOT_MAPPED_FIELD_NUMBER: _ClassVar[int]
    job: str
    life: int
    payload: Payload
    in_room: bool
    progress: Progress
    parameters: Parameters
    accepted: Accepted
    finished: Finished
    refusal: Refusal
    misaddressed: Misaddressed
    behind: Behind
    relayed: Relayed
    document: Document
    not_mapped: NotMapped
    def __init__(self, job: _Optional[str] = ..., life: _Optional[int] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ..., in_room: _Optional[bool] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., parameters: _Optional[_Union[Parameters, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., misaddressed: _Optional[_Union[Misaddressed, _Mapping]] = ..., behind: _Optional[_Union[Behind, _Mapping]] = ..., relayed: _Optional[_Union[Relayed, _Mapping]] = ..., document: _Optional[_Union[Document, _Mapping]] = ..., not_mapped: _Optional[_Union[NotMapped, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("updates", "samples", "finished")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    updates: int
    samples: int
    finished: str
    def __init__(self, updates: _Optional[int] = ..., samples: _Optional[int] = ..., finished: _Optional[str] = ...) -> None: ...

class Parameters(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("updates",)
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    updates: int
    def __init__(self, updates: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Misaddressed(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Behind(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Relayed(_message.Message):
    __slots__ = ("size_bytes",)
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    def __init__(self, size_bytes: _Optional[int] = ...) -> None: ...

class NotMapped(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

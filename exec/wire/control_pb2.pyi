from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Report(_message.Message):
    __slots__ = ("hello", "status", "ended")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    status: Status
    ended: Ended
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("job", "role", "incarnation", "address")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    job: str
    role: str
    incarnation: int
    address: str
    def __init__(self, job: _Optional[str] = ..., role: _Optional[str] = ..., incarnation: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("updates", "staleness", "loss", "accuracy")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    updates: int
    staleness: float
    loss: float
    accuracy: float
    def __init__(self, updates: _Optional[int] = ..., staleness: _Optional[float] = ..., loss: _Optional[float] = ..., accuracy: _Optional[float] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("exit", "reason")
    EXIT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    exit: int
    reason: str
    def __init__(self, exit: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Instruction(_message.Message):
    __slots__ = ("begin", "conclude")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    CONCLUDE_FIELD_NUMBER: _ClassVar[int]
    begin: Begin
    conclude: Conclude
    def __init__(self, begin: _Optional[_Union[Begin, _Mapping]] = ..., conclude: _Optional[_Union[Conclude, _Mapping]] = ...) -> None: ...

class Begin(_message.Message):
    __slots__ = ("addresses", "began_at")
    class AddressesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    BEGAN_AT_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.ScalarMap[str, str]
    began_at: float
    def __init__(self, addresses: _Optional[_Mapping[str, str]] = ..., began_at: _Optional[float] = ...) -> None: ...

class Conclude(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

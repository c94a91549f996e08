"""Between typed messages and protobuf payloads: conversion and the checks on both ways.

A message class is a frozen slots dataclass whose fields are named like its protobuf fields; the
three classes here give it `encode` and `decode_payload`. Checked in both directions: text and list
limits of limits.py (by field name: a name means the same in every message), ports, required
fields; protobuf itself checks integer ranges and UTF-8. A failed check is `EncodeError` when we
send and `MalformedMessage` when we receive.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from wire.orp import limits
from wire.orp.errors import EncodeError, MalformedMessage
from wire.orp.frame import HEADER_BYTES, Frame, FrameType, encode_frame

# UTF-8 bytes of a text field, or of each item of a list of texts.
_TEXT_LIMITS: Final[dict[str, int]] = {
    "protocol_version": limits.MAX_TOKEN_BYTES,
    "session_id": limits.MAX_TOKEN_BYTES,
    "capabilities": limits.MAX_TOKEN_BYTES,
    "accepted_features": limits.MAX_TOKEN_BYTES,
    "kind": limits.MAX_TOKEN_BYTES,
    "agent_uri": limits.MAX_URI_BYTES,
    "source_agent_uri": limits.MAX_URI_BYTES,
    "peer_agent_uri": limits.MAX_URI_BYTES,
    "service_name": limits.MAX_SERVICE_NAME_BYTES,
    "target_service": limits.MAX_SERVICE_NAME_BYTES,
    "provides": limits.MAX_SERVICE_NAME_BYTES,
    "consumer": limits.MAX_URI_BYTES,
    "provider": limits.MAX_URI_BYTES,
    "service_id": limits.MAX_SERVICE_ID_BYTES,
    "method": limits.MAX_METHOD_BYTES,
    "local_addr": limits.MAX_ENDPOINT_BYTES,
    "forward_endpoint": limits.MAX_ENDPOINT_BYTES,
    "ip": limits.MAX_IP_BYTES,
    "reason": limits.MAX_REASON_BYTES,
}
_COUNT_LIMITS: Final[dict[str, int]] = {
    "capabilities": limits.MAX_TOKENS,
    "accepted_features": limits.MAX_TOKENS,
    "candidates": limits.MAX_CANDIDATES,
    "provides": limits.MAX_PROVIDED,
}
_MAX_PORT: Final = 0xFFFF


class Fields:
    """A dataclass whose fields mirror those of the protobuf class `PROTO`.

    A field holds text, an integer, another `Fields` value or None, or a tuple of texts or `Fields`.
    `REQUIRED` names fields for which the proto3 default (empty, 0) is not a legal value; `NESTED`
    gives the class of fields that hold messages.
    """

    __slots__: ClassVar[tuple[str, ...]] = ()
    PROTO: ClassVar[type[ProtoMessage]]
    REQUIRED: ClassVar[tuple[str, ...]] = ()
    NESTED: ClassVar[dict[str, type[Fields]]] = {}

    def to_proto(self) -> ProtoMessage:
        """The protobuf message; ValueError or TypeError for a value it cannot hold."""
        values = {name: _to_proto_value(getattr(self, name)) for name in self.__slots__}
        return self.PROTO(**values)

    @classmethod
    def from_proto(cls, proto: ProtoMessage) -> Self:
        """The typed value of a parsed protobuf message; checks nothing."""
        return cls(*[cls._from_proto_value(proto, name) for name in cls.__slots__])

    @classmethod
    def _from_proto_value(cls, proto: ProtoMessage, name: str) -> object:
        value: object = getattr(proto, name)
        nested = cls.NESTED.get(name)
        if isinstance(value, str | int):
            return value
        if nested is None:
            return tuple(getattr(proto, name))
        if isinstance(value, ProtoMessage):
            return nested.from_proto(value) if proto.HasField(name) else None
        return tuple([nested.from_proto(item) for item in getattr(proto, name)])

    def violation(self) -> str | None:
        """The first check this value fails, naming field, limit and size; None when it is good."""
        for name in self.REQUIRED:
            if not getattr(self, name):
                return f"{name} is missing"
        for name in self.__slots__:
            why = _field_violation(name, getattr(self, name))
            if why is not None:
                return why
        return None


class FrameMessage(Fields):
    """A message that is the payload of frames of type `TYPE`."""

    __slots__ = ()
    TYPE: ClassVar[FrameType]

    def encode(self) -> bytes:
        """The whole frame: header and payload.

        Raises:
            EncodeError: a field has the wrong type, is out of range or above its limit.
        """
        try:
            payload = self.to_proto().SerializeToString()
        except (ValueError, TypeError) as error:
            raise EncodeError(f"{self.TYPE.name}: {error}") from error
        why = self.violation()
        if why is not None:
            raise EncodeError(f"{self.TYPE.name}: {why}")
        return encode_frame(self.TYPE, payload)

    def to_frame(self) -> Frame:
        """The same as a `Frame`, for those who copy frames.

        Raises:
            EncodeError: as `encode`.
        """
        return Frame(self.TYPE, self.encode()[HEADER_BYTES:])

    @classmethod
    def decode_payload(cls, payload: bytes) -> Self:
        """The message in `payload`.

        Raises:
            MalformedMessage: not this message, or a field fails a check; the peer's fault.
        """
        try:
            proto = cls.PROTO.FromString(payload)
        except DecodeError as error:
            raise MalformedMessage(cls.TYPE.name, "payload is not its protobuf message") from error
        # Counts first: 64 KiB may hold 32 000 empty items, too many to make objects of.
        for name in _COUNT_LIMITS.keys() & set(cls.__slots__):
            cls._refuse(_count_violation(name, len(getattr(proto, name))))
        message = cls.from_proto(proto)
        cls._refuse(message.violation())
        return message

    @classmethod
    def _refuse(cls, why: str | None) -> None:
        if why is not None:
            raise MalformedMessage(cls.TYPE.name, why)


class FrameSignal:
    """A frame whose type says everything: empty payload when sent, any payload ignored."""

    __slots__ = ()
    TYPE: ClassVar[FrameType]

    def encode(self) -> bytes:
        """The whole frame, 8 bytes."""
        return encode_frame(self.TYPE)

    @classmethod
    def decode_payload(cls, payload: bytes) -> Self:
        """The signal; `payload` does not matter."""
        del payload
        return cls()


def _to_proto_value(value: object) -> object:
    if isinstance(value, Fields):
        return value.to_proto()
    if isinstance(value, tuple):
        return [_to_proto_value(item) for item in value]
    return value


def _count_violation(name: str, count: int) -> str | None:
    if count > _COUNT_LIMITS[name]:
        return f"{name} has {count} items, limit {_COUNT_LIMITS[name]}"
    return None


def _field_violation(name: str, value: object) -> str | None:
    if isinstance(value, str):
        size = len(value) if value.isascii() else len(value.encode())
        if size > _TEXT_LIMITS[name]:
            return f"{name} has {size} bytes, limit {_TEXT_LIMITS[name]}"
    elif isinstance(value, Fields):
        return value.violation()
    elif isinstance(value, tuple):
        violations = (_field_violation(name, item) for item in value)
        return _count_violation(name, len(value)) or next(filter(None, violations), None)
    elif name == "port" and isinstance(value, int) and value > _MAX_PORT:
        return f"port is {value}, limit {_MAX_PORT}"
    return None

"""Which engine connections get: native when it works here, aioquic otherwise.

The native engine stands on private parts of two libraries, so it is used only with the versions it
was written for, and only after connections of it did a handshake with certificates on both sides
and echoed a stream in this process, once for a client with a connection id and once for one
without (a few tens of milliseconds). Whatever goes wrong there is a reason to use aioquic, is
logged, and is shown in the inspector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Protocol

from loguru import logger

from actors.transport.peer_policy import PeerPolicy
from actors.transport.quic.aioquic_engine import AioquicEngine, configuration
from actors.transport.quic.engine import Engine
from actors.transport.quic.settings import QuicSettings
from actors.transport.tls import TlsIdentity

NATIVE = "native"
AIOQUIC = "aioquic"
AUTO = "auto"
#: What the native engine was written against: distribution and release series.
NATIVE_REQUIRES = {"qh3": "2.1.", "aioquic": "1.7."}


class EngineUnavailable(Exception):
    """The engine that was asked for by name does not work here; the text says why."""


class EngineMaker(Protocol):
    """Makes one connection's engine; see `NativeEngine` for the arguments."""

    def __call__(
        self,
        settings: QuicSettings,
        identity: TlsIdentity,
        alpn: tuple[str, ...],
        *,
        client: bool,
        peer_policy: PeerPolicy = PeerPolicy.MUTUAL,
        server_name: str | None = None,
        original_destination_cid: bytes | None = None,
        retry_source_cid: bytes | None = None,
        reset_token: Callable[[bytes], bytes] | None = None,
    ) -> Engine:
        """A fresh connection."""
        ...


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine in use.

    Attributes:
        name: native or aioquic.
        reason: why, for people.
        make: makes the engine of one connection.
    """

    name: str
    reason: str
    make: EngineMaker


def make_aioquic(
    settings: QuicSettings,
    identity: TlsIdentity,
    alpn: tuple[str, ...],
    *,
    client: bool,
    peer_policy: PeerPolicy = PeerPolicy.MUTUAL,
    server_name: str | None = None,
    original_destination_cid: bytes | None = None,
    retry_source_cid: bytes | None = None,
    reset_token: Callable[[bytes], bytes] | None = None,
) -> Engine:
    """An aioquic connection."""
    return AioquicEngine(
        settings,
        configuration(
            settings,
            identity,
            alpn,
            client=client,
            peer_policy=peer_policy,
            server_name=server_name,
        ),
        ask_certificate=not client and peer_policy.of_clients,
        original_destination_cid=original_destination_cid,
        retry_source_cid=retry_source_cid,
        reset_token=reset_token,
    )


@cache
def select(preference: str = AUTO) -> EngineChoice:
    """The engine for `auto`, `native` or `aioquic`; decided once per process and preference.

    Raises:
        EngineUnavailable: `native` was asked for and does not work here.
        ValueError: no such engine.
    """
    if preference == AIOQUIC:
        return EngineChoice(AIOQUIC, "configured", make_aioquic)
    if preference not in (AUTO, NATIVE):
        raise ValueError(f"no QUIC engine {preference!r}")
    try:
        make, detail = _probe_native()
    except EngineUnavailable as error:
        if preference == NATIVE:
            raise
        logger.warning("QUIC engine aioquic, because native is not usable: {}", error)
        return EngineChoice(AIOQUIC, f"native is not usable: {error}", make_aioquic)
    reason = "configured" if preference == NATIVE else "default"
    logger.info("QUIC engine native ({})", detail)
    return EngineChoice(NATIVE, f"{reason}; {detail}", make)


def _probe_native() -> tuple[EngineMaker, str]:
    """Versions, import, self-test.

    Raises:
        EngineUnavailable: with the reason.
    """
    versions = []
    for name, series in NATIVE_REQUIRES.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise EngineUnavailable(f"{name} is not installed") from None
        if not version.startswith(series):
            raise EngineUnavailable(f"{name} {version} is not {series}x")
        versions.append(f"{name} {version}")
    try:
        from actors.transport.quic.native_engine import NativeClientWithoutId, NativeEngine
        from actors.transport.quic.self_test import SelfTestFailed, self_test
    except ImportError as error:
        raise EngineUnavailable(f"import failed: {error}") from None

    try:
        self_test(NativeEngine)
        self_test(NativeEngine, NativeClientWithoutId)
    except SelfTestFailed as failure:
        raise EngineUnavailable(f"self-test failed: {failure}") from None
    except Exception as error:  # noqa: BLE001  # whatever broke, the other engine serves
        raise EngineUnavailable(f"self-test failed: {type(error).__name__}: {error}") from None
    return NativeEngine, ", ".join(versions)

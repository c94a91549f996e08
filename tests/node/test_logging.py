"""What ends up on stderr: format, scope, level, carried-over libraries, and never a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from actors.node.logging import install, redact, set_level, uninstall
from tests.conftest import PkiFixture, run


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = list(logging.root.handlers)
    level = logging.root.level
    yield io.StringIO()
    uninstall()
    logging.root.handlers[:] = root
    logging.root.setLevel(level)


def _objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_human_lines_carry_level_text_and_scope_first(stream: io.StringIO) -> None:
    install("INFO", "human", stream)
    logger.bind(code=403, stream_id="ab12", actor="/edge/streams/ab12").info("stream rejected")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(
        "INFO     stream rejected actor=/edge/streams/ab12 stream_id=ab12 code=403"
    )


def test_json_lines_are_objects_with_the_same_fields(stream: io.StringIO) -> None:
    install("INFO", "json", stream)
    logger.bind(agent_uri="outrelay://acme/agent/x", code=403, ok=True).warning("rejected {}", 7)
    (entry,) = _objects(stream)
    assert entry["level"] == "WARNING"
    assert entry["message"] == "rejected 7"
    assert entry["agent_uri"] == "outrelay://acme/agent/x"
    assert (entry["code"], entry["ok"]) == (403, True)
    assert entry["logger"] == __name__


def test_json_survives_every_kind_of_value(stream: io.StringIO) -> None:
    install("INFO", "json", stream)
    logger.bind(
        big=2**64 - 1, raw=b"payload", text="\ud800", path=Path("/x"), level="fake", none=None
    ).info("x")
    (entry,) = _objects(stream)
    assert entry["big"] == str(2**64 - 1)
    assert entry["raw"] == "[7 bytes]"
    assert entry["level"] == "INFO"
    assert entry["path"] == "/x"


def test_scope_follows_a_task_and_not_its_siblings(stream: io.StringIO) -> None:
    install("INFO", "json", stream)

    async def work(path: str) -> None:
        with logger.contextualize(actor=path):
            await asyncio.sleep(0)
            logger.info("working")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(work("/a"))
            group.create_task(work("/b"))
        logger.info("done")

    run(main())
    assert [e.get("actor") for e in _objects(stream)] == ["/a", "/b", None]


def test_the_level_changes_while_running(stream: io.StringIO) -> None:
    install("INFO", "human", stream)
    logger.debug("one")
    set_level("DEBUG")
    logger.debug("two")
    set_level("ERROR")
    logger.warning("three")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["two"]


def test_unknown_levels_and_formats_change_nothing(stream: io.StringIO) -> None:
    install("INFO", "human", stream)
    with pytest.raises(ValueError, match="LOUD"):
        set_level("LOUD")
    with pytest.raises(ValueError, match="xml"):
        install("INFO", "xml", stream)
    logger.info("still here")
    assert "still here" in stream.getvalue()
    uninstall()
    with pytest.raises(RuntimeError):
        set_level("INFO")


def test_standard_logging_and_warnings_are_carried_over(stream: io.StringIO) -> None:
    install("INFO", "json", stream)
    logging.getLogger("some.library").error("failed %d", 5)
    logging.getLogger("some.library").debug("too fine")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old call", stacklevel=1)
    failed, warned = _objects(stream)
    assert failed["message"] == "failed 5"
    assert failed["library"] == "some.library"
    assert failed["logger"] == __name__
    assert warned["level"] == "WARNING"
    assert "old call" in warned["message"]


def test_per_packet_libraries_are_quiet_unless_tracing(stream: io.StringIO) -> None:
    install("DEBUG", "human", stream)
    logging.getLogger("quic").info("packet")
    logging.getLogger("quic").warning("a peer's fault")  # once for each of its packets
    logging.getLogger("quic").error("trouble")
    set_level("TRACE")
    logging.getLogger("quic").debug("packet too")
    text = stream.getvalue()
    assert "packet library" not in text
    assert "a peer's fault" not in text
    assert "trouble" in text
    assert "packet too" in text


def test_a_peer_cannot_forge_a_line_or_steer_the_terminal(stream: io.StringIO) -> None:
    install("INFO", "human", stream)
    logger.bind(agent_uri="x\n2026-01-01 00:00:00.000 ERROR forged").info(
        "hello\n2026-01-01 00:00:00.000 ERROR forged\x1b[2J\r\u2028"
    )
    first, second = stream.getvalue().splitlines()
    assert "hello" in first
    assert second.startswith("    2026-01-01")
    assert not set("\x1b\r\u2028") & set(stream.getvalue())


def test_a_private_key_never_appears(stream: io.StringIO, pki: PkiFixture) -> None:
    pem = pki.provider.key.read_text()
    body = pem.splitlines()[1]
    for format in ("human", "json"):
        install("INFO", format, stream)
        logger.info("loaded {}", pem)
        logger.bind(detail=pem, private_key=body).info("bound")
        logging.getLogger("lib").error("key %s", pem)
        # Cut in the middle, as an error text may quote it.
        logger.info("bad file: {}", pem[: len(pem) // 2])
        try:
            raise ValueError(f"cannot use {pem}")
        except ValueError:
            logger.exception("failed")
    assert body[:20] not in stream.getvalue()
    assert "[redacted private key]" in stream.getvalue()
    assert "ValueError" in stream.getvalue()


def test_local_variables_stay_out_of_tracebacks(stream: io.StringIO) -> None:
    install("INFO", "human", stream)
    hidden = "s3cr3t-value"
    try:
        len(hidden) / 0
    except ZeroDivisionError:
        logger.exception("failed")
    assert "ZeroDivisionError" in stream.getvalue()
    assert "s3cr3t-value" not in stream.getvalue()


@pytest.mark.parametrize(
    "text, kept",
    [
        ("Authorization: Bearer abcdef0123456789", "Bearer [redacted]"),
        ("token=abc123 user=joe", "user=joe"),
        ("{'api_token': 'abc123', 'user': 'joe'}", "'user': 'joe'"),
        ('{"password": "abc123"}', "password"),
        ("jwt eyJhbGciOiJFZERTQSJ9.eyJ0ZW4iOiJhYmMxMjMifQ.abc123 seen", "seen"),
        ("client_secret: abc123", "client_secret: [redacted]"),
        ("https://x/?access_token=abc123&page=2", "&page=2"),
    ],
)
def test_credentials_are_redacted(text: str, kept: str) -> None:
    clean = redact(text)
    assert "abc123" not in clean
    assert "abcdef" not in clean
    assert kept in clean


@pytest.mark.parametrize(
    "text",
    [
        "tokens are not logged",
        "stream 12 token bucket empty",
        "basic auth is off",
        "path=/edge/agents/outrelay://acme/agent/1 code=403",
        "-----BEGIN is just a word",
    ],
)
def test_ordinary_texts_are_left_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("name", ["token", "api_token", "password", "private_key", "Authorization"])
def test_fields_named_like_secrets_are_hidden(stream: io.StringIO, name: str) -> None:
    install("INFO", "json", stream)
    logger.bind(**{name: "abc123"}).info("x")
    assert _objects(stream)[0][name] == "[redacted]"


@given(st.text(max_size=200))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text, token=abc123")


@pytest.mark.parametrize("format", ["human", "json"])
def test_a_record_that_cannot_be_written_is_reported_without_its_content(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    install("INFO", format, stream)
    logger.bind(detail=_Unprintable(), key="-----BEGIN PRIVATE KEY-----").info("token=abc123")
    logger.info("next")
    lost, following = stream.getvalue().splitlines()
    assert lost == "log record lost: RuntimeError"
    assert "next" in following
    stream.close()
    logger.info("nowhere to go")
    assert capsys.readouterr().err == ""


def test_install_replaces_an_earlier_installation(stream: io.StringIO) -> None:
    first = io.StringIO()
    install("INFO", "human", first)
    install("INFO", "human", stream)
    logger.info("once")
    assert first.getvalue() == ""
    assert stream.getvalue().count("once") == 1

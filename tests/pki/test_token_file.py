"""Used tokens on the disk: what was redeemed stays redeemed, whenever its writer is killed."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from actors.pki.enrolment import EnrolmentRefused
from actors.pki.files import PkiError
from actors.pki.token_file import TokenFile

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AGENT = "00000000-0000-0000-0000-000000000042"
#: Where the writer may be killed: before any line of these.
WRITERS = ("/actors/files/atomic.py", "/actors/pki/token_file.py", "/json/__init__.py")
SIGNED, REFUSED = 0, 3


def _redeem_and_die(directory: Path, token: str, step: int) -> int:
    """Redeem in a child that is killed before its `step`th line. Answer: its exit, or -signal."""
    child = os.fork()
    if child == 0:
        left = step

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.endswith(WRITERS):
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        code = REFUSED
        try:
            with TokenFile(directory).locked() as tokens:
                tokens.redeem(token, NOW)
            code = SIGNED  # from here on the caller signs
        except EnrolmentRefused:
            pass
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_writer_never_makes_a_used_token_good_again(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    with file.locked() as tokens:
        used = tokens.issue("acme", NOW, agent=AGENT)
        tokens.redeem(used, NOW)
    ends = set()
    before = (tmp_path / "enrolment.used").read_bytes()
    for step in range(1000):
        with file.locked() as tokens:
            fresh = tokens.issue("acme", NOW, agent=AGENT)
        ended = _redeem_and_die(tmp_path, fresh, step)
        ends.add(ended)
        for left in tmp_path.glob(".*.new"):
            left.unlink()
        with file.locked() as tokens, pytest.raises(EnrolmentRefused, match="used before"):
            tokens.redeem(used, NOW)
        if ended == SIGNED:
            with file.locked() as tokens, pytest.raises(EnrolmentRefused, match="used before"):
                tokens.redeem(fresh, NOW)
            break
        (tmp_path / "enrolment.used").write_bytes(before)  # every step begins alike
    assert ends == {-signal.SIGKILL, SIGNED}
    assert step > 20


def test_of_many_at_once_one_redeems(tmp_path: Path) -> None:
    with TokenFile(tmp_path).locked() as tokens:
        token = tokens.issue("acme", NOW, agent=AGENT)
    children = []
    for _ in range(12):
        child = os.fork()
        if child == 0:
            code = REFUSED
            try:
                with TokenFile(tmp_path).locked() as tokens:
                    tokens.redeem(token, NOW)
                code = SIGNED
            except EnrolmentRefused:
                pass
            finally:
                os._exit(code)
        children.append(child)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(ends) == [SIGNED] + [REFUSED] * 11


def test_an_emptied_list_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    with file.locked() as tokens:
        tokens.redeem(tokens.issue("acme", NOW, agent=AGENT), NOW)
    (tmp_path / "enrolment.used").write_text("")
    with pytest.raises(PkiError, match=r"damaged.*remove enrolment\.key"), file.locked():
        pass


def test_a_full_disk_leaves_the_list_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = TokenFile(tmp_path)
    with file.locked() as tokens:
        used = tokens.issue("acme", NOW, agent=AGENT)
        tokens.redeem(used, NOW)
        fresh = tokens.issue("acme", NOW, agent=AGENT)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(PkiError, match="No space left"), file.locked() as tokens:
            tokens.redeem(fresh, NOW)
    assert sorted(os.listdir(tmp_path)) == ["enrolment.key", "enrolment.lock", "enrolment.used"]
    with file.locked() as tokens:
        with pytest.raises(EnrolmentRefused, match="used before"):
            tokens.redeem(used, NOW)
        tokens.redeem(fresh, NOW)


@pytest.mark.parametrize("name", ["enrolment.key", "enrolment.used", "enrolment.lock"])
def test_files_of_others_and_open_ones_are_refused(tmp_path: Path, name: str) -> None:
    file = TokenFile(tmp_path)
    with file.locked() as tokens:
        tokens.redeem(tokens.issue("acme", NOW, agent=AGENT), NOW)
    (tmp_path / name).chmod(0o644)
    with pytest.raises(PkiError, match=f"{name}: open to other users.*chmod 600"), file.locked():
        pass

"""The test rig itself: what it must catch, proven by running small suites that misbehave."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests import conftest
from tests.conftest import eventually, run

pytest_plugins = ["pytester"]


def _outcome(pytester: pytest.Pytester, body: str) -> pytest.RunResult:
    source = Path(conftest.__file__).read_text(encoding="utf-8")
    settle = f"SETTLE_DEADLINE_SECONDS = {conftest.SETTLE_DEADLINE_SECONDS}"
    assert settle in source
    pytester.makeconftest(source.replace(settle, "SETTLE_DEADLINE_SECONDS = 0.1"))
    pytester.makeini("[pytest]\nmarkers =\n    allow_leaks: x\n")
    pytester.makepyfile(body)
    return pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")


def test_run_returns_the_result() -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    assert run(main()) == 7


def test_run_passes_exceptions_on() -> None:
    async def main() -> None:
        raise LookupError("as is")

    with pytest.raises(LookupError, match="as is"):
        run(main())


def test_run_fails_with_the_stack_when_the_deadline_passes() -> None:
    async def waits_for_nobody() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(pytest.fail.Exception, match="waits_for_nobody"):
        run(waits_for_nobody(), timeout=0.05)


def test_run_fails_when_a_callback_failed() -> None:
    def explode() -> None:
        raise RuntimeError("in a callback")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(explode)
        await asyncio.sleep(0.01)

    with pytest.raises(pytest.fail.Exception, match="in a callback"):
        run(main())


def test_eventually_waits_for_the_condition_and_fails_with_its_name() -> None:
    async def main() -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, event.set)
        await eventually(event.is_set)
        await eventually(lambda: False, timeout=0.02, what="peace")

    with pytest.raises(pytest.fail.Exception, match=r"peace did not come true within 0\.02 s"):
        run(main())


@pytest.mark.parametrize(
    "body, said",
    [
        (
            "import asyncio\n"
            "def test_it():\n"
            "    async def forever(): await asyncio.sleep(99)\n"
            "    async def main():\n"
            "        main.kept = asyncio.create_task(forever())\n"
            "        await asyncio.sleep(0)\n"
            "    asyncio.run(main())\n",
            "*tasks: *forever*",
        ),
        (
            "import os\ndef test_it():\n    os.open('/dev/null', os.O_RDONLY)\n",
            "*descriptors: *null*",
        ),
        (
            "import threading, time\n"
            "def test_it():\n"
            "    threading.Thread(target=time.sleep, args=(0.5,), name='lost').start()\n",
            "*threads: lost*",
        ),
        (
            "import asyncio\n"
            "def test_it():\n"
            "    async def fails(): raise ValueError('unseen')\n"
            "    async def main():\n"
            "        asyncio.create_task(fails())\n"
            "        await asyncio.sleep(0.01)\n"
            "    asyncio.run(main())\n",
            "*errors reported by asyncio: Task exception was never retrieved*",
        ),
    ],
    ids=["task", "descriptor", "thread", "lost-exception"],
)
@pytest.mark.allow_leaks("the suites under test leak on purpose")
def test_a_leak_fails_the_test_that_made_it(
    pytester: pytest.Pytester, body: str, said: str
) -> None:
    result = _outcome(pytester, body)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([said])


@pytest.mark.allow_leaks("the suite under test leaks on purpose")
def test_a_marked_test_may_leak(pytester: pytest.Pytester) -> None:
    result = _outcome(
        pytester,
        "import asyncio, pytest\n"
        "@pytest.mark.allow_leaks('shown')\n"
        "def test_it():\n"
        "    async def forever(): await asyncio.sleep(99)\n"
        "    async def main(): main.kept = asyncio.create_task(forever())\n"
        "    asyncio.run(main())\n",
    )
    result.assert_outcomes(passed=1)

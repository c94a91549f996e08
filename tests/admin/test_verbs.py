"""Acting on actors: done, said who did it and why, and refused where it would cut the branch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin.rig import Job, Node, node
from tests.conftest import eventually, run
from tools.control_client import ControlClient, ControlError


def _events(one: Node, kind: str, path: str) -> list[dict[str, Any]]:
    found = [e for e in one.system.events.history if e.kind == kind and e.path == path]
    return [dict(event.fields) for event in found]


async def _refused(client: ControlClient, verb: str, **args: Any) -> ControlError:
    with pytest.raises(ControlError) as caught:
        await client.request(verb, **args)
    return caught.value


@pytest.mark.parametrize("verb,exit_kind", [("kill", "killed"), ("crash", "crash")])
def test_an_actor_that_was_killed_comes_back_and_the_reason_is_known(
    verb: str, exit_kind: str
) -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            before = one.ref("/app/one").incarnation
            answer = await client.request(verb, path="/app/one", reason="drill", by="chaos 7")
            assert answer["class"] == "Worker"
            assert answer["incarnation"] == before
            await eventually(lambda: one.ref("/app/one").incarnation > before)
            (operator,) = _events(one, "operator", "/app/one")
            assert operator["verb"] == verb
            assert operator["reason"] == "drill"
            assert operator["initiator"].startswith("operator uid=")
            assert operator["initiator"].endswith("(chaos 7)")
            (ended,) = _events(one, "exited", "/app/one")
            assert ended["kind"] == exit_kind
            assert ended["initiator"] == operator["initiator"]
            await client.close()

    run(main())


def test_stop_ends_it_gracefully() -> None:
    async def main() -> None:
        async with node() as one:
            one.add("guest")
            client = await one.client()
            await client.request("stop", path="/pool/guest", reason="bye")
            await eventually(lambda: one.system.ref("/pool/guest") is None)
            (ended,) = _events(one, "exited", "/pool/guest")
            assert ended["reason"] == "shutdown(bye)"
            await client.close()

    run(main())


def test_suspend_and_resume() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            await client.request("suspend", path="/app/one")
            one.ref("/app/one").tell(Job())
            details = await client.request("describe", path="/app/one")
            assert (details["state"], details["mailbox"]) == ("suspended", 1)
            await client.request("resume", path="/app/one")
            details = await client.request("describe", path="/app/one")
            assert (details["state"], details["mailbox"]) == ("running", 0)
            refused = await _refused(client, "resume", path="/app/one")
            assert (refused.code, str(refused)) == (
                "refused",
                "/app/one is running: cannot resume it now",
            )
            await client.close()

    run(main())


@pytest.mark.parametrize("path", ["/", "/ops", "/ops/control", "/ops/clients"])
@pytest.mark.parametrize("verb", ["kill", "crash", "stop", "suspend"])
def test_the_branch_one_sits_on_is_guarded(verb: str, path: str) -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            refused = await _refused(client, verb, path=path)
            assert refused.code == "refused"
            assert "--force" in str(refused)
            assert not _events(one, "operator", path)
            await client.close()

    run(main())


def test_force_is_obeyed() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            await client.request("suspend", path="/ops/clients", force=True)
            assert (await client.request("describe", path="/ops/clients"))["state"] == "suspended"
            await client.request("resume", path="/ops/clients")
            await client.close()

    run(main())


def test_wrong_requests_are_refused_with_words() -> None:
    async def main() -> None:
        async with node() as one:
            client = await one.client()
            missing = await _refused(client, "kill", path="/app/three")
            assert (missing.code, str(missing)) == ("not_found", "no actor at /app/three")
            assert (await _refused(client, "kill")).code == "bad_request"
            assert (await _refused(client, "kill", path="app")).code == "bad_request"
            long = await _refused(client, "kill", path="/app/one", reason="x" * 257)
            assert "limit 256" in str(long)
            # Only a parent process may speak in another's name.
            forged = await _refused(client, "kill", path="/app/one", initiator="nobody")
            assert forged.code == "bad_request"
            await client.close()

    run(main())

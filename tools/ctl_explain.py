"""`trunkline ctl explain`: what a stream from a caller to a service needs, and what is missing.

Walks in the order of an OPEN_STREAM, and on after what is missing, as far as anything is known.
Nothing is opened and nothing is recorded.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import join
from typing import Final
from urllib.parse import urlsplit

import click

from tools.control_client import ControlClient, ControlError
from tools.control_text import text, whole
from tools.ctl_running import EXIT_REFUSED, PLAIN_SECONDS, dump, fail, options, run
from wire.admin.messages import Row

#: Of the verifier: what it means, and what helps.
_CERTIFICATES: Final = {
    "unknown_ca": ("is of a CA that this relay does not trust", "issue it from the relay's CA"),
    "expired": ("is expired", "issue a new one; compare the clocks if it should be valid"),
    "not_yet_valid": ("is not valid yet", "compare the clocks of this host and of its issuer"),
    "wrong_purpose": ("is not one for clients", "issue it with `trunkline pki issue-agent`"),
    "not_an_agent": ("is not an agent's", "issue it with `trunkline pki issue-agent`"),
    "no_uri": ("names no agent (URI SAN)", "issue it with `trunkline pki issue-agent`"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing a stream needs.

    Attributes:
        step: its name.
        ok: it is there; None: this relay cannot know.
        says: what was found.
        remedy: what to do; empty when nothing is missing.
    """

    step: str
    ok: bool | None
    says: str
    remedy: str = ""


@click.command()
@click.option("--caller", default="", help="The consumer: its URI, or a part that only it has.")
@click.option("--service", required=True, help="What it wants to reach.")
@click.option("--method", default="", help="Of the stream, where rules name methods.")
@click.option(
    "--cert",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The caller's certificate, to have it judged by the relay.",
)
@options
def explain(
    socket: Path | None, as_json: bool, caller: str, service: str, method: str, cert: Path | None
) -> None:
    """Say what a stream needs and what is missing: certificate, connection, first rule,
    registration, second rule, target; with the remedy, and the rule to add.

    Exit code 1 when something is missing.
    """
    if not caller and cert is None:
        raise click.UsageError("who is it about? --caller or --cert")
    try:
        chain = "" if cert is None else cert.read_text(errors="replace")
    except OSError as error:
        fail(EXIT_REFUSED, f"{cert}: {error.strerror}")
    missing: list[Step] = []

    async def work(client: ControlClient) -> None:
        steps = await _Walk(client, service, method).steps(caller, chain)
        missing.extend(one for one in steps if one.ok is False)
        if as_json:
            dump([asdict(one) for one in steps])
            return
        for one in steps:
            mark = {True: "ok", False: "MISSING", None: "-"}[one.ok]
            click.echo(f"{mark:<8}{one.step:<13} {one.says}")
            for line in one.remedy.splitlines():
                click.echo(f"{'':<22}{line}")

    run(socket, work)
    if missing:
        sys.exit(EXIT_REFUSED)


class _Walk:
    def __init__(self, client: ControlClient, service: str, method: str) -> None:
        self._client = client
        self._service = service
        self._method = method

    async def steps(self, caller: str, chain: str) -> list[Step]:
        """All of them, in order."""
        found: list[Step] = []
        judged = None
        if chain:
            judged = await self._client.request(
                "certificate_judge", chain=chain, timeout=PLAIN_SECONDS
            )
        uri = await self._uri(caller) if caller else text((judged or {}).get("agent"))
        tenant = urlsplit(uri).netloc
        if not tenant:
            raise ControlError("refused", "the certificate names no agent, and --caller none")
        connected = await self._agent(uri)
        found.append(_certificate(uri, judged, connected))
        found.append(_connection(uri, connected))
        found.append(await self._check("first rule", tenant, uri, self._service))
        providers = await self._client.rows("service_resolve", tenant=tenant, service=self._service)
        found.append(await self._registration(tenant, providers))
        if not providers:
            found.append(Step("second rule", None, "nobody provides it, so nobody is judged"))
            found.append(Step("target", None, "nobody provides it"))
        for one in providers:
            provider = text(one.get("provider"))
            found.append(await self._check("second rule", tenant, provider, uri))
            found.append(_target(one, await self._refused(provider)))
        found.append(await self._room(connected))
        return found

    async def _room(self, connected: Row | None) -> Step:
        """Does the relay take another stream, of this agent and at all?"""
        doors = await self._client.rows("doors")
        if any(row.get("door") == "edge" and row.get("draining") for row in doors):
            remedy = "it stops; agents go to the next relay they know, or to it when it is back"
            return Step("room", False, "this relay is draining: it takes no new streams", remedy)
        if connected is None:
            return Step("room", None, "it is not connected here")
        used, most = whole(connected, "stream_credit_used"), whole(connected, "most_streams")
        if used >= most > 0:
            says = f"it has {used} streams of the {most} that an agent may have: new ones wait"
            return Step("room", False, says, "set edge.max_streams_per_agent, or see `ctl streams`")
        return Step("room", True, f"it has {used} streams of {most}, this relay is not draining")

    async def _refused(self, provider: str) -> Row | None:
        """The row of the service, when its provider refused the last stream."""
        for row in await self._client.rows("services", service=self._service):
            if row.get("provider") == provider and row.get("refused"):
                return row
        return None

    async def _uri(self, caller: str) -> str:
        """The URI that is meant.

        Raises:
            ControlError: nobody, or several.
        """
        if "://" in caller:
            return caller
        rows = await self._client.rows("agents", filter=caller)
        uris = [text(row.get("agent")) for row in rows if caller in text(row.get("agent"))]
        if len(uris) == 1:
            return uris[0]
        if uris:
            raise ControlError("refused", f"{caller} is in several: {', '.join(uris[:5])}")
        raise ControlError(
            "not_found",
            f"no agent that is connected has {caller} in its URI; give all of it "
            "(`trunkline pki show FILE` prints it), or --cert FILE",
        )

    async def _agent(self, uri: str) -> Row | None:
        rows = await self._client.rows("agents", agent=uri, limit=1)
        return rows[0] if rows else None

    async def _check(self, step: str, tenant: str, caller: str, target: str) -> Step:
        decision = await self._client.request(
            "policy_judge",
            tenant=tenant,
            caller=caller,
            target=target,
            method=self._method,
            timeout=PLAIN_SECONDS,
        )
        rule = decision.get("rule")
        reason = text(decision.get("reason"))
        if isinstance(rule, dict):
            reason = (
                f"rule {text(rule.get('id'))} ({text(rule.get('source'))}): "
                f"{text(rule.get('caller'))} -> {text(rule.get('target'))}"
            )
        if decision.get("allow"):
            return Step(step, True, f"{caller} -> {target} is allowed: {reason}")
        says = f"{caller} -> {target} is denied: {reason}"
        return Step(step, False, says, self._rule_remedy(decision, tenant, caller, target))

    def _rule_remedy(self, decision: Row, tenant: str, caller: str, target: str) -> str:
        rule = decision.get("rule")
        if decision.get("reason") == "no policy snapshot":
            return "no rules could be loaded: `trunkline ctl describe /control/policy` says why"
        method = ["--method", self._method] if self._method else []
        command = [
            *("trunkline", "ctl", "policy", "add", "--tenant", tenant, "--caller", caller),
            *("--target", target, *method, "--decision", "allow"),
        ]
        added = f"add the rule: {join(command)}"
        if not isinstance(rule, dict) or "*" in text(rule.get("target")):
            return added  # an exact target is looked at before those with a *
        if rule.get("source") == "file":
            where = "change that rule in its file, or put one that allows before it"
            return f"{where}; then `trunkline ctl policy reload`"
        remove = ["trunkline", "ctl", "policy", "remove", "--tenant", tenant]
        return f"remove that rule: {join([*remove, '--id', text(rule.get('id'))])}\nthen {added}"

    async def _registration(self, tenant: str, providers: Sequence[Row]) -> Step:
        name = self._service
        if providers:
            who = ", ".join(
                f"{text(one.get('provider'))} "
                + ("here" if one.get("here") else f"at relay {text(one.get('relay'))}")
                for one in providers
            )
            return Step("registration", True, f"{name} is provided by {who}")
        rows = await self._client.rows("services", tenant=tenant)
        names = sorted({text(row.get("service")) for row in rows})
        close = difflib.get_close_matches(name, names, n=1)
        remedy = "start an agent of this tenant that provides it: "
        remedy += join(
            ["trunkline", "agent", "provide", "--service", name, "--target", "HOST:PORT"]
        )
        if close:
            remedy = f"is {close[0]} meant? Else {remedy}"
        known = f"; here are {', '.join(names[:10])}" if names else "; here is no service of it"
        return Step(
            "registration", False, f"nobody provides {name} in tenant {tenant}{known}", remedy
        )


def _certificate(uri: str, judged: Row | None, connected: Row | None) -> Step:
    if judged is not None:
        agent, problem = text(judged.get("agent")), text(judged.get("problem"))
        dates = f"valid {text(judged.get('not_before'))} to {text(judged.get('not_after'))}"
        if problem:
            says, remedy = _CERTIFICATES.get(problem, (f"is refused: {problem}", "issue a new one"))
            issuer = text(judged.get("issuer"))
            return Step("certificate", False, f"it {says} ({dates}, issuer {issuer})", remedy)
        if agent != uri:
            return Step("certificate", False, f"it is of {agent}", "use the caller's own")
        return Step("certificate", True, f"this relay accepts it, {dates}")
    if connected is not None:
        ends = text(connected.get("certificate_ends"))
        return Step("certificate", True, f"accepted when it connected; ends {ends}")
    return Step("certificate", None, "not seen; --cert FILE has it judged by this relay")


def _connection(uri: str, connected: Row | None) -> Step:
    if connected is not None:
        where = f"{text(connected.get('transport'))} from {text(connected.get('remote'))}"
        return Step("connection", True, f"{uri} is connected by {where}")
    remedy = (
        "its own log says why it reaches no relay; this relay's says whom it turned away. "
        "It may be connected to another relay."
    )
    return Step("connection", False, f"{uri} is not connected here", remedy)


def _target(provider: Row, refused: Row | None) -> Step:
    if refused is not None:
        says = (
            f"{text(provider.get('provider'))} refused the last stream, "
            f"{whole(refused, 'refused_seconds')} s ago: {text(refused.get('refused'))}"
        )
        remedy = "see that the target runs and listens where that agent dials it"
        return Step("target", False, says, remedy)
    where = text(provider.get("target") or "the address it was started with")
    return Step(
        "target",
        None,
        f"{text(provider.get('provider'))} dials {where}; only it knows whether that answers: "
        "its log and the consumer's say it when a stream is refused",
    )

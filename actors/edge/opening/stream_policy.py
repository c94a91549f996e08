"""The policy of a stream: no two agents are joined without both of its decisions.

Every path that makes a pair asks here, at the relay that makes it: an opened stream, one that came
back to its pair, two halves that meet, and each of them between relays, where both relays ask. What
policy cannot be asked about is denied.

A stream that came back is judged by what it was opened for. After the loss of a relay nobody may
know that any more: then by what one of the two agents provides, to which the other must be allowed,
under the strictest mode that this could be; agents of ours say which one it was, and with whom.

Source: protocol sheet ORP 3.7, 4.4; 6.1 R6, 6.2 R24, R25, 6.3 F6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from actors.control.messages import Decide, Decision, P2PMode, RelayMode, combine_p2p
from actors.edge.context import EdgeContext
from actors.edge.pair_table import PairRow
from actors.edge.resume.returning import ResumingStream
from actors.runtime import RuntimeFault
from wire.orp import reject
from wire.orp.limits import MAX_PROVIDED, MAX_PROVIDED_BYTES

#: The reason when nothing the two agents provide may be used by the other.
NOTHING_PROVIDED = "neither provides what the other may use"
NOT_A_MEMBER = "not a member"
#: The reason when the stream's bytes may not be passed on in the clear.
FORWARD_ONLY = "forward mode"
#: Guesses about what a stream was opened for, the first one that is possible counts: a mode that
#: keeps the agents at the relay comes first, one that would end the stream last.
_GUESSES = (P2PMode.FORBIDDEN, P2PMode.ALLOWED, P2PMode.REQUIRED)


async def decide(
    door: EdgeContext,
    tenant: str,
    caller: str,
    target: str,
    method: str,
    stream_id: int,
    *,
    asker: str = "",
) -> Decision:
    """One decision. Without an answer in time nobody may. `asker`: see `Decide`."""
    try:
        return await door.control().policy.ask_again(
            Decide(tenant, caller, target, method, stream_id, asker),
            timeout=door.settings.policy_deadline,
        )
    except RuntimeFault:
        return Decision(False, reject.NO_POLICY_SNAPSHOT)


def unknown(decision: Decision) -> bool:
    """True when policy could not be asked: this says nothing about the stream."""
    return not decision.allow and decision.reason == reject.NO_POLICY_SNAPSHOT


async def judge(door: EdgeContext, row: PairRow) -> Decision:
    """May this stream be spliced (on) here? The mode is the combined one of both decisions."""
    caller = await decide(door, row.tenant, row.consumer, row.service, row.method, row.stream_id)
    if not caller.allow:
        return caller
    if caller.relay_mode is RelayMode.FORWARD:
        return Decision(False, FORWARD_ONLY)
    callee = await decide(
        door,
        row.tenant,
        row.provider,
        row.consumer,
        row.method,
        row.stream_id,
        asker=row.consumer,
    )
    if not callee.allow:
        return callee
    return Decision(True, caller.reason, combine_p2p(caller.p2p_mode, callee.p2p_mode))


async def judge_halves(
    door: EdgeContext, known: PairRow | None, halves: tuple[ResumingStream, ResumingStream]
) -> tuple[PairRow | None, Decision]:
    """The row of the pair that two halves make.

    Args:
        known: what the stream was opened for, as far as anybody knows.

    Returns:
        The row with the mode of policy, None when it is denied; and the decision.
    """
    if known is None:
        return await _guess(door, halves)
    same = known.terms()
    claims = [half.claim.terms() for half in halves if half.claim is not None]
    if (
        halves[0].uri == halves[1].uri
        or not all(known.has(half.uri) for half in halves)
        or any(claim != same for claim in claims)
    ):
        return None, Decision(False, NOT_A_MEMBER)
    decision = await judge(door, known)
    return (replace(known, p2p=decision.p2p_mode) if decision.allow else None), decision


async def _guess(
    door: EdgeContext, halves: tuple[ResumingStream, ResumingStream]
) -> tuple[PairRow | None, Decision]:
    possible: dict[P2PMode, PairRow] = {}
    denied = Decision(False, NOTHING_PROVIDED)
    claims = [half.claim for half in halves if half.claim is not None]
    method = claims[0].method if claims else ""
    for consumer, provider in (halves, halves[::-1]):
        if any(claim.consumer != consumer.uri for claim in claims):
            continue
        services = [
            service
            for service in (provider.provides if provider.relay else provided(door, provider.uri))
            if all(claim.service == service for claim in claims)
        ]
        if not services:
            continue
        stream_id, tenant = provider.stream_id, provider.tenant
        callee = await decide(door, tenant, provider.uri, consumer.uri, method, stream_id)
        if not callee.allow:
            denied = callee
            continue
        for service in services:
            caller = await decide(door, tenant, consumer.uri, service, method, stream_id)
            if not caller.allow:
                denied = caller
            elif caller.relay_mode is RelayMode.SPLICE:
                mode = combine_p2p(caller.p2p_mode, callee.p2p_mode)
                row = PairRow(stream_id, consumer.uri, provider.uri, tenant, service, method, mode)
                possible.setdefault(mode, row)
    for mode in _GUESSES:
        if mode in possible:
            return possible[mode], Decision(True, "", mode)
    return None, denied


def provided(door: EdgeContext, uri: str) -> Sequence[str]:
    """What an agent that is connected here provides, as much as another relay is told."""
    services: list[str] = []
    room = MAX_PROVIDED_BYTES
    for name in door.services.get(uri, ()):
        room -= len(name.encode())
        if room < 0 or len(services) >= MAX_PROVIDED:
            break
        services.append(name)
    return services

"""From a history to violations of what users of the relay were promised.

Pure functions of the history, like those of `checker`, so that tests can feed them histories in
which a promise is broken on purpose. Numbers are those of docs/chaos.md.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tools.chaos.checker import GRACEFUL, Violation
from tools.chaos.groups import covered
from tools.chaos.history import Action, History, Probe, Transfer

#: What decides about a new stream besides its carriers.
DECIDERS = ("/control",)
#: Between a death and its being noticed by the user of the stream, seconds.
NOTICE_SECONDS = 1.0
#: A process child needs this long to start, connect and register.
PROCESS_SECONDS = 15.0
#: What `machine_delay` says of a machine that is not slow is below this, seconds: ten times what
#: an idle one needs.
SLOW_SECONDS = 0.5
#: A violation names the faults of so many seconds before it.
STORY_SECONDS = 5.0


def _touches(action: Action, places: Iterable[str]) -> bool:
    """True when the fault hit one of the places, something below it, or a supervisor above it."""
    return any(
        covered(place, {top}) or covered(top, {place}) for top in action.group for place in places
    )


def _is_one_pair(history: History, action: Action) -> bool:
    return any(action.path.startswith(f"{place}/") for place in history.pairs)


def _during(action: Action, transfer: Transfer, before: float = 0.0) -> bool:
    return action.done and transfer.began - before <= action.at <= transfer.ended


def circumstances(history: History, began: float, ended: float) -> str:
    """When it was, what had been hurt shortly before, and how fast the machine was meanwhile."""
    starts = (*(a.at for a in history.actions), *(p.at for p in history.probes))
    start = min(starts, default=began)
    faults = [
        f"{action.verb} {action.path} {ended - action.at:.2f} s before"
        for action in history.actions
        if action.done and began - STORY_SECONDS <= action.at <= ended
    ]
    slowest = machine_delay(history, began, ended) / 2.0
    return (
        f" [{began - start:.2f} to {ended - start:.2f} s; faults: {', '.join(faults) or 'none'}; "
        f"the same exchange without the relay: {slowest:.2f} s at most]"
    )


def _too_late(history: History, began: float, ended: float, within: float, text: str) -> Violation:
    """16: something took longer than the promised seconds. Doubtful where the machine alone took as
    long: there the tolerance for it is a guess."""
    return Violation(
        16,
        text + circumstances(history, began, ended),
        doubtful=machine_delay(history, began, ended) > max(within / 2, SLOW_SECONDS),
    )


def transfers_are_honest(history: History) -> list[Violation]:
    """3 and 23: every stream ends, and a clean end has every byte, unaltered."""
    return [
        Violation(
            3 if transfer.outcome == "stuck" else 23,
            f"{transfer.name}: {transfer.outcome} {transfer.detail}"
            + circumstances(history, transfer.began, transfer.ended),
        )
        for transfer in history.transfers
        if transfer.outcome in ("truncated", "corrupt", "stuck")
    ]


def resets_are_explained(history: History) -> list[Violation]:
    """20: a stream is reset only when its own carrier died.

    The death of an agent connection, or of a supervisor above connections or pairs, explains any
    number of resets; the death of one pair explains one.
    """
    places = (*history.connections, *history.pairs)
    wide = [
        action
        for action in history.actions
        if not _is_one_pair(history, action) and _touches(action, places)
    ]
    pairs = sorted(a.at for a in history.actions if a.done and _is_one_pair(history, a))
    resets = [t for t in history.transfers if t.outcome == "reset"]
    left = [t for t in resets if not any(_during(a, t, NOTICE_SECONDS) for a in wide)]
    violations = []
    # Each remaining reset takes one pair's death out of its own lifetime: matching intervals in
    # order of their ends to the earliest point is optimal.
    for transfer in sorted(left, key=lambda t: t.ended):
        index = bisect.bisect_left(pairs, transfer.began)
        if index < len(pairs) and pairs[index] <= transfer.ended:
            del pairs[index]
        else:
            text = f"{transfer.name} was reset without its carrier's death: {transfer.detail}"
            text += circumstances(history, transfer.began, transfer.ended)
            violations.append(Violation(20, text))
    return violations


def refusals_are_explained(history: History, *, within: float = 1.0) -> list[Violation]:
    """16: a new stream is refused only while something it needs was just hurt.

    Longer than `within` seconds after the fault it must wait or work.
    """
    places = (*history.connections, *history.pairs, *DECIDERS)
    return [
        _too_late(
            history,
            transfer.began,
            transfer.ended,
            within,
            f"{transfer.name} was refused without a recent fault: {transfer.detail}",
        )
        for transfer in history.transfers
        if transfer.outcome == "refused"
        and not any(
            _touches(action, places) and _during(action, transfer, within)
            for action in history.actions
        )
    ]


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long after a fault (the last of several close together) a new stream worked."""

    fault: Action
    seconds: float


def _interrupts(history: History, action: Action) -> bool:
    """True when this fault may delay any new stream, not just one."""
    harmless = covered(action.path, ("/node", "/ops")) or _is_one_pair(history, action)
    return action.done and not harmless


def recoveries(history: History, *, within: float = 1.0) -> list[Recovery]:
    """For every fault that may delay new streams: when the first one that began after it worked.

    Infinity when none did. A fault followed by another before it was recovered from, within
    `within` seconds, is left to that one.
    """
    faults = sorted((a for a in history.actions if _interrupts(history, a)), key=lambda a: a.at)
    good = sorted(
        (p for p in history.probes if p.source == "stream" and not p.error), key=lambda p: p.ended
    )
    found = []
    for index, fault in enumerate(faults):
        since = max(fault.at, fault.acked)
        first = next((p.ended for p in good if p.at >= since), float("inf"))
        following = faults[index + 1].at if index + 1 < len(faults) else float("inf")
        if following < min(first, fault.at + within):
            continue
        found.append(Recovery(fault, first - fault.at))
    return found


def machine_delay(history: History, begin: float, end: float) -> float:
    """Seconds that a new stream may owe to the machine between two times.

    The slowest exchange without relay and agents meanwhile, twice: a stream's bytes pass two
    processes more. A few hundredths of a second on an idle machine.
    """
    slowest = (
        p.seconds
        for p in history.probes
        if p.source == "direct" and p.at <= end and begin <= p.ended
    )
    return 2.0 * max(slowest, default=0.0)


def new_streams_work(history: History, *, within: float = 1.0) -> list[Violation]:
    """16: after any fault a new stream works within `within` seconds, and none waits longer.

    The exceptions of the table in docs/chaos.md are in `_interrupts`, the tolerance for a machine
    that is busy with other things in `machine_delay`.
    """
    violations = [
        _too_late(
            history,
            r.fault.at,
            r.fault.at + min(r.seconds, STORY_SECONDS),
            within,
            f"no new stream worked within {within:g} s of {r.fault.verb} {r.fault.path} "
            f"(first after {r.seconds:.2f} s)",
        )
        for r in recoveries(history, within=within)
        if r.seconds > within
        and r.seconds > within + machine_delay(history, r.fault.at, r.fault.at + r.seconds)
    ]
    faults = [a for a in history.actions if _interrupts(history, a)]
    for probe in history.probes:
        if probe.source != "stream" or probe.seconds <= within:
            continue
        # It waited longer than a recovery may take: another fault must have come meanwhile.
        patience = within + machine_delay(history, probe.at, probe.ended)
        if probe.seconds <= patience:
            continue
        if not any(probe.ended - patience <= max(a.at, a.acked) <= probe.ended for a in faults):
            outcome = probe.error or "worked"
            text = (
                f"the new stream {probe.name} took {probe.seconds:.2f} s without a recent fault "
                f"({outcome})"
            )
            violations.append(_too_late(history, probe.at, probe.ended, within, text))
    return violations


def agents_are_unharmed(history: History) -> list[Violation]:
    """7: nobody hurt the run's own agents, so none of their actors ends abnormally.

    What happens to their connections and streams is an error they must have an answer to.
    """
    violations = []
    for event in history.agent_events:
        fields = event.get("fields")
        kind = fields.get("kind") if isinstance(fields, Mapping) else None
        if event.get("kind") == "exited" and kind not in GRACEFUL:
            reason = fields.get("reason") if isinstance(fields, Mapping) else ""
            violations.append(Violation(7, f"agent: {event.get('path')} ended with {reason}"))
    return violations


def pages_recover(history: History, *, within: float = 1.0) -> list[Violation]:
    """16: a page behind the relay fails only in the shadow of a fault, and comes back after all.

    The demo's own processes may be victims, too: their shadow is `PROCESS_SECONDS`.
    """
    violations = []
    probes = [probe for probe in history.probes if probe.source == "url"]
    for probe in probes:
        if probe.error and not any(_shadows(action, probe, within) for action in history.actions):
            text = f"a page failed without a recent fault: {probe.error}"
            violations.append(Violation(16, text))
    last_fault = max((action.at for action in history.actions), default=0.0)
    after = [probe for probe in probes if probe.at > last_fault + within]
    if after and after[-1].error:
        violations.append(Violation(16, f"the last page failed: {after[-1].error}"))
    return violations


def _shadows(action: Action, probe: Probe, within: float) -> bool:
    shadow = PROCESS_SECONDS if covered(action.path, {"/node"}) else within
    return action.done and probe.at - shadow <= action.at <= probe.ended


def registry_matches(connections: Iterable[str], registered: Iterable[str]) -> list[Violation]:
    """15: the registry's agents are the connected agents."""
    live, known = set(connections), set(registered)
    return [
        Violation(15, f"{uri} is connected but not in the registry") for uri in sorted(live - known)
    ] + [
        Violation(15, f"{uri} is in the registry but not connected") for uri in sorted(known - live)
    ]


def registry_counts(connections: int, registry: Mapping[str, object]) -> list[Violation]:
    """15 as far as the control path shows it: as many agents in the registry as are connected.

    Args:
        connections: living agent connections.
        registry: what the registry says about itself.
    """
    registered = registry.get("agents")
    if registered == connections:
        return []
    return [Violation(15, f"{connections} agents are connected, {registered} are registered")]


def audit_is_complete(decisions: int, stored: int, lost: int) -> list[Violation]:
    """18: each decision was recorded at least once, or is counted as lost."""
    if stored + lost >= decisions:
        return []
    text = f"{decisions} decisions, but {stored} recorded and {lost} counted as lost"
    return [Violation(18, text)]


def policy_stays_closed(forbidden: Iterable[Transfer]) -> list[Violation]:
    """17: no transfer that the rules forbid ever reached the service."""
    return [
        Violation(17, f"{transfer.name} is forbidden and was {transfer.outcome}")
        for transfer in forbidden
        if transfer.outcome != "refused"
    ]

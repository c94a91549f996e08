"""What the actor system itself can tell: how many live, how they end, what nobody received."""

from __future__ import annotations

from actors.observe.meters import Meters
from actors.runtime import ActorSystem, Event

#: Kinds of exit reasons and of events that are counted; both come from fixed sets of the runtime.
_COUNTED = ("gave_up", "escalated", "undead", "storm", "release_error", "stalled", "operator")


def watch_system(meters: Meters, system: ActorSystem) -> None:
    """Count from now on; the subscription ends with the system."""
    exits = meters.family("actor_exits_total", "reason")
    events = meters.family("actor_events_total", "event", _COUNTED)
    started = meters.counters

    def deliver(event: Event) -> None:
        if event.kind == "started":
            started["actors_started_total"] += 1
        elif event.kind == "exited":
            exits[str(event.fields.get("kind", "unknown"))] += 1
        elif event.kind in _COUNTED:
            events[event.kind] += 1

    system.events.subscribe(deliver)
    meters.gauge("actors", lambda: system.living)
    meters.totals["dead_letters_total"] = lambda: system.dead_letters.total

"""What operators see from outside, from settings; and what it takes to be ready."""

from __future__ import annotations

from collections.abc import Mapping

from actors.doors.door import Door
from actors.observe.tree import ObserveSettings
from actors.observe.web import Readiness
from actors.runtime import ActorSystem, inspection
from config.schema import Settings


def observe_settings(settings: Settings) -> ObserveSettings:

    metrics = settings.metrics
    return ObserveSettings(
        listen=None if metrics.listen is None else (metrics.listen.host, metrics.listen.port),
        dump=metrics.dump,
        interval=metrics.interval_seconds,
        access_log=settings.log.access_file,
        most_file_bytes=settings.log.max_file_bytes,
    )


def readiness(system: ActorSystem, doors: Mapping[str, Door]) -> Readiness:
    """New streams need a registry, rules, and every listener; a draining door takes none.

    Args:
        doors: those that are open, by name; looked at whenever it is asked.
    """

    async def missing() -> dict[str, str]:
        result: dict[str, str] = {}
        for path in ("/control/registry", "/control/policy", "/control/audit"):
            word = _state(system, path)
            if word != "running":
                result[path] = word
        policy = _described(system, "/control/policy")
        if policy.get("enforced") and not policy.get("snapshot"):
            result.setdefault("/control/policy", "no rules yet")
        for name, door in doors.items():
            if door.draining:
                result[f"/{name}"] = "draining"
            for place in door.listening():
                word = _state(system, place.path)
                if word != "running":
                    result[place.path] = word
        return result

    return missing


def _state(system: ActorSystem, path: str) -> str:
    cell = system.find(path)
    return "not there" if cell is None else str(inspection.row(cell)["state"])


def _described(system: ActorSystem, path: str) -> Mapping[str, object]:
    cell = system.find(path)
    described = None if cell is None else inspection.details(cell)["describe"]
    return described if isinstance(described, Mapping) else {}

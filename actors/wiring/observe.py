"""What operators see from outside, from settings; and what it takes to be ready."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.edge.tree import Edge
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


def readiness(system: ActorSystem, door: Callable[[], Edge | None]) -> Readiness:
    """New streams need a registry, rules, and a listener; a draining relay takes none."""

    async def missing() -> dict[str, str]:
        result: dict[str, str] = {}
        for path in ("/control/registry", "/control/policy", "/control/audit"):
            word = _state(system, path)
            if word != "running":
                result[path] = word
        policy = _described(system, "/control/policy")
        if policy.get("enforced") and not policy.get("snapshot"):
            result.setdefault("/control/policy", "no rules yet")
        edge = door()
        if edge is not None:
            if edge.door.draining:
                result["/edge"] = "draining"
            for path in edge.listener_paths():
                word = _state(system, path)
                if word != "running":
                    result[path] = word
        return result

    return missing


def _state(system: ActorSystem, path: str) -> str:
    cell = system.find(path)
    return "not there" if cell is None else str(inspection.row(cell)["state"])


def _described(system: ActorSystem, path: str) -> Mapping[str, object]:
    cell = system.find(path)
    described = None if cell is None else inspection.details(cell)["describe"]
    return described if isinstance(described, Mapping) else {}

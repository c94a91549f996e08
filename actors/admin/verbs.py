"""Acting on actors: `kill`, `crash`, `stop`, `suspend`, `resume`.

Each names who asked and why: in the log, in an `operator` event, and as the initiator of the exit.
The root, the control server, its supervisor of connections and everything above them are refused
without `force`, because the operator would cut the branch he sits on. Whether the actor comes back
is its supervisor's decision, as for any other exit.
"""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from actors.admin.mounts import ControlFailed
from actors.admin.places import forward, local_cell, mounted
from actors.admin.session import ControlService, Exchange, Operation
from actors.runtime import ActorRef, ActorSystem, Event, inspection
from wire.admin.errors import ErrorCode
from wire.admin.limits import MAX_REASON_CHARACTERS
from wire.admin.messages import Row
from wire.admin.paths import below, inward

#: Seconds one of these may take; here they are immediate, a mounted process may be slow.
VERB_SECONDS = 5.0
MAX_INITIATOR_CHARACTERS = 200

Act = Callable[[ActorSystem, ActorRef, str, str], bool]


def _kill(system: ActorSystem, ref: ActorRef, detail: str, initiator: str) -> bool:
    return system.kill(ref, detail, initiator=initiator)


def _crash(system: ActorSystem, ref: ActorRef, detail: str, initiator: str) -> bool:
    return system.crash(ref, detail, initiator=initiator)


def _stop(system: ActorSystem, ref: ActorRef, detail: str, _initiator: str) -> bool:
    return system.stop_actor(ref, detail)


def _suspend(system: ActorSystem, ref: ActorRef, _detail: str, initiator: str) -> bool:
    return system.suspend(ref, initiator=initiator)


def _resume(system: ActorSystem, ref: ActorRef, _detail: str, initiator: str) -> bool:
    return system.resume(ref, initiator=initiator)


_VERBS: dict[str, Act] = {
    "kill": _kill,
    "crash": _crash,
    "stop": _stop,
    "suspend": _suspend,
    "resume": _resume,
}
#: Harmless wherever they are used.
_UNGUARDED = frozenset({"resume"})


def operations() -> dict[str, Operation]:
    """The verbs, by name."""
    return {name: Operation(_act, VERB_SECONDS) for name in _VERBS}


async def _act(exchange: Exchange) -> Row:
    """args path, reason, force, by. Result: the actor's path, class, incarnation and state.

    `by` adds to who is named as the author (`operator uid=0 (chaos seed 7)`); the parent process,
    which forwards what its operators do, gives the whole author as `initiator`.
    """
    args = exchange.args
    path = args.path()
    reason = args.text("reason", "", most=MAX_REASON_CHARACTERS)
    force = args.flag("force")
    initiator = exchange.peer.initiator
    by = args.text("by", "", most=64)
    if by:
        initiator = f"{initiator} ({by})"
    if exchange.peer.trusted:
        initiator = args.text("initiator", initiator, most=MAX_INITIATOR_CHARACTERS)
    args.finish()
    service, verb = exchange.service, exchange.op
    mount = mounted(service, path)
    if mount is not None:
        inner: dict[str, object] = {"path": inward(mount[0], path), "reason": reason}
        inner |= {"force": force, "initiator": initiator[:MAX_INITIATOR_CHARACTERS]}
        return await forward(exchange, mount, inner)
    cell = local_cell(service, path)
    if not force and verb not in _UNGUARDED:
        _refuse_guarded(service, verb, path)
    before: Row = {
        "path": path,
        "class": type(cell.actor).__name__ if cell.actor is not None else "",
        "incarnation": cell.incarnation,
        "state": inspection.state_word(cell),
        "restart": cell.spec.restart.value,
    }
    # Said before it is done: the actor killed may be the one that serves this request.
    fields: dict[str, object] = {"verb": verb, "initiator": initiator, "reason": reason}
    service.system.events.publish(Event("operator", path, cell.incarnation, fields))
    logger.bind(actor=path).warning("{} by {}{}", verb, initiator, f": {reason}" if reason else "")
    if not _VERBS[verb](service.system, cell.ref, reason, initiator):
        state = inspection.state_word(cell)
        raise ControlFailed(ErrorCode.REFUSED, f"{path} is {state}: cannot {verb} it now")
    return before


def _refuse_guarded(service: ControlService, verb: str, path: str) -> None:
    if path == "/":
        text = f"{verb} on / would end the whole node; --force does it all the same"
        raise ControlFailed(ErrorCode.REFUSED, text)
    for guarded in service.guarded:
        if below(guarded, path):
            text = (
                f"{verb} on {path} would cut the control connection you are using; "
                "--force does it all the same"
            )
            raise ControlFailed(ErrorCode.REFUSED, text)

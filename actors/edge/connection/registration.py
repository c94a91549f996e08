"""What one agent provides, told to the registry, and kept told.

The registry forgets when it restarts, and may miss a notice: this holds, beside it, the services
the agent registered, tells a new registry, and asks now and then whether it knows.

Source: protocol sheet ORP 3.1, 3.2; 6.1 R9; 6.2 R17, R18, R20.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Protocol

from actors.control.messages import (
    AgentUp,
    Confirm,
    Decide,
    RegisterRefused,
    RegisterService,
)
from actors.edge.context import EdgeContext
from actors.runtime import Actor, ActorDown, AskFailed, Down, NoAnswer, ReplyError
from actors.runtime.serial_queue import SerialQueue
from wire.orp.close_codes import CloseCode
from wire.orp.identity import AgentUri
from wire.orp.messages import Register, RegisterAck

#: Pause before a refused announcement to the registry is tried again, seconds (times jitter).
ANNOUNCE_AGAIN = 0.25
#: Seconds (times jitter) after which an idle connection asks whether the registry still has it.
ANNOUNCE_REFRESH = 30.0

#: Method of the policy decision on a REGISTER, when it is judged.
REGISTER_METHOD = "REGISTER"


class Announce:
    """To the connection: tell the registry about its agent again."""

    __slots__ = ()


class Recheck:
    """To the connection: does the registry have what it was told?"""

    __slots__ = ()


def _forgotten(refused: ReplyError) -> bool:
    """True when the registry restarted since our AgentUp."""
    value = refused.refusal
    return isinstance(value, RegisterRefused) and value.why == "not_connected"


class AgentLine(Protocol):
    """What a registration says to its agent."""

    def say(self, message: RegisterAck) -> None:
        """Send on ctrl, while there is one."""

    def close(self, code: int, reason: str) -> None:
        """End the connection; idempotent."""


class Registration:
    """The services of one connection.

    Args:
        owner: the connection's actor; it handles `Announce` with `announce`, `Recheck` with
            `recheck`, and tells of the ends of what it monitors.
        line: the same, as the way to its agent.

    Attributes:
        services: confirmed ones, and where the agent reaches them.
        generation: of the connection at the registry; 0 until it knows it.
    """

    def __init__(
        self, owner: Actor, line: AgentLine, door: EdgeContext, identity: AgentUri
    ) -> None:
        # Weakly: it holds us, and would wait for the garbage collector with its connection.
        self._owner: Actor = weakref.proxy(owner)
        self._line: AgentLine = weakref.proxy(line)
        self._door = door
        self._identity = identity
        self.services: dict[str, str] = {}
        self.generation = 0
        self._registry_monitor = 0

    def begin(self) -> None:
        """The connection's actor runs."""
        self._pending: SerialQueue[Register] = SerialQueue(
            self._owner,
            "register",
            self._register,
            bound=self._door.settings.max_services_per_agent,
        )

    def registry_down(self, down: Down) -> None:
        """Something ended; when it was the registry, the next one must hear of this agent."""
        if down.token == self._registry_monitor:
            self._owner.start_timer(0.0, Announce(), "announce")

    async def announce(self) -> None:
        """Tell the registry of the agent and its services; again after a pause if it is away."""
        registry = self._door.control().registry
        if self._registry_monitor:
            self._owner.demonitor(self._registry_monitor)
        self._registry_monitor = self._owner.monitor(registry)
        up = AgentUp(self._identity.text, self._identity.tenant, self._owner.ref, self.generation)
        try:
            self.generation = await registry.ask_again(
                up, timeout=self._door.settings.register_deadline
            )
            for name, address in list(self.services.items()):
                await registry.ask_again(
                    self._registration(name, address),
                    timeout=self._door.settings.register_deadline,
                )
        except ReplyError as refused:
            if not _forgotten(refused):
                self._line.close(CloseCode.REGISTER_FAILED, f"registry: {refused}")
                return
            # It restarted between our AgentUp and the services: from the start, at once.
            self._door.counters["announce_again"] += 1
            self._owner.start_timer(0.0, Announce(), "announce")
        except NoAnswer:
            self._door.counters["announce_again"] += 1
            again = ANNOUNCE_AGAIN * self._owner.system.rng.uniform(0.5, 2.0)
            self._owner.start_timer(again, Announce(), "announce")
        else:
            self._recheck_later()

    def _recheck_later(self) -> None:
        refresh = ANNOUNCE_REFRESH * self._owner.system.rng.uniform(0.5, 1.5)
        self._owner.start_timer(refresh, Recheck(), "announce")

    async def recheck(self) -> None:
        """What one lost notice would otherwise cost for good is repaired here."""
        question = Confirm(self._identity.text, self.generation, len(self.services))
        try:
            known = await self._door.control().registry.ask(
                question, timeout=self._door.settings.register_deadline
            )
        except AskFailed:
            known = False
        if known:
            self._recheck_later()
        else:
            self._owner.start_timer(0.0, Announce(), "announce")

    def _registration(self, name: str, address: str) -> RegisterService:
        identity = self._identity
        return RegisterService(identity.tenant, name, identity.text, self.generation, address)

    def register(self, register: Register) -> None:
        """The agent wants to provide a service; answered on ctrl, or by the end of it."""
        full = len(self.services) + len(self._pending)
        if full >= self._door.settings.max_services_per_agent:
            self._door.counters["register_limit"] += 1
            self._line.close(CloseCode.REGISTER_FAILED, "too many services")
        elif not self._pending.add(register):
            self._line.close(CloseCode.TOO_MANY_REQUESTS, "too many REGISTERs")

    async def _register(self, register: Register) -> None:
        deadline = self._owner.now() + self._door.settings.register_deadline
        registry = self._door.control().registry
        if not await self._may_provide(register.service_name):
            self._door.counters["register_denied"] += 1
            self._line.close(CloseCode.REGISTER_FAILED, "not allowed to provide this service")
            return
        if register.service_name not in self.services:
            ticket = self._door.quotas.services.take(self._identity.tenant, self._identity.text)
            if ticket is None:
                self._line.close(CloseCode.REGISTER_FAILED, "too many services")
                return
            self._owner.own(ticket, "ticket")
        try:
            service_id = ""
            while not service_id:
                while not self.generation and self._owner.now() < deadline:
                    # HELLO is still on its way to the registry.
                    with contextlib.suppress(ActorDown):  # control as a whole restarts: wait, too
                        await registry.started(timeout=max(0.001, deadline - self._owner.now()))
                    await self._pause()
                try:
                    service_id = await registry.ask_again(
                        self._registration(register.service_name, register.local_addr),
                        timeout=max(0.001, deadline - self._owner.now()),
                    )
                except ReplyError as refused:
                    if not _forgotten(refused) or self._owner.now() >= deadline:
                        raise
                    # It restarted: the announcement that its Down caused is on the way.
                    await self._pause()
        except (AskFailed, TimeoutError) as error:
            self._door.counters["register_failed"] += 1
            self._owner.log.bind(agent_uri=self._identity.text).warning(
                "REGISTER failed: {}", error
            )
            self._line.close(CloseCode.REGISTER_FAILED, "register failed")
            return
        self.services[register.service_name] = register.local_addr
        self._line.say(RegisterAck(service_id))

    async def _may_provide(self, service: str) -> bool:
        """The policy on REGISTER (sheet 6.2 R20); without an answer in time, nobody may."""
        if not self._door.settings.judge_registers:
            return True
        identity = self._identity
        try:
            decision = await self._door.control().policy.ask_again(
                Decide(identity.tenant, identity.text, service, REGISTER_METHOD),
                timeout=self._door.settings.policy_deadline,
            )
        except AskFailed:
            return False
        return decision.allow

    @staticmethod
    async def _pause() -> None:
        await asyncio.sleep(0.005)

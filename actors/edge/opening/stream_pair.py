"""One stream from a consumer agent to a provider agent, from its OPEN_STREAM on, top to bottom.

1. `open_pair`: the agent's connection read the frame; quotas, then an actor of its own.
2. `StreamPair.init`: the actor takes the consumer's stream. What the consumer sends from here on is
   held, bounded by its window; that it ends or resets is noticed at once.
3. `continue_`: the sequence, each step with its deadline. May the consumer reach the service
   (`_ask_caller`)? Who provides it (`_choose_providers`)? May the provider be reached by the
   consumer? Whose is the stream id (`_claim_for`)? A stream to the provider, or to the relay where
   it is, and its answer (`_ask_provider`).
4. The outcome: a splice (`_splice_streams`; from then on it is a `SplicedPair`), datagrams where
   policy wants them (`ForwardedPair`), or a reject (`_reject`).

A stream that another relay brought takes the same way. Both decisions are made and audited again:
what policy the other relay asked, if any, is its word only. Its provider must be connected here,
as nothing is passed on to a third relay, and it is never forwarded.

Temporary: an agent's new stream is its restart.

Source: protocol sheet ORP 2.5, 3.3, 3.4, 3.11; 6.1 R4, R9, R10, R13; 6.4 X1, X2, X5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger

from actors.control.messages import Decision, P2PMode, Provider, RelayMode, Resolve, combine_p2p
from actors.edge.context import EdgeContext
from actors.edge.forward.forwarded_pair import ForwardedPair
from actors.edge.forward.messages import Granted
from actors.edge.messages import SendReady
from actors.edge.opening.open_request import Gone, OpenRequest, ProviderLost, Rejected
from actors.edge.opening.provider_answer import ProviderAnswer
from actors.edge.opening.stream_policy import decide
from actors.edge.pair_account import PairAccount
from actors.edge.pair_table import PairRow
from actors.edge.stream_credit import CLOSED, RECYCLED
from actors.runtime import (
    ActorDown,
    ActorRef,
    ActorSystem,
    AskFailed,
    ChildRefused,
    ChildSpec,
    Down,
    ReplyError,
    Restart,
    handles,
    shutdown,
)
from actors.transport.claim import claim_stream
from actors.transport.stream import CloseReason, Stream, StreamClosed, StreamEnd
from wire.orp import reject
from wire.orp.close_codes import ResetCode
from wire.orp.messages import (
    ForwardStream,
    IncomingStream,
    StreamAccept,
    StreamReject,
)

#: Providers at other relays that are tried when a relay cannot be reached.
MAX_RELAYS_TRIED = 3
#: Pause until a provider is looked for again, seconds: the first, then twice as long each time.
LOOK_AGAIN = 0.05
LOOK_AGAIN_CAP = 0.5
#: What is said of a service whose provider is away.
_AWAY = (reject.SERVICE_NOT_FOUND, reject.NO_LOCAL_PROVIDER)


def open_pair(door: EdgeContext, system: ActorSystem, request: OpenRequest) -> ActorRef | None:
    """Step 1. The pair's actor, which may end before it ran; None: the stream was refused."""
    quotas, message = door.quotas, request.message
    why = "streams are opened too fast"
    if quotas.opens.take(request.tenant, request.consumer, door.clock()):
        request.ticket = quotas.streams.take(request.tenant, request.consumer)
        why = "too many streams"
    if request.ticket is None:
        answer = reject.relay_unavailable(why)
        level = quotas.level(request.tenant, request.consumer, door.clock())
        logger.bind(agent_uri=request.consumer, service=message.target_service).log(
            level, "stream rejected: {} {}", answer.code, answer.reason
        )
        request.refuse(answer)
        return None
    name = f"{message.stream_id:016x}~{door.next_serial()}"
    spec = ChildSpec(
        name, lambda: StreamPair(door, request), restart=Restart.TEMPORARY, shutdown=1.0
    )
    try:
        return system.start_child(door.streams(), spec)
    except ChildRefused as refused:
        door.counters[f"stream_refused_{refused.why}"] += 1
        request.refuse()
        return None


class StreamPair(ForwardedPair):
    """The actor of one stream that is being opened, and carried then."""

    def __init__(self, door: EdgeContext, opening: OpenRequest) -> None:
        super().__init__(door)
        self._opening = opening
        self._relay_mode = RelayMode.SPLICE
        self._caller_p2p = P2PMode.ALLOWED
        self._p2p = P2PMode.ALLOWED
        self._provider_uri = ""
        #: The relay where the provider is; empty: it is connected here.
        self._provider_relay = ""
        self._consumer_end = StreamEnd(opening.stream, ResetCode.RELAY_FAULT)
        self._provider_end: StreamEnd | None = None
        self._held = [opening.rest] if opening.rest else []
        self._consumer_eof = False
        self._gone = False  # the consumer, while the stream is opened
        self._answer: ProviderAnswer | None = None

    # Step 2: the consumer's stream.

    def init(self) -> None:
        """Own the consumer's stream; what it sends meanwhile is held, bounded by its window."""
        self.own(self._consumer_end, "stream")
        self._opening.owned = True
        if self._opening.ticket is not None:
            self.own(self._opening.ticket, "ticket")
        self._account = self.own(
            PairAccount(self._door, self.now(), self._asked_row(""), self.path), "account"
        )
        stream = self._opening.stream
        stream.on_data = self._held.append
        stream.on_eof = self.guard("consumer", self._consumer_ended)
        stream.on_reset = self.guard("consumer", self._consumer_gone)
        stream.on_lost = self.guard("consumer", self._consumer_gone)
        stream.start()

    def _asked_row(self, provider: str) -> PairRow:
        opening, message = self._opening, self._opening.message
        return PairRow(
            message.stream_id,
            opening.consumer,
            provider,
            opening.tenant,
            message.target_service,
            message.method,
            self._p2p,
        )

    def _consumer_ended(self) -> None:
        self._consumer_eof = True

    def _consumer_gone(self, _: int | CloseReason) -> None:
        self._gone = True
        if self._answer is not None:
            self._answer.give_up(Gone())

    def describe(self) -> dict[str, object]:
        """Who talks to whom, and how much so far."""
        message = self._opening.message
        return {
            "phase": self._phase,
            "service": message.target_service,
            "method": message.method,
            "stream_id": f"{message.stream_id:016x}",
            "consumer": self._opening.consumer,
            "provider": self._provider_uri,
            "tenant": self._opening.tenant,
            "forwarded_from": self._opening.relay,
            "forwarded_to": self._provider_relay,
            **self._volumes(),
        }

    # Step 3: the sequence.

    async def continue_(self) -> None:
        """Policy, registry, provider; then splice, forward, or reject."""
        try:
            provider, rest = await self._with_patience()
            granted = None
            if self._relay_mode is RelayMode.FORWARD:
                granted = await self._allocate(self._opening, provider)
        except Rejected as rejected:
            self._reject(rejected.answer)
        except Gone:
            self._fail("gone while opening")
        else:
            if granted is None:
                self._splice_streams(provider, rest)
            elif isinstance(granted, StreamReject):
                self._reject(granted)
            else:
                self._forward_streams(provider, granted, rest)

    async def _with_patience(self) -> tuple[Provider, bytes]:
        """Reach a provider; again when its connection ended, for so long as opening one may take.

        The consumer's bytes were not passed on yet, so nothing is done twice but the asking.
        Another provider of the service is asked at once; the same one when it comes back in time.
        One that was lost when it had heard of the stream is asked once more, not more often:
        whatever the stream does to providers, it does to two of them.
        """
        deadline: float | None = None
        pause, asked = LOOK_AGAIN, False
        while True:
            try:
                return await self._reach_provider()
            except ProviderLost as lost:
                if asked and lost.asked:
                    raise
                asked = asked or lost.asked
                answer = lost.answer
            except Rejected as rejected:
                if deadline is None or rejected.answer not in _AWAY:
                    raise
                answer = rejected.answer
            if deadline is None:
                deadline = self.now() + self._door.settings.incoming_deadline
            elif self.now() > deadline:
                raise Rejected(answer)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_AGAIN_CAP)

    async def _reach_provider(self) -> tuple[Provider, bytes]:
        """Steps 2 to 8 of sheet 3.3, with the next provider when a relay cannot be reached."""
        if self._door.draining:
            raise Rejected(reject.relay_unavailable("it is draining"))
        await self._ask_caller()
        service = self._opening.message.target_service
        unreachable = reject.SERVICE_NOT_FOUND
        for provider in await self._choose_providers():
            callee = await self._decide(provider.uri, self._opening.consumer)
            if not callee.allow:
                raise Rejected(reject.denied_callee(callee.reason))
            self._p2p = combine_p2p(self._caller_p2p, callee.p2p_mode)
            try:
                rest = await self._ask_provider(provider)
                self._door.refusals.accepted(provider.uri, service)
                return provider, rest
            except Rejected as rejected:
                if rejected.answer.reason.startswith(reject.PROVIDER_REJECTED.reason):
                    reason = rejected.answer.reason
                    self._door.refusals.refused(provider.uri, service, reason, self.now())
                if rejected.answer is not reject.PEER_RELAY_UNREACHABLE:
                    raise
                unreachable = rejected.answer
        raise Rejected(unreachable)

    async def _ask_caller(self) -> None:
        """May the consumer reach the service, and how?"""
        caller = await self._decide(self._opening.consumer, self._opening.message.target_service)
        if not caller.allow:
            raise Rejected(reject.denied(caller.reason))
        self._relay_mode = caller.relay_mode
        self._caller_p2p = caller.p2p_mode
        impossible = self._opening.relay or self._door.forward is None
        if self._relay_mode is RelayMode.FORWARD and impossible:
            raise Rejected(reject.FORWARD_UNAVAILABLE)  # sheet 6.3 F6: never a splice

    async def _decide(self, caller: str, target: str) -> Decision:
        opening, message = self._opening, self._opening.message
        return await decide(
            self._door,
            opening.tenant,
            caller,
            target,
            message.method,
            message.stream_id,
            asker=opening.consumer,
        )

    async def _choose_providers(self) -> tuple[Provider, ...]:
        """The one that is connected here, else some at other relays."""
        opening, settings = self._opening, self._door.settings
        nobody = reject.NO_LOCAL_PROVIDER if opening.relay else reject.SERVICE_NOT_FOUND
        try:
            resolution = await self._door.control().registry.ask_again(
                Resolve(opening.tenant, opening.message.target_service, settings.region),
                timeout=settings.resolve_deadline,
            )
        except AskFailed:
            raise Rejected(nobody if opening.relay else reject.REGISTRY_UNAVAILABLE) from None
        local = tuple(one for one in resolution.providers if one.connection is not None)[:1]
        if local:
            return local
        if opening.relay or not resolution.providers:
            raise Rejected(nobody)
        if self._relay_mode is RelayMode.FORWARD:
            raise Rejected(reject.FORWARD_UNAVAILABLE)  # sheet 6.3 F6: never a splice
        remote = tuple(
            one
            for one in resolution.providers
            if self._door.relays.learn(one.relay_id, one.relay_endpoint)
        )
        if not remote:
            raise Rejected(reject.INTER_RELAY_UNAVAILABLE)
        return remote[:MAX_RELAYS_TRIED]

    async def _claim_for(self, provider: Provider) -> None:
        """Steps 5 and 6: the stream id is this pair's, or the stream is refused."""
        opening, stream_id = self._opening, self._opening.message.stream_id
        if not stream_id:
            return
        before = self._door.pairs.unfinished(stream_id, self.now())
        if before is not None and (before.consumer, before.provider) != (
            opening.consumer,
            provider.uri,
        ):
            raise Rejected(reject.STREAM_ID_COLLISION)  # its own agents may come back to it
        claimed = await self._claim(stream_id, opening.consumer, provider.uri)
        if claimed is None:
            raise Rejected(reject.REGISTRY_UNAVAILABLE)
        if not claimed:
            raise Rejected(reject.STREAM_ID_COLLISION)
        self._watch_registry()

    async def _ask_provider(self, provider: Provider) -> bytes:
        """Steps 5, 6 and 8, or those of sheet 3.11 when the provider is at another relay.

        The id is claimed before the provider hears of the stream: a collision spares it.

        Returns the provider's bytes that came behind its STREAM_ACCEPT.
        """
        opening, settings = self._opening, self._door.settings
        if self._gone:
            raise Gone
        if self._provider_end is not None:  # of one that was lost
            self.disown(self._provider_end)
            self._provider_end.abort()
            self._provider_end = None
        self._provider_uri = provider.uri
        self._provider_relay = ""
        patience = settings.accept_deadline
        if provider.connection is not None:
            await self._claim_for(provider)
            failed = reject.PROVIDER_STREAM_OPEN_FAILED
            if opening.relay:
                failed = reject.PROVIDER_OPEN_FAILED
            stream = await self._open_towards(
                lambda: provider.connection, settings.incoming_deadline, failed
            )
        else:
            self._provider_relay = provider.relay_id
            stream = await self._open_towards(
                lambda: self._door.relays.link(provider.relay_id),
                settings.incoming_deadline + self._door.relays.settings.dial_timeout,
                reject.PEER_RELAY_UNREACHABLE,
            )
            # The other relay's own deadlines come first: its answer says more than our silence.
            patience += (
                settings.resolve_deadline + settings.policy_deadline + settings.incoming_deadline
            )
        self._provider_end = self.own(StreamEnd(stream, ResetCode.RELAY_FAULT), "stream")
        if self._provider_relay:
            self._door.meters.counters["intra_relay_hops"] += 1
            await self._claim_for(provider)
        if self._gone:
            raise Gone
        self._answer = ProviderAnswer(
            self,
            stream,
            self._door.counters,
            relayed=bool(self._provider_relay),
            # Both ends hold what happens to them until the splice listens.
            on_accept=self._consumer_end.stream.pause,
        )
        message, kind = opening.message, ForwardStream if self._provider_relay else IncomingStream
        first = kind(message.target_service, message.method, opening.consumer, message.stream_id)
        return await self._answer.ask(first.encode(), patience)

    async def _open_towards(
        self, connection: Callable[[], ActorRef | None], patience: float, failed: StreamReject
    ) -> Stream:
        """A stream over the connection of the provider, or of the relay where it is."""
        try:
            ref = connection()
            assert ref is not None
            return await claim_stream(self, ref, timeout=patience, code=ResetCode.RELAY_FAULT)
        except (AskFailed, ChildRefused, StreamClosed) as error:
            self.log.debug("no stream to the provider: {}", error)
            ended = isinstance(error, ActorDown | StreamClosed) or (
                isinstance(error, ReplyError) and error.refusal in (CLOSED, RECYCLED)
            )
            if ended and not self._provider_relay:
                raise ProviderLost(failed, asked=False) from None
            raise Rejected(failed) from None

    # Step 4: the outcome.

    def _splice_streams(self, provider: Provider, rest: bytes) -> None:
        assert self._provider_end is not None
        opening = self._opening
        self._announce(provider)
        consumer = self._side("consumer", opening.consumer, relay=opening.relay)
        other = self._side("provider", provider.uri, relay=self._provider_relay)
        splice = self._begin(self._asked_row(provider.uri), consumer, other)
        splice.attach(consumer, self._consumer_end, already=self._consumer_end.stream.backlog)
        splice.attach(other, self._provider_end, already=self._provider_end.stream.backlog)
        held = {consumer: self._held, other: [rest] if rest else []}
        splice.start(held, {consumer} if self._consumer_eof else set())

    def _announce(self, provider: Provider) -> None:
        """Tell both agents that the stream is spliced; one at another relay hears it from there."""
        opening, stream_id = self._opening, self._opening.message.stream_id
        if opening.relay:
            self._consumer_end.stream.write(StreamAccept().encode())
        elif stream_id:
            opening.connection.try_tell(SendReady(stream_id, provider.uri))
        if stream_id and provider.connection is not None:
            provider.connection.try_tell(SendReady(stream_id, opening.consumer))

    def _forward_streams(self, provider: Provider, granted: Granted, rest: bytes) -> None:
        assert self._provider_end is not None
        assert provider.connection is not None
        early = sum(map(len, self._held))
        self._held.clear()
        ends = (
            ("consumer", self._consumer_end, early),
            ("provider", self._provider_end, len(rest)),
        )
        connections = (self._opening.connection, provider.connection)
        self._forward(self._asked_row(provider.uri), granted, connections, ends)
        if self._consumer_eof:
            self._forward_over()

    def _reject(self, answer: StreamReject) -> None:
        self._phase = "rejected"
        self._account.outcome = "rejected"
        self._account.detail = f"{answer.code} {answer.reason[:200]}"
        # Another relay may say any number.
        code = answer.code if 400 <= answer.code < 600 else "other"
        self._door.counters[f"reject_{code}"] += 1
        self._door.meters.counters["stream_rejects"] += 1
        opening = self._opening
        level = self._door.quotas.level(opening.tenant, opening.consumer, self.now())
        self.log.bind(
            stream_id=f"{opening.message.stream_id:016x}",
            agent_uri=opening.consumer,
            service=opening.message.target_service,
        ).log(level, "stream rejected: {} {}", answer.code, answer.reason)
        self._settle(self._consumer_end)
        self._opening.refuse(answer)
        end = self._provider_end
        if end is not None and not end.settled:
            self._settle(end)
            end.stream.abort(ResetCode.REJECTED)
        self.stop(shutdown(f"rejected {answer.code}"))

    def _ends(self) -> list[StreamEnd]:
        if self._splice is not None:
            return super()._ends()
        return [end for end in (self._consumer_end, self._provider_end) if end is not None]

    @handles(Down)
    async def _registry_down(self, down: Down) -> None:
        """A registry restarts without memory: claim our stream id, or our allocations, again."""
        if not await self._restored(down.token):
            await self._claim_again(down.token)

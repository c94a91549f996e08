"""One stream from a consumer agent to a provider agent: the open sequence, then the splice.

In `continue_` it asks policy, registry and provider, each with a deadline; what the consumer sends
meanwhile is held, bounded by its window. Afterwards it is a `SplicedPair`, or, when policy wants
the forward plane, waits for the end of the two streams beside it. Temporary: an agent's new stream
is its restart.

Source: protocol sheet ORP 2.5, 3.3, 3.4; 6.1 R4, R9, R10, R13.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from actors.control.messages import Decision, P2PMode, Provider, RelayMode, Resolve, combine_p2p
from actors.edge.context import EdgeContext
from actors.edge.forward.granting import allocate, restore, tell_granted
from actors.edge.forward.liveness import discard, finish
from actors.edge.forward.messages import ForwardEnded, Granted, PairRecord
from actors.edge.messages import OpenTowards, SendReady
from actors.edge.opening.open_request import (
    Gone,
    OpenRequest,
    ProviderLost,
    Rejected,
    StreamEnd,
)
from actors.edge.opening.patience import with_patience
from actors.edge.opening.provider_answer import ProviderAnswer
from actors.edge.opening.stream_policy import decide
from actors.edge.pair_table import PairRow
from actors.edge.spliced_pair import SplicedPair
from actors.edge.stream_account import StreamAccount
from actors.edge.stream_credit import CLOSED, RECYCLED
from actors.runtime import (
    NORMAL,
    ActorDown,
    ActorRef,
    AskFailed,
    ChildRefused,
    Down,
    ReplyError,
    handles,
    shutdown,
)
from actors.transport.claim import StreamClaim
from actors.transport.stream import Stream, StreamClosed
from wire.orp import reject
from wire.orp.close_codes import ResetCode
from wire.orp.messages import ForwardStream, IncomingStream, StreamReject

#: Providers at other relays that are tried when a relay cannot be reached.
MAX_RELAYS_TRIED = 3


class StreamPair(SplicedPair):
    """See the module docstring."""

    def __init__(self, door: EdgeContext, opening: OpenRequest) -> None:
        super().__init__(door)
        self._opening = opening
        self._relay_mode = RelayMode.SPLICE
        self._caller_p2p = P2PMode.ALLOWED
        self._p2p = P2PMode.ALLOWED
        self._allocated: PairRecord | None = None  # forward mode: also on record at its registry
        self._allocated_monitor = 0
        self._provider_uri = ""
        #: The relay where the provider is; empty: it is connected here.
        self._provider_relay = ""
        self._consumer_end = StreamEnd(opening.stream)
        self._provider_end: StreamEnd | None = None
        self._held = [opening.rest] if opening.rest else []
        self._consumer_eof = False
        self._gone = False  # the consumer, while the stream is opened
        self._answer: ProviderAnswer | None = None

    def init(self) -> None:
        """Own the consumer's stream; what it sends meanwhile is held, bounded by its window."""
        self.own(self._consumer_end, "stream")
        self._opening.owned = True
        if self._opening.ticket is not None:
            self.own(self._opening.ticket, "ticket")
        opening, message = self._opening, self._opening.message
        asked = PairRow(
            message.stream_id,
            opening.consumer,
            "",
            opening.tenant,
            message.target_service,
            message.method,
        )
        self._account = self.own(StreamAccount(self._door, self.now(), asked), "account")
        stream = self._opening.stream
        stream.on_data = self._held.append
        stream.on_eof = self.guard("consumer", self._consumer_ended)
        stream.on_reset = self.guard("consumer", self._consumer_gone)
        stream.on_lost = self.guard("consumer", self._consumer_gone)
        stream.start()

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

    # The open sequence.

    async def continue_(self) -> None:
        """Policy, registry, provider; then splice, or reject."""
        try:
            patience = self._door.settings.incoming_deadline
            provider, rest = await with_patience(self, self._reach_provider, patience)
            granted = await self._allocate(provider)
        except Rejected as rejected:
            self._reject(rejected.answer)
        except Gone:
            self._fail("gone while opening")
        else:
            if granted is not None:
                self._forward(provider, granted, rest)
            else:
                self._splice_streams(provider, rest)

    async def _reach_provider(self) -> tuple[Provider, bytes]:
        """Steps 4 to 8 of sheet 3.3, with the next provider when a relay cannot be reached."""
        unreachable = reject.SERVICE_NOT_FOUND
        for provider in await self._choose_providers():
            callee = await self._decide(provider.uri, self._opening.consumer)
            if not callee.allow:
                raise Rejected(reject.denied_callee(callee.reason))
            self._p2p = combine_p2p(self._caller_p2p, callee.p2p_mode)
            try:
                return provider, await self._ask_provider(provider)
            except Rejected as rejected:
                if rejected.answer is not reject.PEER_RELAY_UNREACHABLE:
                    raise
                unreachable = rejected.answer
        raise Rejected(unreachable)

    async def _choose_providers(self) -> tuple[Provider, ...]:
        """Steps 2 and 3 of sheet 3.3: the one connected here, else some at other relays."""
        message, opening = self._opening.message, self._opening
        if self._door.draining:
            raise Rejected(reject.RELAY_UNAVAILABLE)
        await self._ask_caller()
        if self._relay_mode is RelayMode.FORWARD and self._door.forward is None:
            raise Rejected(reject.FORWARD_UNAVAILABLE)
        settings = self._door.settings
        try:
            resolution = await self._door.control().registry.ask_again(
                Resolve(opening.tenant, message.target_service, settings.region),
                timeout=settings.resolve_deadline,
            )
        except AskFailed:
            raise Rejected(reject.REGISTRY_UNAVAILABLE) from None
        if not resolution.providers:
            raise Rejected(reject.SERVICE_NOT_FOUND)
        local = tuple(one for one in resolution.providers if one.connection is not None)[:1]
        if local:
            return local
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

    async def _ask_caller(self) -> None:
        """May the consumer reach the service, and how?"""
        caller = await self._decide(self._opening.consumer, self._opening.message.target_service)
        if not caller.allow:
            raise Rejected(reject.denied(caller.reason))
        self._relay_mode = caller.relay_mode
        self._caller_p2p = caller.p2p_mode

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

    async def _ask_provider(self, provider: Provider) -> bytes:
        """Steps 5, 6 and 8, or those of sheet 3.11 when the provider is at another relay.

        The id is claimed before the provider hears of the stream: a collision spares it.

        Returns the provider's bytes that came behind its STREAM_ACCEPT.
        """
        message, opening = self._opening.message, self._opening
        settings = self._door.settings
        if self._gone:
            raise Gone
        if self._provider_end is not None:  # of one that was lost
            self.disown(self._provider_end)
            self._provider_end.abort()
            self._provider_end = None
        self._provider_uri = provider.uri
        self._provider_relay = ""
        if provider.connection is not None:
            await self._claim_for(provider)
            stream = await self._open_towards(
                provider.connection,
                settings.incoming_deadline,
                reject.PROVIDER_OPEN_FAILED
                if opening.relay
                else reject.PROVIDER_STREAM_OPEN_FAILED,
            )
            patience = settings.accept_deadline
        else:
            try:
                link = self._door.relays.link(provider.relay_id)
            except ChildRefused:
                raise Rejected(reject.PEER_RELAY_UNREACHABLE) from None
            self._provider_relay = provider.relay_id
            stream = await self._open_towards(
                link,
                settings.incoming_deadline + self._door.relays.settings.dial_timeout,
                reject.PEER_RELAY_UNREACHABLE,
            )
            # The other relay's own deadlines come first: its answer says more than our silence.
            patience = (
                settings.resolve_deadline
                + settings.policy_deadline
                + settings.incoming_deadline
                + settings.accept_deadline
            )
        self._provider_end = self.own(StreamEnd(stream), "stream")
        if self._provider_relay:
            self._door.meters.counters["intra_relay_hops"] += 1
            await self._claim_for(provider)
        if self._gone:
            raise Gone
        # Both ends hold what happens to them until the splice listens.
        answer = self._answer = ProviderAnswer(
            stream,
            self.guard,
            self._door.counters,
            relayed=bool(self._provider_relay),
            on_accept=self._consumer_end.stream.pause,
        )
        stream.start()
        kind = ForwardStream if self._provider_relay else IncomingStream
        first = kind(message.target_service, message.method, opening.consumer, message.stream_id)
        try:
            stream.write(first.encode())
        except StreamClosed:
            failed = answer.failed(reject.PROVIDER_STREAM_OPEN_FAILED)
            raise ProviderLost(failed, asked=False) from None
        return await answer.wait(patience)

    async def _claim_for(self, provider: Provider) -> None:
        message, opening = self._opening.message, self._opening
        if not message.stream_id:
            return
        before = self._door.pairs.unfinished(message.stream_id, self.now())
        if before is not None and (before.consumer, before.provider) != (
            opening.consumer,
            provider.uri,
        ):
            raise Rejected(reject.STREAM_ID_COLLISION)  # its own agents may come back to it
        claimed = await self._claim(message.stream_id, opening.consumer, provider.uri)
        if not claimed:
            refusal = reject.REGISTRY_UNAVAILABLE if claimed is None else None
            raise Rejected(refusal or reject.STREAM_ID_COLLISION)
        self._watch_registry()

    async def _open_towards(
        self, connection: ActorRef, patience: float, failed: StreamReject
    ) -> Stream:
        claim = self.own(StreamClaim(ResetCode.RELAY_FAULT), "claim")
        try:
            await connection.ask(OpenTowards(claim), timeout=patience)
            return claim.take()
        except (AskFailed, StreamClosed) as error:
            self.log.debug("no stream to the provider: {}", error)
            claim.abort()
            ended = isinstance(error, ActorDown | StreamClosed) or (
                isinstance(error, ReplyError) and error.refusal in (CLOSED, RECYCLED)
            )
            if ended and not self._provider_relay:
                raise ProviderLost(failed, asked=False) from None
            raise Rejected(failed) from None
        finally:
            self.disown(claim)

    async def _allocate(self, provider: Provider) -> Granted | None:
        """Sheet 3.5 step 2; None: this stream is spliced."""
        place, opening = self._door.forward, self._opening
        if self._relay_mode is not RelayMode.FORWARD:
            return None
        if provider.connection is None or place is None:
            raise Rejected(reject.FORWARD_UNAVAILABLE)
        ticket = self._door.quotas.forward.take(opening.tenant, opening.consumer)
        if ticket is None:
            raise Rejected(reject.FORWARD_UNAVAILABLE)
        self.own(ticket, "ticket")
        consumer = (opening.consumer, opening.connection)
        granted = await allocate(
            place,
            opening.message.stream_id,
            self.ref,
            consumer,
            (provider.uri, provider.connection),
        )
        if isinstance(granted, StreamReject):
            raise Rejected(granted)
        self._allocated = granted.record
        self._allocated_monitor = self.monitor(place.registry())
        return granted

    def _consumer_ended(self) -> None:
        self._consumer_eof = True

    def _consumer_gone(self, _: object) -> None:
        self._gone = True
        if self._answer is not None:
            self._answer.give_up(Gone())

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
            stream_id=f"{opening.message.stream_id:016x}", agent_uri=opening.consumer
        ).log(level, "stream rejected: {} {}", answer.code, answer.reason)
        self._settle(self._consumer_end)
        self._opening.refuse(answer)
        end = self._provider_end
        if end is not None and not end.settled:
            self._settle(end)
            end.stream.abort(ResetCode.REJECTED)
        self.stop(shutdown(f"rejected {answer.code}"))

    # The splice.

    def _splice_streams(self, provider: Provider, rest: bytes) -> None:
        assert self._provider_end is not None
        message, opening = self._opening.message, self._opening
        self._announce(provider)
        consumer = self._side("consumer", opening.consumer, relay=opening.relay)
        other = self._side("provider", provider.uri, relay=self._provider_relay)
        row = PairRow(
            message.stream_id,
            opening.consumer,
            provider.uri,
            opening.tenant,
            message.target_service,
            message.method,
            self._p2p,
        )
        splice = self._begin(row, consumer, other)
        splice.attach(consumer, self._consumer_end, already=self._consumer_end.stream.backlog)
        splice.attach(other, self._provider_end, already=self._provider_end.stream.backlog)
        held = {consumer: self._held, other: [rest] if rest else []}
        splice.start(held, {consumer} if self._consumer_eof else set())

    def _announce(self, provider: Provider) -> None:
        """Tell both agents that the stream is spliced."""
        message = self._opening.message
        if message.stream_id:
            consumer = self._opening.consumer
            self._opening.connection.try_tell(SendReady(message.stream_id, provider.uri))
            if provider.connection is not None:
                provider.connection.try_tell(SendReady(message.stream_id, consumer))

    def _ends(self) -> list[StreamEnd]:
        if self._splice is not None:
            return super()._ends()
        return [end for end in (self._consumer_end, self._provider_end) if end is not None]

    def _forward(self, provider: Provider, granted: Granted, rest: bytes) -> None:
        """The bytes travel as datagrams; the two streams only tell when it is over."""
        assert self._provider_end is not None
        assert provider.connection is not None
        self._phase = "forwarded"
        self._account.mode = "forward"
        self._account.row = replace(self._account.row, provider=provider.uri)
        self._account.ready(self.now())
        # The bytes go through this relay as well: only leaving it would do.
        self._begin_p2p_deadline(self._p2p)
        self._door.meters.counters["stream_forward_assigned_total"] += 1
        self._door.counters["streams_forwarded"] += 1
        message, connections = (
            self._opening.message,
            (self._opening.connection, provider.connection),
        )
        tell_granted(message.stream_id, granted, connections)
        early = sum(map(len, self._held))
        self._held.clear()
        for name, end, unread in (
            ("consumer", self._consumer_end, early),
            ("provider", self._provider_end, len(rest)),
        ):
            lost = partial(self._side_lost, name)
            discard(end.stream, unread, self.guard, name, self._forward_over, lost)
        if self._consumer_eof:
            self._forward_over()

    def _side_lost(self, name: str, _: object = None) -> None:
        self._door.counters["stream_lost"] += 1
        self._fail(f"{name} lost")

    def _forward_over(self, why: str = "") -> None:
        """One side is done: so is the other, and both agents get their stream credit back."""
        self._phase = "finished"
        self._account.outcome, self._account.detail = "finished", why
        for end in (self._consumer_end, self._provider_end):
            if end is not None and not end.settled:
                self._settle(end)
                finish(end.stream)
        self.stop(shutdown(why) if why else NORMAL)

    async def _restore(self) -> None:
        place, record = self._door.forward, self._allocated
        if place is None or record is None:
            return
        if await restore(place, record):
            self._allocated_monitor = self.monitor(place.registry())
        else:
            self._forward_over("forward: plane lost")

    @handles(ForwardEnded)
    def _forward_ended(self, message: ForwardEnded) -> None:
        self._forward_over(f"forward: {message.why}")

    @handles(Down)
    async def _registry_down(self, down: Down) -> None:
        """A registry restarts without memory: claim our stream id, or our allocations, again."""
        if down.token == self._allocated_monitor:
            await self._restore()
        else:
            await self._claim_again(down.token)

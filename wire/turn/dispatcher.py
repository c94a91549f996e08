"""Answers what clients ask: one method per request, and the table of all allocations.

A request goes in as bytes with the endpoint and source it came by, and its answer comes out; None
is silence. Whatever else happens, happens to allocations (`wire.turn.allocation`) and through
`Host`, which binds addresses before anything is answered.

A repeated Allocate gets its answer again; everything else may be repeated as it is.

Source: RFC 8656 sections 6 to 12, RFC 8016; protocol sheet TURN 3.4, 3.5, 3.9.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Final, Protocol, TypeAlias

from wire.stun import attribute as a
from wire.stun import message as stun
from wire.stun.address import Address, encode_address, encode_xor, family_of
from wire.stun.errors import BadValue, StunError
from wire.stun.message import Message
from wire.turn import limits
from wire.turn.allocation import Allocation, Endpoint, Relay, SocketAddress, socket_address
from wire.turn.authentication import Authentication, Proved, refusal
from wire.turn.deadlines import Deadline, Deadlines
from wire.turn.peer_filter import PeerFilter
from wire.turn.reply_limit import ReplyLimit
from wire.turn.settings import TurnRules
from wire.turn.wish import Refused, Wish, read_wish

#: Attributes that requests may carry and must be understood; all others below 0x8000 get 420.
_COMMON: Final = frozenset({
    a.MAPPED_ADDRESS, a.USERNAME, a.REALM, a.NONCE, a.USERHASH, a.PASSWORD_ALGORITHM,
})  # fmt: skip
_KNOWN: Final = {
    stun.BINDING: _COMMON,
    stun.ALLOCATE: _COMMON | {
        a.LIFETIME, a.REQUESTED_TRANSPORT, a.REQUESTED_ADDRESS_FAMILY, a.EVEN_PORT,
        a.DONT_FRAGMENT, a.RESERVATION_TOKEN,
    },
    stun.REFRESH: _COMMON | {a.LIFETIME, a.REQUESTED_ADDRESS_FAMILY},
    stun.CREATE_PERMISSION: _COMMON | {a.XOR_PEER_ADDRESS},
    stun.CHANNEL_BIND: _COMMON | {a.XOR_PEER_ADDRESS, a.CHANNEL_NUMBER},
    stun.SEND: _COMMON | {a.XOR_PEER_ADDRESS, a.DATA, a.DONT_FRAGMENT},
}  # fmt: skip


class Host(Protocol):
    """What the door does for the machine."""

    def open_relay(self, family: int, *, even: bool = False) -> Relay | int:
        """Bind a relayed address; a number: the error code that says why not."""

    def open_pair(self, family: int) -> tuple[Relay, Relay] | int:
        """Bind an even port, and hold the next one."""

    def opened(self, allocation: Allocation) -> bool:
        """It exists; before its client is told. False: it cannot be served."""

    def closed(self, allocation: Allocation, why: str) -> None:
        """It is over; its addresses are free."""

    def random(self, size: int) -> bytes:
        """Unpredictable bytes."""


Answer: TypeAlias = bytes | None
_Attributes: TypeAlias = tuple[a.Attribute, ...]


class Dispatcher:
    """Answers what clients ask: one method per request, and the table of all allocations.

    Attributes:
        allocations: all, by number.
        deadlines: to be run by the owner.
        counters: answers and what was dropped, by reason.
        draining: new clients are sent elsewhere.
    """

    def __init__(
        self,
        rules: TurnRules,
        authentication: Authentication,
        peers: PeerFilter,
        host: Host,
        reply_limit: ReplyLimit,
        counters: MutableMapping[str, int] | None = None,
    ) -> None:
        self.rules = rules
        self.authentication = authentication
        self.peers = peers
        self.allocations: dict[int, Allocation] = {}
        self.deadlines = Deadlines()
        self.counters = Counter() if counters is None else counters
        self.draining = False
        self._host = host
        self._limit = reply_limit
        self._serial = 0
        self._per_user: Counter[str] = Counter()
        self._per_source: Counter[str] = Counter()
        self._reserved: dict[bytes, tuple[Relay, Deadline]] = {}
        self._tickets: dict[bytes, Allocation] = {}
        self._requests: dict[int, Callable[[Message, _Request], bytes]] = {
            stun.ALLOCATE: self._allocate,
            stun.REFRESH: self._refresh,
            stun.CREATE_PERMISSION: self._create_permission,
            stun.CHANNEL_BIND: self._channel_bind,
        }

    # What comes in.

    def receive(
        self, data: bytes | memoryview, endpoint: Endpoint, source: SocketAddress,
        now: float, wall: float,
    ) -> Answer:  # fmt: skip
        """One STUN message of a client.

        Args:
            now: monotonic seconds; `wall` is the time of day.
        """
        try:
            message = stun.parse(data)
        except StunError as error:
            return self._drop(error.label)
        if message.fingerprint_is_wrong:
            return self._drop("fingerprint")
        if message.kind == stun.INDICATION:
            if message.method == stun.SEND:
                self._send(message, endpoint, source)
            return None
        if message.kind != stun.REQUEST:
            return self._drop("response")
        host = plain_host(source[0])
        if message.method == stun.BINDING:
            return self._binding(message, host, source, now)
        checked = self.authentication.check(message, f"{host} {source[1]}", wall)
        if isinstance(checked, bytes):
            if not self._limit.take(host, now):
                return self._drop("unauthenticated_limit")
            self.counters["unauthenticated"] += 1
            return checked
        request = _Request(endpoint, source, host, checked, now)
        return self._answer(message, request)

    def _answer(self, message: Message, request: _Request) -> bytes:
        handle = self._requests.get(message.method)
        try:
            if handle is None:
                raise Refused(400, "method")
            unknown = _unknown(message)
            if unknown:
                raise Refused(420, "unknown_attribute", (a.unknown_attributes(unknown),))
            answer = handle(message, request)
        except Refused as refused:
            self.counters[refused.label] += 1
            return refusal(message, refused.code, refused.attributes, request.proved)
        except BadValue as error:
            self.counters[error.label] += 1
            return refusal(message, 400, (), request.proved)
        self.counters["answered"] += 1
        return answer

    def _drop(self, reason: str) -> Answer:
        self.counters[reason] += 1
        return None

    def _binding(self, message: Message, host: str, source: SocketAddress, now: float) -> Answer:
        if not self._limit.take(host, now):
            return self._drop("unauthenticated_limit")
        self.counters["binding"] += 1
        unknown = _unknown(message)
        if unknown:
            return refusal(message, 420, (a.unknown_attributes(unknown),))
        mapped = encode_xor(host, source[1], message.transaction_id)
        return stun.encode(
            stun.BINDING, stun.SUCCESS, message.transaction_id,
            ((a.XOR_MAPPED_ADDRESS, mapped), *self._software()),
            fingerprint=message.has_fingerprint,
        )  # fmt: skip

    def _software(self) -> _Attributes:
        software = self.rules.software
        return ((a.SOFTWARE, software.encode()),) if software else ()

    def _success(self, message: Message, request: _Request, *attributes: a.Attribute) -> bytes:
        return stun.encode(
            message.method, stun.SUCCESS, message.transaction_id,
            (*attributes, *self._software()),
            key=request.proved.key, sha256=request.proved.sha256,
            fingerprint=message.has_fingerprint,
        )  # fmt: skip

    # Allocate.

    def _allocate(self, message: Message, request: _Request) -> bytes:
        present = request.endpoint.clients.get(request.source)
        if present is not None:
            if present.transaction_id == message.transaction_id:
                return present.reply
            raise Refused(437, "allocated_already")
        wish = read_wish(message, self.rules, stream=request.endpoint.stream)
        if self.draining:
            raise self._elsewhere(request)
        self._check_quota(request)
        relays, failed, token = self._open(wish, request.now)
        allocation = self._enter(request, relays)
        lifetime = self._lifetime(wish.lifetime)
        allocation.deadline = self.deadlines.add(
            Deadline(request.now + lifetime, lambda: self.close(allocation, "expired"))
        )
        attributes = [
            (a.XOR_RELAYED_ADDRESS, encode_xor(*relay.address, message.transaction_id))
            for relay in relays.values()
        ]
        mapped = encode_xor(request.host, request.source[1], message.transaction_id)
        attributes.append((a.XOR_MAPPED_ADDRESS, mapped))
        if token:
            attributes.append((a.RESERVATION_TOKEN, token))
        attributes.append(a.lifetime(lifetime))
        if wish.mobility:
            attributes.append((a.MOBILITY_TICKET, self._new_ticket(allocation)))
        attributes += failed
        answer = self._success(message, request, *attributes)
        allocation.transaction_id, allocation.reply = message.transaction_id, answer
        if not self._host.opened(allocation):
            self.close(allocation, "no_actor")
            raise Refused(508, "no_actor")
        return answer

    def _elsewhere(self, request: _Request) -> Refused:
        family = family_of(request.host)
        for host, port in self.rules.alternates:
            if family_of(host) == family:
                return Refused(300, "draining", ((a.ALTERNATE_SERVER, encode_address(host, port)),))
        return Refused(508, "draining")

    def _check_quota(self, request: _Request) -> None:
        user, rules = request.proved.account.name, self.rules
        if rules.one_per_user and self._per_user[user]:
            for old in [one for one in self.allocations.values() if one.user == user]:
                self.close(old, "replaced")
        if self._per_user[user] >= rules.max_per_user:
            raise Refused(486, "user_quota")
        if self._per_source[request.host] >= rules.max_per_source:
            raise Refused(486, "source_quota")
        if len(self.allocations) >= rules.max_allocations:
            raise Refused(508, "total_quota")

    def _open(self, wish: Wish, now: float) -> tuple[dict[int, Relay], _Attributes, bytes]:
        """Bind what was asked for: relays, what could not be had, the token of a held port."""
        if wish.token:
            held = self._reserved.pop(wish.token, None)
            if held is None:
                raise Refused(508, "unknown_token")
            held[1].cancel()
            return {held[0].family: held[0]}, (), b""
        family = wish.families[0]
        if wish.reserve:
            pair = self._host.open_pair(family)
            if isinstance(pair, int):
                raise Refused(pair, "no_port")
            return {family: pair[0]}, (), self._reserve(pair[1], now)
        first = self._host.open_relay(family, even=wish.even)
        relays: dict[int, Relay] = {}
        failed: list[a.Attribute] = []
        if not isinstance(first, int):
            relays[family] = first
        elif len(wish.families) == 1:
            raise Refused(first, "no_port")
        else:
            failed.append(a.address_error_code(family, first))
        for other in wish.families[1:]:
            second = self._host.open_relay(other)
            if isinstance(second, int):
                failed.append(a.address_error_code(other, second))
            else:
                relays[other] = second
        if not relays:
            raise Refused(508, "no_port")
        return relays, tuple(failed), b""

    def _reserve(self, relay: Relay, now: float) -> bytes:
        token = self._host.random(8)

        def forget() -> None:
            if self._reserved.pop(token, None) is not None:
                relay.close()

        deadline = self.deadlines.add(Deadline(now + limits.RESERVATION, forget))
        self._reserved[token] = relay, deadline
        return token

    def _enter(self, request: _Request, relays: dict[int, Relay]) -> Allocation:
        self._serial += 1
        account = request.proved.account
        allocation = Allocation(
            self._serial, request.endpoint, request.source, account.name, account.username,
            relays, self.deadlines, request.now,
        )  # fmt: skip
        self.allocations[self._serial] = allocation
        request.endpoint.clients[request.source] = allocation
        self._per_user[account.name] += 1
        self._per_source[request.host] += 1
        return allocation

    def _lifetime(self, wanted: int | None) -> int:
        rules = self.rules
        return int(min(max(wanted or 0, rules.default_lifetime), rules.max_lifetime))

    def _new_ticket(self, allocation: Allocation) -> bytes:
        self._tickets.pop(allocation.ticket, None)
        ticket = self._host.random(16)
        allocation.ticket = ticket
        self._tickets[ticket] = allocation
        return ticket

    # The rest of an allocation's life.

    def _own(self, request: _Request) -> Allocation:
        allocation = request.endpoint.clients.get(request.source)
        if allocation is None:
            raise Refused(437, "no_allocation")
        if allocation.username != request.proved.account.username:
            raise Refused(441, "wrong_credentials")
        return allocation

    def _refresh(self, message: Message, request: _Request) -> bytes:
        ticket = message.get(a.MOBILITY_TICKET)
        wanted = message.number(a.LIFETIME, 4)
        family = message.number(a.REQUESTED_ADDRESS_FAMILY, 1, padded_to=4)
        moving = ticket is not None and request.source not in request.endpoint.clients
        allocation = self._moved(ticket or b"", request) if moving else self._own(request)
        if family is not None and family not in allocation.relays:
            raise Refused(443, "family")
        if wanted == 0:
            if family is not None and len(allocation.relays) > 1:
                allocation.relays.pop(family).close()
            else:
                self.close(allocation, "deleted")
            return self._success(message, request, a.lifetime(0))
        lifetime = self._lifetime(wanted)
        expires = request.now + lifetime
        if expires < allocation.deadline.expires:
            allocation.deadline.cancel()
            allocation.deadline = self.deadlines.add(
                Deadline(expires, lambda: self.close(allocation, "expired"))
            )
        else:
            allocation.deadline.expires = expires
        if ticket is None:
            return self._success(message, request, a.lifetime(lifetime))
        if not allocation.ticket:
            raise Refused(400, "no_ticket")
        new = a.MOBILITY_TICKET, self._new_ticket(allocation)
        return self._success(message, request, a.lifetime(lifetime), new)

    def _moved(self, ticket: bytes, request: _Request) -> Allocation:
        """The client has another address now, and proves by its ticket that it is the same."""
        if not self.rules.mobility:
            raise Refused(405, "mobility_off")
        allocation = self._tickets.get(ticket)
        if allocation is None:
            raise Refused(437, "unknown_ticket")
        if allocation.username != request.proved.account.username:
            raise Refused(441, "wrong_credentials")
        old = allocation.endpoint.clients
        if old.get(allocation.client) is allocation:
            del old[allocation.client]
        self._count_source(allocation.client, -1)
        allocation.endpoint, allocation.client = request.endpoint, request.source
        request.endpoint.clients[request.source] = allocation
        self._per_source[request.host] += 1
        self.counters["moved"] += 1
        return allocation

    def _count_source(self, client: SocketAddress, change: int) -> None:
        host = plain_host(client[0])
        self._per_source[host] += change
        if self._per_source[host] <= 0:
            del self._per_source[host]

    def _peers(self, message: Message, allocation: Allocation) -> list[Address]:
        peers = message.peers(a.XOR_PEER_ADDRESS)
        if not peers:
            raise Refused(400, "no_peer")
        for host, _ in peers:
            if family_of(host) not in allocation.relays:
                raise Refused(443, "peer_family")
            if not self.peers.allows(host):
                raise Refused(403, "peer_forbidden")
        return peers

    def _create_permission(self, message: Message, request: _Request) -> bytes:
        allocation = self._own(request)
        hosts = {host for host, _ in self._peers(message, allocation)}
        if len(hosts | allocation.permissions.keys()) > self.rules.max_permissions:
            raise Refused(508, "permissions")
        allocation.permit(hosts, request.now)
        return self._success(message, request)

    def _channel_bind(self, message: Message, request: _Request) -> bytes:
        allocation = self._own(request)
        number = message.number(a.CHANNEL_NUMBER, 2, padded_to=4)
        if number is None or not limits.FIRST_CHANNEL <= number <= self.rules.last_channel:
            raise Refused(400, "channel_number")
        address = self._peers(message, allocation)[0]
        if not address[1]:
            raise Refused(400, "peer_port")
        peer = socket_address(address)
        if not allocation.may_bind(number, peer):
            raise Refused(400, "channel_taken")
        if (
            allocation.bindings >= self.rules.max_channels and number not in allocation.channels
        ) or (
            len(allocation.permissions) >= self.rules.max_permissions
            and peer[0] not in allocation.permissions
        ):
            raise Refused(508, "channels")
        allocation.bind(number, peer, request.now)
        return self._success(message, request)

    def _send(self, message: Message, endpoint: Endpoint, source: SocketAddress) -> Answer:
        """A Send indication: to the peer, or nowhere."""
        allocation = endpoint.clients.get(source)
        if allocation is None:
            return self._drop("send_no_allocation")
        data = message.get(a.DATA)
        try:
            peers = message.peers(a.XOR_PEER_ADDRESS)
        except BadValue:
            peers = []
        if data is None or not peers or not peers[0][1] or _unknown(message):
            return self._drop("send_malformed")
        host, _ = peers[0]
        if host not in allocation.permissions:
            return self._drop("send_no_permission")
        send_to = allocation.send_to
        if send_to is None:
            return self._drop("send_no_actor")
        allocation.packets_from_client += 1
        allocation.bytes_from_client += len(data)
        dont_fragment = message.get(a.DONT_FRAGMENT) is not None
        send_to(data, socket_address(peers[0]), dont_fragment)
        return None

    def close(self, allocation: Allocation, why: str) -> None:
        """End one, whatever it was doing; idempotent."""
        if self.allocations.pop(allocation.number, None) is None:
            return
        clients = allocation.endpoint.clients
        if clients.get(allocation.client) is allocation:
            del clients[allocation.client]
        self._tickets.pop(allocation.ticket, None)
        self._per_user[allocation.user] -= 1
        if self._per_user[allocation.user] <= 0:
            del self._per_user[allocation.user]
        self._count_source(allocation.client, -1)
        allocation.end()
        self._host.closed(allocation, why)

    def forget_reservations(self) -> None:
        """Give all held ports back, at the end."""
        for relay, deadline in self._reserved.values():
            deadline.cancel()
            relay.close()
        self._reserved.clear()


class _Request:
    """Where an authenticated request came from, and by whom."""

    __slots__ = ("endpoint", "host", "now", "proved", "source")

    def __init__(
        self, endpoint: Endpoint, source: SocketAddress, host: str, proved: Proved, now: float
    ) -> None:
        self.endpoint = endpoint
        self.source = source
        self.host = host
        self.proved = proved
        self.now = now


def _unknown(message: Message) -> list[int]:
    known = _KNOWN.get(message.method, _COMMON)
    return sorted({one for one, _ in message.attributes if one < a.COMPREHENSION_OPTIONAL} - known)


def plain_host(host: str) -> str:
    """An IPv4 client of a socket for both families, as IPv4."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host.partition("%")[0]

"""Providers as a controller tells them: answers of Resolve, kept current by its Watch. Pure.

An entry is confirmed when it was resolved while the watch ran and no change since then left a
doubt; only then it may be served without asking. Everything else serves while the controller
cannot be asked (R21). The watch tells no snapshot: what happened while it was down is unknown, so
its begin and its end leave every entry unconfirmed.

Events say nothing of regions; a relay's region is known from earlier answers, and an event of a
relay never heard of leaves its entry unconfirmed.

Bound: `limit` names, the one not touched for the longest time is forgotten.

Source: protocol sheet ORP 4.1 (Resolve, Watch); 6.2 R20, R21, R29.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.control.backend import ServiceRecord

#: (tenant, service name)
Name = tuple[str, str]
Rows = tuple[ServiceRecord, ...]
#: Relays whose region and endpoint are remembered; the oldest is forgotten.
MAX_RELAYS = 10_000
#: Providers of one name taken from events; more leave the name unconfirmed.
MAX_ROWS = 256


@dataclass(slots=True)
class _Entry:
    """One name. `version` counts its events, `resolved` tells that an answer was stored."""

    rows: dict[tuple[str, str], ServiceRecord] = field(default_factory=dict)
    resolved: bool = False
    confirmed: bool = False
    version: int = 0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What was current when a name was asked for; handed back with the answer."""

    epoch: int
    version: int


class ProviderCache:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[Name, _Entry] = {}
        self._relays: dict[str, tuple[str, str]] = {}
        self._watching = False
        self._epoch = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def watching(self) -> bool:
        """True while changes are heard of."""
        return self._watching

    @property
    def confirmed(self) -> int:
        """Names that may be served without asking."""
        return sum(entry.confirmed for entry in self._entries.values())

    def watch(self, running: bool) -> None:
        """The watch began or ended."""
        self._watching = running
        self._epoch += 1
        for entry in self._entries.values():
            entry.confirmed = False

    def confirmed_rows(self, name: Name) -> Rows | None:
        """The providers, when there is no need to ask."""
        entry = self._entries.get(name)
        if entry is None or not entry.confirmed:
            return None
        self._touch(name, entry)
        return tuple(entry.rows.values())

    def known_rows(self, name: Name) -> Rows:
        """The providers as last heard; empty when nothing is known, or nobody provides it."""
        entry = self._entries.get(name)
        return tuple(entry.rows.values()) if entry is not None else ()

    def asking(self, name: Name) -> Ticket:
        """Before a name is asked for."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
            self._trim()
        return Ticket(self._epoch, entry.version)

    def answered(self, name: Name, ticket: Ticket, rows: Rows) -> None:
        """The answer to what was asked with `ticket`."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
        for row in rows:
            if row.relay_endpoint:
                self._remember(row.relay_id, row.relay_region, row.relay_endpoint)
        if entry.version != ticket.version and ticket.epoch == self._epoch:
            return  # an event was faster, and is newer: ask again rather than go back
        entry.rows = {(row.agent_uri, row.relay_id): row for row in rows}
        entry.resolved = True
        entry.confirmed = (
            self._watching
            and ticket.epoch == self._epoch
            and all(row.relay_endpoint for row in rows)
        )
        self._touch(name, entry)
        self._trim()

    def registered(self, row: ServiceRecord) -> None:
        """An event: this provider is there. Its region is not part of it."""
        name = (row.tenant, row.name)
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
            self._trim()
        entry.version += 1
        region, endpoint = self._relays.get(row.relay_id, ("", ""))
        key = (row.agent_uri, row.relay_id)
        known = row.relay_id in self._relays and row.relay_endpoint in ("", endpoint)
        if not known or (key not in entry.rows and len(entry.rows) >= MAX_ROWS):
            entry.confirmed = False
        if len(entry.rows) < MAX_ROWS or key in entry.rows:
            entry.rows.pop(key, None)
            entry.rows[key] = ServiceRecord(
                row.tenant,
                row.name,
                row.agent_uri,
                row.relay_id,
                region,
                row.relay_endpoint or endpoint,
                row.local_address,
                row.updated_ms,
            )
        # An agent is connected to one relay: what it provided at another one is over.
        for other in [k for k in entry.rows if k[0] == row.agent_uri and k != key]:
            del entry.rows[other]

    def deregistered(self, name: Name, agent_uri: str, relay_id: str) -> None:
        """An event: this provider is gone."""
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.version += 1
        entry.rows.pop((agent_uri, relay_id), None)

    def doubt(self, name: Name) -> None:
        """Something about this name is not understood: ask again."""
        entry = self._entries.get(name)
        if entry is not None:
            entry.version += 1
            entry.confirmed = False

    def _remember(self, relay_id: str, region: str, endpoint: str) -> None:
        self._relays.pop(relay_id, None)
        if len(self._relays) >= MAX_RELAYS:
            del self._relays[next(iter(self._relays))]
        self._relays[relay_id] = (region, endpoint)

    def _touch(self, name: Name, entry: _Entry) -> None:
        self._entries.pop(name, None)
        self._entries[name] = entry

    def _trim(self) -> None:
        while len(self._entries) > self._limit:
            del self._entries[next(iter(self._entries))]
            self.evicted += 1

"""A stream another relay brought, to a provider that is connected here.

Both decisions are made here as well, and audited: what policy the other relay asked, if any, is its
word only. The provider must be connected to this relay: nothing is passed on to a third one.

Source: protocol sheet ORP 2.5, 3.11; 6.4 X1, X2, X5.
"""

from __future__ import annotations

from actors.control.messages import Provider, RelayMode, Resolve
from actors.edge.messages import SendReady
from actors.edge.opening.open_request import Rejected
from actors.edge.opening.stream_pair import StreamPair
from actors.runtime import AskFailed
from wire.orp import reject
from wire.orp.messages import StreamAccept


class EgressPair(StreamPair):
    """See the module docstring."""

    async def _choose_providers(self) -> tuple[Provider, ...]:
        message, opening = self._opening.message, self._opening
        if self._door.draining:
            raise Rejected(reject.RELAY_UNAVAILABLE)
        await self._ask_caller()
        if self._relay_mode is RelayMode.FORWARD:
            raise Rejected(reject.FORWARD_UNAVAILABLE)  # sheet 6.3 F6: never a splice
        try:
            resolution = await self._door.control().registry.ask_again(
                Resolve(opening.tenant, message.target_service, self._door.settings.region),
                timeout=self._door.settings.resolve_deadline,
            )
        except AskFailed:
            raise Rejected(reject.NO_LOCAL_PROVIDER) from None
        local = tuple(one for one in resolution.providers if one.connection is not None)[:1]
        if not local:
            raise Rejected(reject.NO_LOCAL_PROVIDER)
        return local

    def _announce(self, provider: Provider) -> None:
        """The other relay tells the consumer; the provider hears it from us."""
        self._consumer_end.stream.write(StreamAccept().encode())
        if provider.connection is not None:
            ready = SendReady(self._opening.message.stream_id, self._opening.consumer)
            provider.connection.try_tell(ready)

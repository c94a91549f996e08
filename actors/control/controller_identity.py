"""Who answers as the controller: its certificate must be a relay's, as those that serve one have.

gRPC checks chain and name of a server, and every certificate of the authority may have that name;
it does not show the certificate to its client. So the server is asked once beside it, and the
certificate that it proved to hold becomes the only one that gRPC accepts: whoever is in between
cannot show one here and another one there.

Source: protocol sheet ORP 1.1, 6.2 R27, R28.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.control.backend import BackendUnavailable
from wire.orp.identity import relay_problem

#: For the handshake, seconds.
ASK_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How to authenticate, and whom to expect.

    Attributes:
        certificate, key: PEM files of this side.
        ca: PEM file of the authorities the controller's certificate must chain to.
        server_name: DNS name its certificate must have.
        require_relay: it must be a relay's, too.
    """

    certificate: Path
    key: Path
    ca: Path
    server_name: str = "localhost"
    require_relay: bool = True


async def controller_leaf(address: str, tls: ClientTls) -> bytes:
    """The certificate (PEM) of the controller, which proved to hold it and to be a relay.

    Raises:
        BackendUnavailable: it does not answer in time, or is not who it must be.
    """
    host, _, port = address.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.certificate, tls.key)
        context.set_alpn_protocols(["h2"])
        async with asyncio.timeout(ASK_SECONDS):
            _, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), ssl=context, server_hostname=tls.server_name
            )
    except TimeoutError:
        raise BackendUnavailable(f"controller {address}: no TLS handshake in time") from None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BackendUnavailable(f"controller {address}: {error}") from None
    try:
        shown = writer.get_extra_info("ssl_object")
        names = (shown.getpeercert() or {}).get("subjectAltName", ())
        der = shown.getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    uri = next((value for kind, value in names if kind == "URI"), "")
    problem = relay_problem(uri)
    if problem:
        raise BackendUnavailable(f"controller {address}: {problem}")
    return ssl.DER_cert_to_PEM_cert(der).encode()

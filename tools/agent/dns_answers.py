"""Answers to DNS questions for `<service>.<suffix>`. No I/O.

====================== ==========================================================================
question               answer
====================== ==========================================================================
A of a service         its virtual address, TTL 60
AAAA, other types      no data: the name exists, and NXDOMAIN would make some resolvers (musl)
                       forget the A record, too
an unknown name        NXDOMAIN
below another suffix   REFUSED: the resolver asks its next server
not a query            NOTIMP
malformed              none
====================== ==========================================================================

RD is copied, AA and RA are clear.

Source: protocol sheet ORP 3.15; 6.5 A11; RFC 1035, RFC 2308 section 2.2, RFC 8020.
"""

from __future__ import annotations

import re

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tools.agent.virtual_addresses import VirtualAddresses

TTL_SECONDS = 60
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")


def dns_name_fault(service: str, suffix: str) -> str:
    """Why nobody can ask for this service by name; empty when it can be asked for."""
    for label in service.split("."):
        if len(label) > 63:
            return f"{label[:20]}... has {len(label)} characters, a label at most 63"
        if not _LABEL.fullmatch(label):
            return f"{label!r} is no label: letters, digits, - and _"
    length = len(service) + 1 + len(suffix)
    return f"with the suffix it has {length} characters, at most 253" if length > 253 else ""


class DnsAnswers:
    """Answers to DNS questions for `<service>.<suffix>`.

    Args:
        suffix: the zone, without leading dot.
    """

    def __init__(self, addresses: VirtualAddresses, suffix: str) -> None:
        self._addresses = addresses
        self._zone = dns.name.from_text(suffix)

    def answer(self, query: bytes) -> bytes | None:
        """The answer to one datagram; None: it deserves none."""
        try:
            question = dns.message.from_wire(query)
        except (dns.exception.DNSException, ValueError):
            return None
        if question.flags & dns.flags.QR:
            return None  # an answer: never reply to one
        response = dns.message.make_response(question)
        response.flags &= ~(dns.flags.AA | dns.flags.RA)
        if question.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(question.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
        else:
            self._fill(question.question[0], response)
        return response.to_wire()

    def _fill(self, asked: dns.rrset.RRset, response: dns.message.Message) -> None:
        if not asked.name.is_subdomain(self._zone) or asked.name == self._zone:
            response.set_rcode(dns.rcode.REFUSED)
            return
        labels = asked.name.relativize(self._zone).labels
        service = b".".join(labels).decode("ascii", "replace")
        address = self._addresses.address(service)
        if address is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif asked.rdtype in (dns.rdatatype.A, dns.rdatatype.ANY) and (
            asked.rdclass in (dns.rdataclass.IN, dns.rdataclass.ANY)
        ):
            response.answer.append(dns.rrset.from_text(asked.name, TTL_SECONDS, "IN", "A", address))

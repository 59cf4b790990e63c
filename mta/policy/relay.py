"""Who may send to whom: the decision at RCPT that keeps the relay closed.

A recipient is accepted if its domain is one of this server's own, or if the client's address lies in one of the
relay networks. Nothing else opens the relay: not a percent sign, a bang path, a source route or a quoted @ in the
local part, because only the domain behind the last @ is looked at, and it is compared whole.

The host that an own domain is handed to may trust this one and read more into a local part than this one does; so
strangers' mail for it has no second address there.

What can be refused is refused here, before the message is accepted, so that no bounce is needed later: a local
part that can never name a mailbox in a Maildir tree is refused at RCPT.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from mta.config.settings import Domain, Network
from mta.mail.mailbox import maildir_path
from mta.model import domain_of

Judge = Callable[[bytes], bytes]
_CLIENTS_KEPT = 4096

_NO_RELAY = b"550 5.7.1 relaying to this domain is not permitted from your address\r\n"
_NO_SECOND = b"550 5.7.1 relaying by an address within the local part is not permitted\r\n"
_NO_SUBMISSION = b"550 5.7.1 your address is not in a network that may submit mail here\r\n"
_NO_MAILBOX = b"550 5.1.1 no mailbox can have this name here\r\n"
_NO_POSTMASTER = b"550 5.1.1 this server has no domain of its own and so no postmaster mailbox\r\n"

_SECOND_ADDRESS = re.compile(rb"[%!@]")


def expand_postmaster(address: bytes, domains: Sequence[Domain]) -> bytes:
    """The full address of <Postmaster>, which alone may come without a domain (RFC 5321 §4.5.1)."""
    return b"postmaster@" + domains[0].name.encode("ascii") if address == b"postmaster" and domains else address


def within(networks: Sequence[Network], client: str) -> bool:
    """Whether the address lies in one of the networks; a mapped IPv4 address counts as the IPv4 one."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    return any(address in n for n in networks)


class RelayControl:
    """The rules of one server. `judge_for` picks the rule for a client once, at connect."""

    def __init__(self, networks: Sequence[Network], domains: Sequence[Domain]) -> None:
        self._networks = tuple(networks)
        # Reading an address costs as much as the rest of a short session; most clients come again.
        self.trusts = lru_cache(_CLIENTS_KEPT)(self._trusts)
        self._own = {d.name.encode("ascii"): d.deliver.path if d.deliver.kind == "maildir" else "" for d in domains}

    def _trusts(self, client: str) -> bool:
        return within(self._networks, client)

    def judge_for(self, client: str, role: str) -> Judge:
        """The function that accepts (b"") or refuses (a whole reply) each recipient of this client."""
        if self.trusts(client):
            return self.judge_trusted
        return self.refuse_all if role == "submission" else self.judge_stranger

    def judge_trusted(self, address: bytes) -> bytes:
        at = address.rfind(b"@")
        template = self._own.get(address[at + 1 :].lower())
        if template is None:
            return b"" if at >= 0 else self._postmaster()
        return _mailbox(template, address)

    def judge_stranger(self, address: bytes) -> bytes:
        template = self._own.get(domain_of(address))
        if template is None:
            return _NO_RELAY if b"@" in address else self._postmaster()
        if not template:
            return _NO_SECOND if _SECOND_ADDRESS.search(address, 0, address.rfind(b"@")) else b""
        return _mailbox(template, address)

    def refuse_all(self, address: bytes) -> bytes:
        return _NO_SUBMISSION

    def _postmaster(self) -> bytes:
        return b"" if self._own else _NO_POSTMASTER


def _mailbox(template: str, address: bytes) -> bytes:
    return b"" if not template or maildir_path(template, address) is not None else _NO_MAILBOX

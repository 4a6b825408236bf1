"""`bind ADDRESS|INTERFACE... { except ADDRESS|INTERFACE... }`: where the server block listens.

An interface means all its addresses as they are at the start, or when the Corefile is read again; link-local IPv6
addresses are left out. `except` takes away from its own directive; several directives add up (`coredns/plugin/bind`).
It is no plugin that questions pass: `chain.build` asks for the addresses.
"""

from __future__ import annotations

import ipaddress
import socket

from netemu.dns.corefile import Directive, nearest


def addresses(directive: Directive) -> tuple[str, ...]:
    """The addresses that a directive means. Raises UserError."""
    if not directive.args:
        raise directive.error("bind: expected addresses or interfaces")
    found = dict.fromkeys(address for word in directive.args for address in _of(directive, word))
    for option in directive.options:
        if option.name != "except":
            raise option.unknown(("except",))
        if not option.args:
            raise option.error("except: expected addresses or interfaces")
        for address in (address for word in option.args for address in _of(option, word)):
            found.pop(address, None)
    if not found:
        raise directive.error("bind: `except` leaves no address")
    return tuple(found)


def _of(directive: Directive, word: str) -> list[str]:
    try:
        return [str(ipaddress.ip_address(word))]
    except ValueError:
        interfaces = [name for _, name in socket.if_nameindex()]
    if word not in interfaces:
        near = nearest(word, interfaces)
        raise directive.error(f"{directive.name}: {word!r} is neither an address nor an interface{near}")
    return _addresses_of(word)


def _addresses_of(interface: str) -> list[str]:
    from netemu.kernel.netlink import Netlink

    index = socket.if_nametoindex(interface)
    with Netlink() as netlink:
        found = [ipaddress.ip_interface(each.address).ip for each in netlink.addresses() if each.index == index]
    return [str(address) for address in found if not (address.version == 6 and address.is_link_local)]

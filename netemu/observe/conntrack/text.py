"""Entries of a conntrack table as `conntrack -L` prints them, and in names. Pure."""

from __future__ import annotations

from netemu.kernel.conntrack_events import ASSURED, SEEN_REPLY, Tracked, Tuple
from netemu.model.protocols import NUMBERS
from netemu.observe.names import Names


def line(entry: Tracked, now: float) -> str:
    """`tcp      6 86399 ESTABLISHED src=... dst=... sport=... dport=... src=... [ASSURED] mark=0 delta-time=3 use=1`.

    `now` is in seconds since the epoch.
    """
    protocol = entry.original.protocol
    name = protocol if protocol in NUMBERS else "unknown"
    counted = any(entry.packets)
    parts = [f"{name:8} {NUMBERS.get(protocol, protocol)} {entry.timeout}"]
    if entry.state:
        parts.append(entry.state)
    parts.append(_direction(entry.original))
    if counted:
        parts.append(f"packets={entry.packets[0]} bytes={entry.bytes[0]}")
    if not entry.status & SEEN_REPLY:
        parts.append("[UNREPLIED]")
    parts.append(_direction(entry.reply))
    if counted:
        parts.append(f"packets={entry.packets[1]} bytes={entry.bytes[1]}")
    if entry.status & ASSURED:
        parts.append("[ASSURED]")
    parts.append(f"mark={entry.mark}")
    if entry.zone:
        parts.append(f"zone={entry.zone}")
    if entry.began:
        parts.append(f"delta-time={max(int(now - entry.began / 1e9), 0)}")
    return " ".join([*parts, f"use={entry.use}"])


def in_names(entry: Tracked, names: Names) -> str:
    """`shop/client:33818 > service/shop/web:80 > shop/web-1:8080`, the last where the destination was translated; and
    ` as node/worker-1:61234` where the source was."""
    original, reply = entry.original, entry.reply
    protocol = original.protocol
    ends = [(original.source, original.source_port), (original.destination, original.port)]
    if (reply.source, reply.source_port) != ends[1]:
        ends.append((reply.source, reply.source_port))
    said = " > ".join(names.endpoint(protocol, *end) for end in ends)
    if (reply.destination, reply.port) != ends[0]:
        said += f" as {names.endpoint(protocol, reply.destination, reply.port)}"
    return said


def _direction(one: Tuple) -> str:
    ports = f"sport={one.source_port} dport={one.port}"
    if one.icmp:
        ports = f"type={one.icmp[0]} code={one.icmp[1]} id={one.port}"
    return f"src={one.source} dst={one.destination} {ports}"

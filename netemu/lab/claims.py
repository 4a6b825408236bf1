"""What is claimed of a running lab, tried with real packets: `netemu test` and the pytest plugin claim the same things.

Each claim returns nothing, or raises `Failed` with what was seen instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from netemu.dns.corefile import parse_duration
from netemu.kernel.netlink import Netlink
from netemu.lab.check_spec import LosslessDuring, Reaches, Resolves, Source, Spread
from netemu.lab.destinations import destination_from
from netemu.lab.failures import Failed, expect
from netemu.lab.targets import Target
from netemu.model.errors import UserError
from netemu.observe.probe import result as probe_result
from netemu.observe.probe.prober import Destination, Place, probe
from netemu.observe.probe.result import ProbeResult
from netemu.observe.probe.steady import steadily
from netemu.observe.probe.timeline import Timeline
from netemu.observe.resolve.dig import Lookup, lookup


def resolves(place: Target, wanted: Resolves) -> Lookup:
    """What the resolver of the place does with a name is what is wanted."""
    found = asyncio.run(
        lookup(
            wanted.name, types=wanted.types, resolv_conf=place.resolv_conf, hosts=place.hosts, netns=place.netns,
            resolver=wanted.resolver,
        )
    )  # fmt: skip
    result = found.result
    expect(result.status == wanted.status, f"{result.status}, expected {wanted.status}", found)
    if wanted.addresses is not None:
        seen = ", ".join(result.addresses) or "no address"
        same = sorted(result.addresses) == sorted(wanted.addresses)
        expect(same, f"{seen}; expected {', '.join(wanted.addresses)}", found)
    if wanted.count is not None:
        number = len(result.addresses)
        expect(number == wanted.count, f"{number} addresses, expected {wanted.count}", found)
    if wanted.queries is not None:
        expect(len(found.steps) == wanted.queries, f"{len(found.steps)} queries, expected {wanted.queries}", found)
    if wanted.transport:
        last = found.steps[-1].transport if found.steps else "none"
        expect(last == wanted.transport, f"last asked by {last}, expected {wanted.transport}", found)
    took = f"took {found.seconds:.3f} s"
    if wanted.within:
        expect(
            found.seconds <= (parse_duration(wanted.within) or 0), f"{took}, expected at most {wanted.within}", found
        )
    if wanted.after:
        expect(found.seconds >= (parse_duration(wanted.after) or 0), f"{took}, expected at least {wanted.after}", found)
    return found


def reaches(place: Target, wanted: Reaches) -> ProbeResult:
    """Every attempt is answered."""
    result = _probe(place, wanted.to, wanted.count, udp=wanted.udp)
    expect(result.answered == result.count, f"{_said(result)}, expected {result.count} answers", result)
    return result


def refused(place: Target, wanted: Reaches) -> None:
    """Every attempt is refused: by a reset, or by an ICMP error that says as much."""
    _all_end_with(probe_result.REFUSED, "refused", place, wanted)


def dropped(place: Target, wanted: Reaches) -> None:
    """Every attempt is lost without a word."""
    _all_end_with(probe_result.TIMEOUT, "dropped", place, wanted)


def _all_end_with(error: str, claim: str, place: Target, wanted: Reaches) -> None:
    result = _probe(place, wanted.to, wanted.count, udp=wanted.udp)
    meant = claim if claim == error else f"{claim} ({error})"
    expect(result.errors.get(error, 0) == result.count, f"{_said(result)}, expected {result.count} {meant}", result)


def spread(place: Target, wanted: Spread) -> ProbeResult:
    """So many servers answer, each its share give or take the tolerance."""
    result = _probe(place, wanted.to, wanted.count)
    expect(result.answered == result.count, _said(result), result)
    shares = ", ".join(f"{name} {number}" for name, number in result.servers.items())
    expect(len(result.servers) == wanted.over, f"answered by {shares}; expected {wanted.over} servers", result)
    even = wanted.count / wanted.over
    uneven = [number for number in result.servers.values() if abs(number - even) > wanted.tolerance * even]
    said = f"answered by {shares}; expected {even:.0f} each, give or take {wanted.tolerance:.0%}"
    expect(not uneven, said, result)
    return result


def source(place: Target, wanted: Source) -> None:
    """The server sees that source address."""
    result = _probe(place, wanted.to, 1)
    expect(result.answered == 1, _said(result), result)
    seen = next(iter(result.sources), "")
    expect(bool(seen), f"{', '.join(result.servers)} does not tell which source it saw", result)
    if wanted.is_ == "client":
        expect(seen in addresses_of(place), f"the server saw {seen}, which is no address of {place.name}", result)
    else:
        expect(seen == wanted.is_, f"the server saw {seen}, expected {wanted.is_}", result)


def addresses_of(place: Target) -> list[str]:
    """The addresses of a place's own links."""
    with Netlink(place.netns) as netlink:
        return [one.address.partition("/")[0] for one in netlink.addresses()]


def lossless_during(place: Target, wanted: LosslessDuring, change: Callable[[], object]) -> Timeline:
    """Attempts go on at a rate, before, while and after `change` is done, and every one is answered."""
    with steadily(
        *_way(place, wanted.to),
        udp=wanted.udp, rate=wanted.rate, keep_alive=wanted.keep_alive, margin=parse_duration(wanted.margin) or 0,
    ) as steady:  # fmt: skip
        steady.mark("the change begins")
        change()
        steady.mark("it has ended")
    result, line = steady.result, steady.timeline
    if line.lost:
        begin, end = (event.at for event in line.events)
        when = [bucket.at for bucket in line.buckets if bucket.lost]
        span = f"in the time from {when[0]:.1f} s to {when[-1] + line.interval:.1f} s"
        raise Failed(f"{_said(result)}; lost {span}; the change took from {begin:.1f} s to {end:.1f} s", result, line)
    return line


def _probe(place: Target, to: str, count: int, *, udp: bool = False) -> ProbeResult:
    return asyncio.run(probe(*_way(place, to), count=count, udp=udp))


def _way(place: Target, to: str) -> tuple[Place, Destination]:
    """From where to where. Raises Failed: what is not there, or has no address yet, may be so in a moment."""
    try:
        return Place(place.netns, place.resolv_conf, place.hosts), destination_from(place, to)
    except UserError as error:
        raise Failed(str(error)) from error


def _said(result: ProbeResult) -> str:
    errors = ", ".join(f"{number} {kind}" for kind, number in result.errors.items())
    return f"{result.answered} of {result.count} answered" + (f" ({errors})" if errors else "")

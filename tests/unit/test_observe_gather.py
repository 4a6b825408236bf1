"""Sending a packet and gathering what is told of it: when that ends, in what order places are watched, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable

import pytest

from netemu.kernel.nft_trace import TABLE, Step
from netemu.kernel.rtnetlink_answers import Address, Hop, Link, Route
from netemu.kernel.tap import Frame
from netemu.model.errors import KernelBusy, KernelDenied, KernelError, KernelNotFound, UserError
from netemu.observe.trace.evidence import Dropped, Evidence, Packet, Watched
from netemu.observe.trace.follow import follow
from netemu.observe.trace.gather import gather
from netemu.observe.trace.headers import craft
from netemu.testing.sources import ScriptedPlace, ScriptedSources

CLIENT, WEB = "10.0.0.1", "10.0.0.2"
HERE, THERE = Watched("shop/client", "b-client"), Watched("shop/web", "a-web")
ETHERNET = bytes(12) + b"\x08\x00"
TO_WEB = Packet(destination=WEB, port=80)
NEVER = 600.0


def place(address: str) -> ScriptedPlace:
    routes = {
        each: Route(each, (Hop(2),), "local" if each == address else "unicast", address) for each in (CLIENT, WEB)
    }
    return ScriptedPlace(
        link_list=[Link(2, "eth0", "veth", True, 1500, "")], address_list=[Address(2, f"{address}/24")],
        route_table=routes,
    )  # fmt: skip


@pytest.fixture
def sources() -> ScriptedSources:
    return ScriptedSources({HERE.netns: place(CLIENT), THERE.netns: place(WEB)})


def crossing(at: ScriptedPlace, seconds: float, data: bytes, *, outgoing: bool) -> None:
    at.tap.put(Frame(int(seconds * 1e9), "eth0", outgoing, ETHERNET + data))


def back(port: int) -> bytes:
    return craft(Packet(destination=CLIENT, port=port, source=WEB, source_port=80), b"zzzzzzzz").data


def answering(sources: ScriptedSources) -> Callable[[bytes], None]:
    """Both places see the packet, then its answer."""
    here, there = sources.places[HERE.netns], sources.places[THERE.netns]

    def sent(data: bytes) -> None:
        answer = back(int.from_bytes(data[20:22], "big"))
        crossing(here, 1.0, data, outgoing=True)
        crossing(there, 1.1, data, outgoing=False)
        crossing(there, 1.2, answer, outgoing=True)
        crossing(here, 1.3, answer, outgoing=False)

    return sent


async def gathered(sources: ScriptedSources, *, timeout: float = NEVER, packet: Packet = TO_WEB) -> Evidence:
    found = await gather(packet, HERE, [HERE, THERE], timeout=timeout, sources=sources)
    assert (sources.still_open, sources.senders) == (0, 0)
    return found


async def test_it_ends_with_the_answer(sources: ScriptedSources) -> None:
    sources.on_send = answering(sources)
    found = await gathered(sources)

    assert found.answer is not None
    assert (found.packet.source, found.packet.source_port, found.reached) == (CLIENT, 61001, THERE.name)
    assert found.lost == 0


async def test_without_an_answer_it_ends_when_nothing_is_told_any_more(sources: ScriptedSources) -> None:
    sources.on_send = lambda data: crossing(sources.places[HERE.netns], 1.0, data, outgoing=True)
    found = await gathered(sources, timeout=0.05)

    assert found.answer is None
    assert [event.detail for event in found.events if isinstance(event, Dropped)] == [
        "it left through eth0 and was not seen again"
    ]


async def test_what_the_kernel_refuses_to_send_is_not_waited_for(sources: ScriptedSources) -> None:
    def refused(_: bytes) -> None:
        raise KernelError.of("send", HERE.netns, errno.EHOSTUNREACH, "No route to host")

    sources.on_send = refused
    found = await gathered(sources)

    assert [event.detail for event in found.events if isinstance(event, Dropped)] == ["No route to host"]


async def test_messages_that_were_lost_are_told_but_none_from_before(sources: ScriptedSources) -> None:
    here = sources.places[HERE.netns]
    answer = answering(sources)

    def sent(data: bytes) -> None:
        answer(data)
        here.trace.missed, here.events.missed, here.tap.missed = 1, 2, 4

    sources.on_send = sent

    assert (await gathered(sources)).lost == 7


async def test_where_somebody_else_traces_it_waits_its_turn(sources: ScriptedSources) -> None:
    here = sources.places[HERE.netns]
    here.xtables = True
    here.failures["log"] = [KernelBusy("bind log group 0", HERE.netns, errno.EBUSY) for _ in range(3)]
    sources.on_send = answering(sources)

    assert (await gathered(sources)).answer is not None
    assert here.failures["log"] == []


@pytest.mark.parametrize("what", ["events", "trace", "frames"])
async def test_what_cannot_be_watched_leaves_nothing_open(sources: ScriptedSources, what: str) -> None:
    sources.places[HERE.netns].failures[what] = [KernelDenied("listen", HERE.netns, errno.EPERM)]
    with pytest.raises(KernelDenied):
        await gathered(sources)

    assert (sources.still_open, sources.senders) == (0, 0)


async def test_a_place_that_is_gone_and_a_source_without_an_address(sources: ScriptedSources) -> None:
    with pytest.raises(UserError, match="shop/client has no IPv6 address"):
        await gathered(sources, packet=Packet(destination="2001:db8::1", port=80))
    del sources.places[THERE.netns]
    with pytest.raises(KernelNotFound):
        await gathered(sources)

    assert (sources.still_open, sources.senders) == (0, 0)


async def test_connections_that_programs_open_are_followed_each_once(sources: ScriptedSources) -> None:
    ready, here = asyncio.Event(), sources.places[HERE.netns]
    following = follow(HERE, lambda: [HERE, THERE], WEB, 80, "tcp", ready.set, sources)
    first = asyncio.ensure_future(anext(following))
    await ready.wait()
    sent = answering(sources)
    for port, secret in ((40001, b"aaaa0000"), (40002, b"bbbb0000")):
        data = craft(Packet(destination=WEB, port=80, source=CLIENT, source_port=port), secret).data
        here.trace.put(Step(port, "rule", "ip", TABLE, "output", 1, "continue", "", 0, 0, 2, data))
        sent(data)
    found = [await first, await anext(following)]
    await following.aclose()  # type: ignore[attr-defined]

    assert [each.packet.source_port for each in found] == [40001, 40002]
    assert all(each.answer is not None for each in found)
    assert sources.still_open == 0


async def test_places_that_come_and_go_while_connections_are_followed(sources: ScriptedSources) -> None:
    ready, places = asyncio.Event(), [HERE]
    following = follow(HERE, lambda: places, WEB, 80, "tcp", ready.set, sources)
    first = asyncio.ensure_future(anext(following))
    await ready.wait()
    at_first = sources.still_open

    async def until(holds: Callable[[], bool]) -> None:
        while not holds():  # noqa: ASYNC110 - the fake tells nobody
            await asyncio.sleep(0.01)

    places += [THERE, Watched("shop/gone", "nowhere")]
    await asyncio.wait_for(until(lambda: sources.still_open == 2 * at_first), 10)
    places.remove(THERE)
    await asyncio.wait_for(until(lambda: sources.still_open == at_first), 10)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first

    assert sources.still_open == 0

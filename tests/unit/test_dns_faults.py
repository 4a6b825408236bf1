"""Faults on purpose, from the ConfigMap to what a question gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from netemu.dns import faults, names, wire
from netemu.dns.chain import Chain
from netemu.dns.fault import Fault, parse_fault, parse_faults
from netemu.dns.faults import Faults, FaultTable
from netemu.dns.plugin import Plugin, Result
from netemu.dns.wire import Query, Record, Response
from netemu.model.errors import UserError
from netemu.model.resources import CONFIGMAPS, EVENTS, PODS
from netemu.testing.client import FakeClient
from tests.unit.test_dns_server import when

CLIENT = ("10.244.1.5", 4000)


class Counting(Plugin):
    """Answers every question with an address that grows."""

    name = "counting"

    def __init__(self) -> None:
        self.asked = 0

    async def serve(self, query: Query) -> Result:
        self.asked += 1
        return Response(answers=[Record(query.name, wire.A, 30, bytes([10, 0, 0, self.asked % 256]))], stable=True)


class Host:
    """As much of the server as faults see."""

    def __init__(self, client: FakeClient) -> None:
        self._client, self.changes = client, asyncio.Queue[None]()

    async def client(self, credentials: object) -> FakeClient:
        return self._client

    def invalidate(self, changed: object = None) -> None:
        self.changes.put_nowait(None)


class Bed:
    """A chain with faults in front."""

    def __init__(self) -> None:
        self.api = FakeClient()
        self.host = Host(self.api)
        self.table = FaultTable(self.host, "kube-system", "dns-faults")  # type: ignore[arg-type]
        self.chain = Chain([Faults(self.table), Counting()], (names.ROOT,))

    async def ask(self, name: str = "www.example.com.", *, transport: str = "udp", client: str = CLIENT[0]) -> Response:
        return await self.chain.serve(
            Query(1, 0, names.parse(name), wire.A, transport=transport, client=(client, 4000))
        )

    async def until(self, rcode: int) -> None:
        """Ask until the code of the answer is this."""
        async with asyncio.timeout(5):
            while (await self.ask()).rcode != rcode:  # noqa: ASYNC110 - what changes is told to nobody else
                await asyncio.sleep(0)

    async def declare(self, **wanted: dict[str, object] | str) -> None:
        """Write the ConfigMap and wait until it is heard of."""
        data = {key: value if isinstance(value, str) else json.dumps(value) for key, value in wanted.items()}
        body = {"metadata": {"name": "dns-faults", "namespace": "kube-system"}, "data": data}
        found = (await self.api.list(CONFIGMAPS)).items
        if found:
            await self.api.patch(CONFIGMAPS, "dns-faults", {"data": None}, "kube-system")
            await self.host.changes.get()
            await self.api.patch(CONFIGMAPS, "dns-faults", {"data": data}, "kube-system")
        else:
            await self.api.create(CONFIGMAPS, body, "kube-system")
        await self.host.changes.get()


@asynccontextmanager
async def bed() -> AsyncIterator[Bed]:
    made = Bed()
    task = asyncio.create_task(made.table.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("kind", "rcode"), [("servfail", wire.SERVFAIL), ("nxdomain", wire.NXDOMAIN)])
async def test_a_code_instead_of_the_answer(kind: str, rcode: int) -> None:
    async with bed() as made:
        await made.declare(one={"fault": kind, "name": "*.example.com"})

        assert ((await made.ask()).rcode, (await made.ask("web.")).rcode) == (rcode, wire.NOERROR)


async def test_a_dropped_question_gets_silence() -> None:
    async with bed() as made:
        await made.declare(one={"fault": "drop"})

        assert (await made.ask()).silent


async def test_truncation_concerns_udp_alone() -> None:
    async with bed() as made:
        await made.declare(one={"fault": "truncate"})
        short, whole = await made.ask(), await made.ask(transport="tcp")

        assert (short.tc, short.answers, whole.tc, len(whole.answers)) == (True, [], False, 1)


async def test_stale_repeats_the_first_answer_until_it_is_off() -> None:
    async with bed() as made:
        await made.declare(one={"fault": "stale"})
        first, second = await made.ask(), await made.ask()
        await made.declare()
        later = await made.ask()
        await made.declare(one={"fault": "stale"})
        again = await made.ask()

        assert [each.answers[0].rdata[3] for each in (first, second, later, again)] == [1, 1, 2, 3]


async def test_a_stale_that_is_on_again_begins_anew_though_nobody_asked_meanwhile() -> None:
    async with bed() as made:
        await made.declare(one={"fault": "stale"})
        before = await made.ask()
        await made.declare()
        await made.declare(one={"fault": "stale"})
        again = await made.ask()

        assert [each.answers[0].rdata[3] for each in (before, again)] == [1, 2]


async def test_a_stale_goes_on_when_another_fault_comes() -> None:
    made = Bed()
    made.table.replace([Fault("stale", "www.*")])
    before = await made.ask()
    made.table.replace([Fault("drop", "web"), Fault("stale", "www.*")])
    after = await made.ask()

    assert before.answers == after.answers


async def test_the_oldest_answers_of_a_stale_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_MOST_ANSWERS", 2)
    made = Bed()
    made.table.replace([Fault("stale")])
    said = [(await made.ask(name)).answers[0].rdata[3] for name in ("a.", "b.", "c.", "b.", "a.")]

    assert said == [1, 2, 3, 2, 4]


async def test_delays_add_up_and_leave_the_answer_alone() -> None:
    async with bed() as made:
        await made.declare(
            a={"fault": "delay", "seconds": 0.05}, b={"fault": "delay", "name": "www.*", "seconds": 0.05}
        )
        loop = asyncio.get_running_loop()
        began = loop.time()
        answer = await made.ask()

        assert (answer.rcode, 0.09 < loop.time() - began < 1) == (wire.NOERROR, True)


async def test_only_the_pod_that_is_named_suffers_wherever_it_moves() -> None:
    async with bed() as made:
        await made.api.create(
            PODS, {"metadata": {"name": "client"}, "spec": {}, "status": {"podIPs": [{"ip": CLIENT[0]}]}}, "shop"
        )
        await made.declare(one={"fault": "servfail", "pod": "shop/client"})
        await made.until(wire.SERVFAIL)
        other = await made.ask(client="10.244.1.6")
        await made.api.patch(
            PODS, "client", {"status": {"podIPs": [{"ip": "10.244.1.6"}]}}, "shop", subresource="status"
        )
        await made.until(wire.NOERROR)
        moved = await made.ask(client="10.244.1.6")

        assert (other.rcode, moved.rcode) == (wire.NOERROR, wire.SERVFAIL)


async def test_an_answer_that_a_fault_may_replace_is_not_kept_for_everybody() -> None:
    async with bed() as made:
        before = await made.ask()
        await made.declare(one={"fault": "servfail", "name": "*.example.com", "pod": "shop/nobody"})
        concerned, other = await made.ask(), await made.ask("web.")

        assert (before.stable, concerned.stable, other.stable) == (True, False, True)


async def test_a_share_of_the_questions() -> None:
    async with bed() as made:
        await made.declare(one={"fault": "servfail", "percent": 30})
        failed = [(await made.ask()).rcode for _ in range(600)].count(wire.SERVFAIL)

        assert 100 < failed < 270


async def test_what_cannot_be_read_is_told_and_the_rest_counts() -> None:
    async with bed() as made:
        await made.declare(good={"fault": "drop"}, bad='{"fault": "slow"}')
        dropped = (await made.ask()).silent
        await when(lambda: any(resource == "events" for _, resource, _ in made.api.writes))
        found = (await made.api.list(EVENTS)).items

        assert dropped
        assert found[0]["message"].startswith("bad: fault 'slow'")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"fault": "delaj"}', "fault 'delaj': did you mean delay?"),
        ('{"fault": "delay", "seconds": 1000}', "seconds 1000: must be 0 to 60"),
        ('{"fault": "drop", "percent": 0}', "percent 0: must be 1 to 100"),
        ('{"fault": "drop", "pod": "client"}', "pod 'client': must be NAMESPACE/NAME"),
        ('{"fault": "drop", "nam": "x"}', "unknown field"),
        ("drop", "must be like"),
        ("[]", "must be like"),
    ],
)
def test_refusals(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why.replace("(", r"\(").replace("?", r"\?")):
        parse_fault(text)


@pytest.mark.parametrize(
    ("pattern", "name", "meant"),
    [
        ("*", "", True), ("*.example.com", "www.example.com", True), ("*.example.com", "example.com", False),
        ("WWW.example.com.", "www.example.com", True),
        ("web*", "web.shop.svc.cluster.local", True), ("web", "web2", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, name: str, meant: bool) -> None:
    assert Fault("drop", pattern).matches(name) == meant


def test_faults_are_in_the_order_of_their_keys() -> None:
    found, wrong = parse_faults({"b": '{"fault": "drop"}', "a": '{"fault": "servfail"}', "c": "?"})

    assert ([fault.fault for fault in found], [line[:2] for line in wrong]) == (["servfail", "drop"], ["c:"])

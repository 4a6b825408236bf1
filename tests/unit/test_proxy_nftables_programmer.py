"""nftables mode, the programmer: what it sends, in what order, and what is left when it is through."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.model import meta, nft
from netemu.model.errors import KernelError
from netemu.model.objects import EndpointSlice, Service
from netemu.proxy.config import API_VERSION, KIND, parse
from netemu.proxy.nftables_mode import base_rules, masquerade_mark
from netemu.proxy.nftables_programmer import NftablesProgrammer
from netemu.proxy.programmer import Written
from netemu.proxy.services import Family
from netemu.proxy.tracker import Tracker
from netemu.testing.nftables import FakeNft
from tests.unit.proxy_world import NODE, endpoint_slice, service, world

EMPTY = {"apiVersion": API_VERSION, "kind": KIND}
TABLE = nft.Table("ip", "kube-proxy")
LISTED = replace(NODE, node_port_networks=("192.168.0.2/32",))
HERE, THERE, AWAY = ("10.180.0.1", "test-node"), ("10.180.1.1", "node-b"), ("10.180.2.1", "node-c")


class Bed:
    """A tracker and a programmer over the fake kernel, driven by hand; `now` is its clock."""

    def __init__(self, fake: FakeNft | None = None, *, piece: int = 1500, masquerade_bit: int = 14) -> None:
        self.tracker, self.fake, self.now = Tracker(Family.IPV4, "test-node"), fake or FakeNft(), 100.0
        config = parse({**EMPTY, "nftables": {"masqueradeBit": masquerade_bit}})
        self.programmer = NftablesProgrammer(
            self.fake, base_rules(config), clock=lambda: self.now, mark=masquerade_mark(config), piece=piece
        )

    def put(self, *objs: meta.KubeObject) -> None:
        for obj in objs:
            if isinstance(obj, Service):
                self.tracker.service_changed(None, obj)
            elif isinstance(obj, EndpointSlice):
                self.tracker.slice_changed(None, obj)

    def drop(self, *objs: meta.KubeObject) -> None:
        for obj in objs:
            if isinstance(obj, Service):
                self.tracker.service_changed(obj, None)
            elif isinstance(obj, EndpointSlice):
                self.tracker.slice_changed(obj, None)

    async def sync(self, *, full: bool = False) -> Written:
        touched = None if full else self.tracker.take().touched
        self.tracker.take()
        return await self.programmer.program(self.tracker.table, LISTED, touched)

    async def ruleset(self) -> nft.Ruleset:
        held = await self.fake.dump(TABLE)
        assert held
        return held

    async def holds(self) -> tuple[dict[str, tuple[str, ...]], set[tuple[str, str]]]:
        """Chains with their rules, empty ones left out; elements by set."""
        ruleset = await self.ruleset()
        chains = {c.name: tuple(r.text() for r in ruleset.rules_of(c.name)) for c in ruleset.chains}
        return {name: rules for name, rules in chains.items() if rules}, {(e.set, e.text()) for e in ruleset.elements}


async def bed(*objs: meta.KubeObject, piece: int = 1500, masquerade_bit: int = 14) -> Bed:
    made = Bed(piece=piece, masquerade_bit=masquerade_bit)
    made.put(*objs)
    await made.sync(full=True)
    return made


def everything() -> list[meta.KubeObject]:
    services, slices = world()
    return [*services, *slices]


def touched(runs: Iterable[nft.Transaction]) -> set[str]:
    """Chains, sets and maps in which something was put or removed."""
    names = set()
    for run in runs:
        for operation in run.operations:
            match operation.object:
                case nft.Rule(chain=name) | nft.Chain(name=name) | nft.Element(set=name):
                    names.add(name)
    return names


async def test_a_restart_with_nothing_changed_sends_nothing() -> None:
    before = await bed(*everything())
    sent = len(before.fake.runs)
    after = Bed(before.fake)
    after.put(*everything())

    await after.sync(full=True)

    assert len(before.fake.runs) == sent


async def test_an_endpoint_that_moves_touches_one_chain_and_no_map_of_services() -> None:
    running = await bed(*everything())
    sent = len(running.fake.runs)
    running.put(endpoint_slice("default/web", [HERE, THERE, ("10.180.2.9", "node-c")]))

    await running.sync()

    assert touched(running.fake.runs[sent:]) == {"service-SUSTUHLJ-default/web/tcp/http", "hairpin-connections"}


async def test_a_chain_that_is_gone_is_emptied_at_once_and_removed_by_a_later_sync() -> None:
    running = await bed(service(affinity=60), endpoint_slice("default/web", [HERE, THERE]))
    running.put(endpoint_slice("default/web", [HERE]))
    first = await running.sync()
    emptied = await running.ruleset()
    running.now += first.again
    second = await running.sync()
    removed = await running.ruleset()

    assert any("10.180.1.1" in c.name for c in emptied.chains)
    assert not any("10.180.1.1" in rule.text() for rule in emptied.rules)
    assert not any("10.180.1.1" in element.text() for element in emptied.elements)
    assert not any("10.180.1.1" in c.name for c in removed.chains)
    assert (first.again > 0, second.again) == (True, 0)


async def test_an_endpoint_that_returns_before_its_chain_was_removed_works() -> None:
    both, one = endpoint_slice("default/web", [HERE, THERE]), endpoint_slice("default/web", [HERE])
    running = await bed(service(affinity=60), both)
    wanted = await running.holds()
    for piece in (one, both):
        running.put(piece)
        await running.sync()
    running.now += 10
    await running.sync()

    assert await running.holds() == wanted


@pytest.mark.parametrize("piece", [1, 5, 17])
async def test_a_load_in_pieces_ends_with_the_same_table(piece: int) -> None:
    whole, pieces = await bed(*everything()), await bed(*everything(), piece=piece)

    assert await pieces.holds() == await whole.holds()
    assert len(pieces.fake.runs) > len(whole.fake.runs)


async def test_nothing_leads_to_a_piece_before_the_last_transaction() -> None:
    running = await bed(*everything(), piece=5)
    *pieces, last = running.fake.runs

    def leads(run: nft.Transaction) -> bool:
        elements = {o.object.set for o in run.operations if isinstance(o.object, nft.Element)}
        return bool(elements - {"hairpin-connections"}) or any(getattr(o.object, "hook", "") for o in run.operations)

    assert not any(leads(run) for run in pieces)
    assert leads(last)


async def test_chains_that_all_differ_are_exchanged_in_pieces_what_they_share_first() -> None:
    before, wanted = await bed(*everything()), await bed(*everything(), masquerade_bit=15)
    sent = len(before.fake.runs)
    after = Bed(before.fake, piece=2, masquerade_bit=15)
    after.put(*everything())

    await after.sync(full=True)

    first, *pieces = before.fake.runs[sent:]
    assert "masquerading" in touched([first])
    assert [len(touched([piece])) for piece in pieces] == [2, 2]
    assert await after.holds() == await wanted.holds()


async def test_two_services_with_one_external_ip_do_not_disturb_each_other() -> None:
    one, two = (service(f"default/{name}", ip, external_ips=["198.51.100.7"]) for name, ip in
                (("a", "172.30.0.1"), ("b", "172.30.0.2")))  # fmt: skip
    running = await bed(one, two, endpoint_slice("default/a", [HERE]), endpoint_slice("default/b", [THERE]))

    def leads_to(elements: set[tuple[str, str]]) -> list[str]:
        return [text.rpartition("-")[2] for name, text in elements if name == "service-ips" and "198.51.100.7" in text]

    shared = leads_to((await running.holds())[1])
    running.drop(one)
    await running.sync()
    alone = leads_to((await running.holds())[1])

    assert (shared, alone) == (["default/a/tcp/http"], ["default/b/tcp/http"])


async def test_two_services_with_one_endpoint_do_not_disturb_each_other() -> None:
    one, two = (service(f"default/{name}", ip) for name, ip in (("a", "172.30.0.1"), ("b", "172.30.0.2")))
    slices = [endpoint_slice(key, [HERE]) for key in ("default/a", "default/b")]
    running = await bed(one, two, *slices)

    async def hairpins() -> list[str]:
        return [text for name, text in (await running.holds())[1] if name == "hairpin-connections"]

    running.drop(slices[0])
    await running.sync()
    left = await hairpins()
    running.drop(slices[1])
    await running.sync()

    assert (left, await hairpins()) == (["10.180.0.1 . 10.180.0.1 . tcp . 8080"], [])


async def test_a_new_affinity_timeout_is_taken() -> None:
    running = await bed(service(affinity=100), endpoint_slice("default/web", [HERE, THERE]))
    running.put(service(affinity=200))

    await running.sync()

    ruleset = await running.ruleset()
    assert {s.timeout for s in ruleset.sets if s.name.startswith("affinity-")} == {200}


async def test_a_refused_change_leaves_the_table_as_it_was_and_the_next_sync_makes_up_for_it() -> None:
    running = await bed(service(), endpoint_slice("default/web", [HERE]))
    before = await running.holds()
    running.fake.fail_next = errno.ENOMEM
    running.put(endpoint_slice("default/web", [THERE]))
    with pytest.raises(KernelError):
        await running.sync()
    unchanged = await running.holds()

    await running.sync(full=True)

    assert unchanged == before
    assert "10.180.1.1" in str(await running.holds())


async def test_what_somebody_else_removes_is_noticed_and_put_back() -> None:
    running = await bed(*everything())
    wanted = await running.holds()
    gone = nft.Element("service-ips", ("172.30.0.10", "tcp", 80))
    await running.fake.run(nft.Transaction(TABLE, (nft.Delete(gone),)))
    intact = await running.programmer.intact()

    await running.sync(full=True)

    assert not intact
    assert await running.holds() == wanted
    assert await running.programmer.intact()


async def test_other_tables_are_nobodys_business() -> None:
    running = await bed(*everything())
    foreign = nft.Table("ip", "mine")
    await running.fake.run(nft.Transaction(foreign, (nft.Add(foreign), nft.Add(nft.Chain("x")))))

    intact = await running.programmer.intact()
    await running.programmer.cleanup()

    assert intact
    assert await running.fake.dump(foreign) is not None
    assert await running.fake.dump(TABLE) is None


SERVICES = st.sampled_from([
    service(), service(affinity=60), service(external_ips=["198.51.100.7"]), service(internal_policy="Local"),
    service(type="NodePort", node_ports={"http": 30080}, external_policy="Local"),
    service("default/b", "172.30.0.2", external_ips=["198.51.100.7"]),
    service(type="LoadBalancer", ingress=["1.2.3.4"], ranges=["203.0.113.0/25"]),
])  # fmt: skip
SLICES = st.builds(
    lambda key, at: endpoint_slice(key, [(ip, node, state) for (ip, node), state in at.items()]),
    st.sampled_from(["default/web", "default/b"]),
    st.dictionaries(st.sampled_from([HERE, THERE, AWAY]), st.sampled_from(["ready", "ending", "ended"])),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.one_of(SERVICES, SLICES)), max_size=12), st.integers(1, 4))
async def test_any_way_to_a_state_leads_to_the_same_table(
    steps: list[tuple[bool, meta.KubeObject]], every: int
) -> None:
    walked, left = await bed(), {}
    for number, (stays, obj) in enumerate(steps):
        key = type(obj), obj.key
        if stays:
            left[key] = obj
            walked.put(obj)
        elif left.pop(key, None):
            walked.drop(obj)
        if number % every == 0:
            await walked.sync()
            walked.now += 0.7
    await walked.sync()

    assert await walked.holds() == await (await bed(*left.values())).holds()
    assert await walked.programmer.intact()

"""Whatever comes and goes: indexes stay true, and what a change does not touch it does not change."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netemu.dns import names, wire
from netemu.dns.objects import Cluster, Options
from netemu.dns.records import Answer, answer
from netemu.model.objects import Namespace
from tests.unit.dns_cluster import FACTS, ZONES, endpoint, port, put, service, slice_of

Object = dict[str, Any]
Change = tuple[str, str, Object | None]
"""(kind, name, the object as it is now or None); everything is in namespace shop."""

SERVICE_NAMES, SLICE_NAMES = ("a", "b"), ("a-1", "a-2", "b-1")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1")
QUESTIONS = [
    *((f"{front}{name}.shop.svc.cluster.local", kind) for name in SERVICE_NAMES
      for front in ("", "h.", "10-0-0-1.", "_http._tcp.") for kind in ("A", "AAAA", "SRV", "CNAME")),
    *((names.text(names.reverse(address)), "PTR") for address in (*ADDRESSES, "10.96.0.1", "10.96.0.2")),
    ("cluster.local", "NS"), ("ns.dns.cluster.local", "A"),
    *((f"{address.replace('.', '-')}.shop.pod.cluster.local", "A") for address in ADDRESSES[:2]),
]  # fmt: skip

OWN = {"a": ["10.96.0.1", "10.96.0.1 fd00:96::1", "None"], "b": ["10.96.0.2", "10.96.0.2 fd00:96::2", "None"]}
"""An API server gives an address to one Service at a time."""

services = st.one_of(
    st.sampled_from([service(name, ips, port("http", 80)) for name, all_ips in OWN.items() for ips in all_ips]),
    st.builds(lambda name, to: service(name, "", type="ExternalName", externalName=to), st.sampled_from(SERVICE_NAMES),
              st.sampled_from(["b.shop.svc.cluster.local", "a.shop.svc.cluster.local", "www.example.com"])),
)  # fmt: skip
endpoints = st.builds(endpoint, st.sampled_from([*ADDRESSES, "10.0.9.53"]), st.sampled_from(["", "h"]), st.booleans())
slices = st.builds(
    lambda name, owner, ends, http: {
        **slice_of(owner, "x", ends, port(http, 80)),
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": owner}},
    },
    st.sampled_from(SLICE_NAMES), st.sampled_from(SERVICE_NAMES), st.lists(endpoints, max_size=3),
    st.sampled_from(["http", "other"]),
)  # fmt: skip
changes = st.one_of(
    st.tuples(st.just("service"), st.sampled_from(SERVICE_NAMES), st.none()),
    services.map(lambda item: ("service", item["metadata"]["name"], item)),
    st.tuples(st.just("slice"), st.sampled_from(SLICE_NAMES), st.none()),
    slices.map(lambda item: ("slice", item["metadata"]["name"], item)),
    st.tuples(st.just("pod"), st.sampled_from(["p", "q"]), st.sampled_from([None, {"ip": 1}, {"ip": 2}])),
)


def empty() -> Cluster:
    found = Cluster(Options(zones=ZONES, ttl=30, pods="verified"))
    found.set_namespace("shop", Namespace())
    return found


def apply(cluster: Cluster, change: Change) -> set[bytes]:
    """Make a change; the tags of what it touches."""
    kind, name, item = change
    if kind == "pod":
        return set(cluster.set_pod("shop", name, bytes((10, 0, 0, item["ip"])) if item else b""))
    if item is not None:
        return set(put(cluster, item))
    return set((cluster.set_service if kind == "service" else cluster.set_slice)("shop", name, None))


def said(cluster: Cluster, question: tuple[str, str]) -> Answer:
    name = names.parse(question[0])
    zone = next(suffix for suffix in names.suffixes(name) if suffix in ZONES)
    return answer(cluster, name, wire.TYPES[question[1]], zone, FACTS)


def shown(reply: Answer) -> tuple[int, set[Any], set[Any], bytes]:
    """All that the wire would show, in any order."""
    return reply.rcode, set(reply.answers), set(reply.additional), reply.chase


@settings(max_examples=100, deadline=None)
@given(st.lists(changes, max_size=12))
def test_the_way_to_a_state_does_not_matter(path: list[Change]) -> None:
    travelled, last = empty(), {change[:2]: change for change in path}
    for change in path:
        apply(travelled, change)
    fresh = empty()
    for change in last.values():
        apply(fresh, change)

    assert [shown(said(travelled, each)) for each in QUESTIONS] == [shown(said(fresh, each)) for each in QUESTIONS]


@settings(max_examples=100, deadline=None)
@given(st.lists(changes, max_size=8), changes)
def test_an_answer_that_a_change_does_not_touch_stays_what_it_was(path: list[Change], change: Change) -> None:
    cluster = empty()
    for earlier in path:
        apply(cluster, earlier)
    before = {question: said(cluster, question) for question in QUESTIONS}
    touched = apply(cluster, change)

    for question, reply in before.items():
        untouched = reply.depends and not touched & set(reply.depends)
        if untouched or not touched:
            assert shown(said(cluster, question)) == shown(reply), (question, change)


@settings(max_examples=100, deadline=None)
@given(st.lists(changes, max_size=12))
def test_nothing_is_left_of_what_is_gone(path: list[Change]) -> None:
    cluster = empty()
    for change in path:
        apply(cluster, change)
    for kind, name, _ in path:
        apply(cluster, (kind, name, None))

    left = (
        cluster._services,
        cluster._slices,
        cluster._owner,
        cluster._service_at,
        cluster._slice_at,
        cluster._pods_at,
    )
    assert not any(left)

"""The model of glibc's resolver, by tables of replies, and real packets over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from netemu.observe import dig
from netemu.observe.dig import Ask, Reply, ResolvConf, Result
from tests.unit.test_dns_server import cluster_server

CONF = ResolvConf(
    nameservers=("10.96.0.10",), search=("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), ndots=5
)
Answers = Callable[[Ask, str], str]


def walk(
    name: str, answers: Answers, conf: ResolvConf = CONF, types: Sequence[str] = ("A", "AAAA")
) -> tuple[Result, list[Ask]]:
    """Run the model against a function (question, type) -> outcome, where an address means a record of that type."""
    steps = dig.glibc(name, conf, types)
    asked = []
    try:
        ask = next(steps)
        while True:
            asked.append(ask)
            ask = steps.send([reply(kind, answers(ask, kind)) for kind in ask.types])
    except StopIteration as end:
        return end.value, asked


def reply(kind: str, said: str) -> Reply:
    if said == "TC":
        return Reply(kind, "NOERROR", truncated=True)
    if said[0].isdigit() or ":" in said:
        return Reply(kind, "NOERROR", (f"name\t30\tIN\t{kind}\t{said}",), (said,))
    return Reply(kind, "NOERROR" if said == "NODATA" else said)


def only(wanted: str, address: str = "10.96.0.5") -> Answers:
    """A server that knows one name, with one IPv4 address."""
    return lambda ask, kind: (address if kind == "A" else "NODATA") if ask.name == wanted else "NXDOMAIN"


@pytest.mark.parametrize(
    ("name", "wanted", "queries"),
    [
        ("web", "web.shop.svc.cluster.local.", 2),
        ("web.shop", "web.shop.svc.cluster.local.", 4),
        ("web.shop.svc", "web.shop.svc.cluster.local.", 6),
        ("web.shop.svc.cluster.local", "web.shop.svc.cluster.local.", 8),
        ("www.example.com", "www.example.com.", 8),
        ("www.example.com.", "www.example.com.", 2),
        ("a.b.c.d.e.f", "a.b.c.d.e.f.", 2),
    ],
)
def test_how_many_queries_a_name_costs(name: str, wanted: str, queries: int) -> None:
    result, asked = walk(name, only(wanted))

    assert (result.status, result.name, sum(len(ask.types) for ask in asked)) == ("found", wanted, queries)


def test_fewer_ndots_try_the_name_as_it_is_first() -> None:
    _, asked = walk("www.example.com", only("www.example.com."), msgspec.structs.replace(CONF, ndots=2))

    assert [ask.name for ask in asked] == ["www.example.com."]


def test_a_name_that_exists_nowhere_is_not_found_after_every_candidate() -> None:
    result, asked = walk("nope", lambda ask, kind: "NXDOMAIN")

    assert (result.status, [ask.name for ask in asked][-1], len(asked)) == ("not found", "nope.", 4)


def test_nodata_on_the_way_goes_on_and_is_remembered() -> None:
    result, asked = walk(
        "kube-system", lambda ask, kind: "NODATA" if ask.name.startswith("kube-system.svc.") else "NXDOMAIN"
    )

    assert (result.status, len(asked)) == ("no data", 4)


def test_one_family_is_enough() -> None:
    result, asked = walk("web", lambda ask, kind: "10.96.0.5" if kind == "A" else "NXDOMAIN")

    assert (result.addresses, len(asked)) == (("10.96.0.5",), 1)


def test_a_lost_aaaa_is_asked_again_one_at_a_time() -> None:
    result, asked = walk(
        "web", lambda ask, kind: "10.96.0.5" if kind == "A" else "NODATA" if ask.attempt > 1 else "timeout"
    )

    assert (result.status, [ask.together for ask in asked]) == ("found", [True, False])


def test_silence_uses_up_attempts_and_then_leaves_only_the_absolute_name() -> None:
    result, asked = walk("web", lambda ask, kind: "timeout")

    assert result.status == "try again"
    assert [ask.name for ask in asked] == ["web.shop.svc.cluster.local."] * 2 + ["web."] * 2


def test_a_server_failure_is_tried_again_before_the_next_search_name() -> None:
    result, asked = walk("web", lambda ask, kind: "SERVFAIL")

    assert (result.status, len(asked), asked[1].name, asked[2].name) == (
        "try again", 8, "web.shop.svc.cluster.local.", "web.svc.cluster.local.",
    )  # fmt: skip


def test_the_next_server_is_asked_after_a_refusal() -> None:
    conf = msgspec.structs.replace(CONF, nameservers=("192.0.2.1", "192.0.2.2"))
    result, asked = walk("web", lambda ask, kind: "REFUSED" if ask.server == "192.0.2.1" else "10.96.0.5", conf, ("A",))

    assert (result.status, [ask.server for ask in asked]) == ("found", ["192.0.2.1", "192.0.2.2"])


def test_truncated_replies_are_asked_for_again_by_tcp() -> None:
    result, asked = walk("web", lambda ask, kind: "TC" if ask.transport == "udp" and kind == "A" else "10.0.0.1", CONF)

    assert (result.status, asked[1].transport, asked[1].types) == ("found", "tcp", ("A",))


def test_no_aaaa_asks_for_one_type() -> None:
    _, asked = walk("web", only("web.shop.svc.cluster.local."), msgspec.structs.replace(CONF, no_aaaa=True))

    assert asked[0].types == ("A",)


def test_resolv_conf_is_read_as_glibc_reads_it() -> None:
    text = (
        "# comment\nnameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
        "search old\nsearch shop.svc.cluster.local svc.cluster.local.\noptions ndots:5 timeout:1\n"
        "options attempts:9 single-request-reopen use-vc rotate nonsense ndots:x\n"
    )

    assert dig.parse_resolv_conf(text) == ResolvConf(
        nameservers=("10.96.0.10", "192.0.2.1", "192.0.2.2"), search=("shop.svc.cluster.local", "svc.cluster.local"),
        ndots=5, timeout=1, attempts=5, rotate=True, single_request=True, use_vc=True,
    )  # fmt: skip


def test_an_empty_resolv_conf_means_the_machine_itself() -> None:
    assert dig.parse_resolv_conf("") == ResolvConf()


def files(tmp_path: Path, options: str = "") -> tuple[Path, Path]:
    resolv, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    resolv.write_text(
        f"nameserver 127.0.0.1\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:1 {options}\n"
    )
    hosts.write_text("10.244.1.7\tclient client.alias # me\n")
    return resolv, hosts


async def test_a_lookup_over_real_packets_shows_each_step(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    async with cluster_server() as (to, _):
        found = await dig.lookup("web.shop", resolv_conf=resolv, hosts=hosts, port=to.ports[53])

    assert [(step.name, step.reply.type, step.reply.outcome) for step in found.steps] == [
        ("web.shop.shop.svc.cluster.local.", "A", "NXDOMAIN"), ("web.shop.shop.svc.cluster.local.", "AAAA", "NXDOMAIN"),
        ("web.shop.svc.cluster.local.", "A", "NOERROR"), ("web.shop.svc.cluster.local.", "AAAA", "NOERROR"),
    ]  # fmt: skip
    assert found.result.addresses == ("10.96.0.5",)


async def test_the_text_names_every_query_and_the_end(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    async with cluster_server() as (to, _):
        lines = dig.render(await dig.lookup("web", resolv_conf=resolv, hosts=hosts, port=to.ports[53]))

    assert "ndots:5" in lines[0]
    assert "web.shop.svc.cluster.local. A  ->  NOERROR 30 IN A 10.96.0.5" in lines[1].replace(
        "NOERROR A", "NOERROR 30 IN A"
    )
    assert "NODATA" in lines[2]
    assert lines[3].startswith("found: 10.96.0.5 as web.shop.svc.cluster.local. after 2 queries")


async def test_the_hosts_file_comes_first(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)

    found = await dig.lookup("Client.alias", resolv_conf=resolv, hosts=hosts)

    assert (found.steps, found.result.addresses) == ((), ("10.244.1.7",))


async def test_other_types_are_walked_the_same_way(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    async with cluster_server() as (to, _):
        found = await dig.lookup("_http._tcp.web", types=["SRV"], resolv_conf=resolv, hosts=hosts, port=to.ports[53])

    assert found.result.answers[0].endswith("0 100 80 web.shop.svc.cluster.local.")


async def test_a_port_where_nobody_listens_is_told_apart_from_silence(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    found = await dig.lookup("web.", resolv_conf=resolv, hosts=hosts, port=9)

    assert (found.result.status, {step.reply.outcome for step in found.steps}) == ("try again", {"refused"})


async def test_a_silent_server_costs_its_timeouts(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    silent, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    found = await dig.lookup("web.", resolv_conf=resolv, hosts=hosts, port=silent.get_extra_info("sockname")[1])
    silent.abort()
    await asyncio.sleep(0)

    assert (found.result.status, 0.9 < found.seconds < 3) == ("try again", True)


async def test_the_whole_lookup_is_json(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    async with cluster_server() as (to, _):
        found = await dig.lookup("web", resolv_conf=resolv, hosts=hosts, port=to.ports[53])

    assert msgspec.json.decode(msgspec.json.encode(found), type=dig.Lookup) == found


@pytest.mark.parametrize(("name", "types"), [("a..b", ["A"]), ("x" * 64, ["A"]), ("web", ["NOPE"])])
async def test_impossible_questions_are_refused(name: str, types: list[str], tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    with pytest.raises(ValueError, match=r"not a (domain name|record type)"):
        await dig.lookup(name, types=types, resolv_conf=resolv, hosts=hosts)

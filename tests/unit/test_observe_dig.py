"""Models of resolvers, by tables of replies, and real packets over loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from netemu.observe.resolve import dig, resolvers
from netemu.observe.resolve.resolvers import Ask, Model, Reply, ResolvConf, Result
from tests.unit.test_dns_server import cluster_server

CONF = ResolvConf(
    nameservers=("10.96.0.10",), search=("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), ndots=5
)
Answers = Callable[[Ask, str], str]


def walk(
    name: str,
    answers: Answers,
    conf: ResolvConf = CONF,
    types: Sequence[str] = ("A", "AAAA"),
    model: Model = resolvers.glibc,
) -> tuple[Result, list[Ask]]:
    """Run the model against a function (question, type) -> outcome, where an address means a record of that type."""
    steps = model(name, conf, types)
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
    if said == "ALIAS":
        return Reply(kind, "NOERROR", (f"name\t30\tIN\tCNAME\t{said}.",))
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


@pytest.mark.parametrize("outcome", ["timeout", "refused", "Network is unreachable"])
def test_silence_is_no_answer_that_there_is_no_such_name(outcome: str) -> None:
    result, _ = walk("web", lambda ask, kind: outcome)

    assert result.status == "try again"


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
        "web", lambda ask, kind: "10.96.0.5" if kind == "A" else "NODATA" if ask.sockets == "turns" else "timeout"
    )

    assert (result.status, [ask.sockets for ask in asked]) == ("found", ["one", "turns"])


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        pytest.param({}, 15, id="together, in turns, from sockets of their own"),
        pytest.param({"single_request": True}, 10, id="in turns, from sockets of their own"),
        pytest.param({"single_request": True, "single_request_reopen": True}, 5, id="from sockets of their own"),
        pytest.param({"timeout": 1, "attempts": 5}, 3, id="attempts do not matter"),
    ],
)
def test_an_aaaa_that_never_comes_costs_three_timeouts_at_most(options: dict[str, Any], seconds: float) -> None:
    conf = msgspec.structs.replace(CONF, **options)
    result, asked = walk("web", lambda ask, kind: "10.96.0.5" if kind == "A" else "timeout", conf)

    assert (result.addresses, sum(ask.timeout for ask in asked)) == (("10.96.0.5",), seconds)


def test_one_loss_makes_the_rest_of_a_lookup_careful() -> None:
    def answers(ask: Ask, kind: str) -> str:
        if ask.sockets == "one" and kind == "AAAA":
            return "timeout"
        return "10.96.0.5" if (kind, ask.name) == ("A", "web.svc.cluster.local.") else "NXDOMAIN"

    _, asked = walk("web", answers)

    assert [ask.sockets for ask in asked] == ["one", "turns", "turns"]


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
    result, asked = walk(
        "web", lambda ask, kind: "REFUSED" if ask.servers == ("192.0.2.1",) else "10.96.0.5", conf, ("A",)
    )

    assert (result.status, [ask.servers[0] for ask in asked]) == ("found", ["192.0.2.1", "192.0.2.2"])


def test_truncated_replies_are_asked_for_again_by_tcp() -> None:
    result, asked = walk("web", lambda ask, kind: "TC" if ask.transport == "udp" and kind == "A" else "10.0.0.1", CONF)

    assert (result.status, asked[1].transport, asked[1].types) == ("found", "tcp", ("A",))


def test_no_aaaa_asks_for_one_type() -> None:
    _, asked = walk("web", only("web.shop.svc.cluster.local."), msgspec.structs.replace(CONF, no_aaaa=True))

    assert asked[0].types == ("A",)


MUSL, GO = resolvers.musl, resolvers.go


@pytest.mark.parametrize(
    ("model", "name", "queries"),
    [
        (MUSL, "web", 2), (MUSL, "www.example.com", 8), (MUSL, "www.example.com.", 2), (MUSL, "a.b.c.d.e.f", 2),
        (GO, "web", 2), (GO, "www.example.com", 8), (GO, "www.example.com.", 2), (GO, "a.b.c.d.e.f", 8),
    ],
)  # fmt: skip
def test_how_many_queries_a_name_costs_elsewhere(model: Model, name: str, queries: int) -> None:
    found = {"web": "web.shop.svc.cluster.local.", "a.b.c.d.e.f": "nowhere."}.get(name, name.rstrip(".") + ".")
    _, asked = walk(name, only(found), model=model)

    assert sum(len(ask.types) for ask in asked) == queries


def test_musl_asks_all_servers_at_once_and_takes_only_a_real_answer() -> None:
    conf = msgspec.structs.replace(CONF, nameservers=("192.0.2.1", "192.0.2.2"))
    _, asked = walk("web", only("web.shop.svc.cluster.local."), conf, model=MUSL)

    assert [(ask.servers, ask.sockets, ask.tries, ask.stubborn) for ask in asked] == [
        (("192.0.2.1", "192.0.2.2"), "one", 2, True)
    ]


@pytest.mark.parametrize(
    ("model", "status", "names"),
    [(MUSL, "no data", 2), (GO, "not found", 4), (resolvers.glibc, "no data", 4)],
    ids=["musl stops", "go goes on", "glibc goes on"],
)
def test_nodata_at_a_search_name(model: Model, status: str, names: int) -> None:
    result, asked = walk(
        "kube-system",
        lambda ask, kind: "NODATA" if ask.name.startswith("kube-system.svc.") else "NXDOMAIN",
        model=model,
    )

    assert (result.status, len(asked)) == (status, names)


@pytest.mark.parametrize(
    ("model", "status"), [(MUSL, "not found"), (GO, "found"), (resolvers.glibc, "found")], ids=["musl", "go", "glibc"]
)
def test_one_family_that_does_not_exist(model: Model, status: str) -> None:
    result, _ = walk("web", lambda ask, kind: "10.96.0.5" if kind == "A" else "NXDOMAIN", model=model)

    assert result.status == status


@pytest.mark.parametrize(("model", "names"), [(MUSL, 1), (GO, 4), (resolvers.glibc, 2)], ids=["musl", "go", "glibc"])
def test_how_far_the_search_goes_on_in_silence(model: Model, names: int) -> None:
    result, asked = walk("web", lambda ask, kind: "timeout", model=model)

    assert (result.status, len({ask.name for ask in asked})) == ("try again", names)


@pytest.mark.parametrize(
    ("model", "answers"), [(MUSL, ("10.0.0.1",)), (resolvers.old_musl, ()), (GO, ("10.0.0.1",))],
    ids=["musl", "musl-1.2.3", "go"],
)  # fmt: skip
def test_truncated_replies_elsewhere(model: Model, answers: tuple[str, ...]) -> None:
    result, _ = walk("web", lambda ask, kind: "TC" if ask.transport == "udp" else "10.0.0.1", CONF, ("A",), model)

    assert result.addresses == answers


def test_go_sends_each_question_from_a_socket_of_its_own_with_edns() -> None:
    _, asked = walk("web", only("web.shop.svc.cluster.local."), model=GO)

    assert [(ask.sockets, ask.edns) for ask in asked] == [("each", 1232)]


def test_go_asks_the_next_server_only_what_the_first_could_not_say() -> None:
    conf = msgspec.structs.replace(CONF, nameservers=("192.0.2.1", "192.0.2.2"))
    _, asked = walk(
        "web.",
        lambda ask, kind: "NODATA" if kind == "A" else "10.0.0.1" if ask.servers[0].endswith("2") else "SERVFAIL",
        conf,
        model=GO,
    )

    assert [(ask.servers[0], ask.types) for ask in asked] == [("192.0.2.1", ("A", "AAAA")), ("192.0.2.2", ("AAAA",))]


@pytest.mark.parametrize(
    ("model", "status", "names"), [(resolvers.glibc, "not found", 1), (MUSL, "no data", 1), (GO, "not found", 4)],
    ids=["glibc", "musl", "go"],
)  # fmt: skip
def test_an_alias_that_leads_nowhere(model: Model, status: str, names: int) -> None:
    result, asked = walk("gone", lambda ask, kind: "ALIAS", model=model)

    assert (result.status, len(asked)) == (status, names)


def test_musl_looks_up_other_types_without_searching() -> None:
    _, asked = walk("_http._tcp.web", lambda ask, kind: "NXDOMAIN", types=("SRV",), model=MUSL)

    assert [ask.name for ask in asked] == ["_http._tcp.web."]


def test_resolv_conf_is_read_as_glibc_reads_it() -> None:
    text = (
        "# comment\nnameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
        "search old\nsearch shop.svc.cluster.local svc.cluster.local.\noptions ndots:5 timeout:1\n"
        "options attempts:9 single-request-reopen use-vc rotate nonsense ndots:x\n"
    )

    assert resolvers.parse_resolv_conf(text) == ResolvConf(
        nameservers=("10.96.0.10", "192.0.2.1", "192.0.2.2"), search=("shop.svc.cluster.local", "svc.cluster.local"),
        ndots=5, timeout=1, attempts=5, rotate=True, single_request=True, single_request_reopen=True, use_vc=True,
    )  # fmt: skip


def test_an_empty_resolv_conf_means_the_machine_itself() -> None:
    assert resolvers.parse_resolv_conf("") == ResolvConf()


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
    assert "web.shop.svc.cluster.local. A  ->  NOERROR A 10.96.0.5" in lines[1]
    assert "NODATA" in lines[2]
    assert lines[3].startswith("found: 10.96.0.5 as web.shop.svc.cluster.local. after 2 queries")


async def test_types_may_be_numbers(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    async with cluster_server() as (to, _):
        lines = dig.render(
            await dig.lookup("web.", types=["TYPE1", "CAA"], resolv_conf=resolv, hosts=hosts, port=to.ports[53])
        )

    assert "web. TYPE1  ->  " in lines[1]
    assert "web. CAA  ->  " in lines[2]


async def test_a_type_that_is_none_is_refused(tmp_path: Path) -> None:
    resolv, _ = files(tmp_path)
    with pytest.raises(ValueError, match="'FOO' is not a record type"):
        await dig.lookup("web", types=["FOO"], resolv_conf=resolv)


async def test_no_name_is_refused(tmp_path: Path) -> None:
    resolv, _ = files(tmp_path)
    with pytest.raises(ValueError, match="there is no name to look up"):
        await dig.lookup("", resolv_conf=resolv)


async def test_the_hosts_file_comes_first(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)

    found = await dig.lookup("Client.alias", resolv_conf=resolv, hosts=hosts)

    assert (found.steps, found.result.addresses) == ((), ("10.244.1.7",))


@pytest.mark.parametrize(
    ("name", "types", "model", "said"),
    [
        ("10.96.0.1", ("A", "AAAA"), "glibc", "found: 10.96.0.1 as it stands after 0 queries"),
        ("FD00:0::1", ("A", "AAAA"), "musl", "found: fd00::1 as it stands after 0 queries"),
        ("127.1", ("A",), "musl", "found: 127.0.0.1 as it stands after 0 queries"),
        ("192.0.2.1", ("A",), "go", "found: 192.0.2.1 as it stands after 0 queries"),
        ("192.0.2.1", ("AAAA",), "glibc", "not found after 0 queries"),
    ],
)
async def test_an_address_is_its_own_answer(
    tmp_path: Path, name: str, types: tuple[str, ...], model: str, said: str
) -> None:
    resolv, hosts = files(tmp_path)
    lines = dig.render(await dig.lookup(name, types=types, resolv_conf=resolv, hosts=hosts, resolver=model))

    assert lines[-1].startswith(said)


@pytest.mark.parametrize(("name", "model"), [("127.1", "go"), ("10.0.0.1.", "glibc"), ("web", "musl"), ("1 2", "musl")])
async def test_what_only_looks_like_an_address_is_a_name(name: str, model: str) -> None:
    assert resolvers.literal(name, model) == ""


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


class Scripted(asyncio.DatagramProtocol):
    """A DNS server that answers its n-th question with the n-th rcode, and is silent afterwards."""

    def __init__(self, *rcodes: int) -> None:
        self.rcodes = list(rcodes)
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        if self.rcodes:
            flags = 0x8400 | self.rcodes.pop(0)
            self.transport.sendto(data[:2] + flags.to_bytes(2, "big") + data[4:], addr)


@contextlib.asynccontextmanager
async def scripted(*servers: Scripted) -> AsyncIterator[int]:
    """The servers on 127.0.0.1, 127.0.0.2, ... and one port, which is given."""
    loop, port, opened = asyncio.get_running_loop(), 0, []
    for number, server in enumerate(servers, 1):
        transport, _ = await loop.create_datagram_endpoint(
            lambda server=server: server,  # type: ignore[misc]
            local_addr=(f"127.0.0.{number}", port),
        )
        port = transport.get_extra_info("sockname")[1]
        opened.append(transport)
    yield port
    for transport in opened:
        transport.abort()
    await asyncio.sleep(0)


def musl_files(tmp_path: Path, servers: int) -> Path:
    path = tmp_path / "resolv.conf"
    lines = [f"nameserver 127.0.0.{number}\n" for number in range(1, servers + 1)]
    path.write_text("".join(lines) + "options timeout:1 attempts:2\n")
    return path


async def test_musl_takes_the_first_usable_answer_of_any_server(tmp_path: Path) -> None:
    refusing, knowing = Scripted(5), Scripted(3)
    async with scripted(refusing, knowing) as port:
        found = await dig.lookup(
            "web.", types=["A"], resolv_conf=musl_files(tmp_path, 2), hosts=None, port=port, resolver="musl"
        )

    assert (found.result.status, refusing.asked, knowing.asked) == ("not found", 1, 1)
    assert found.steps[-1].reply.server == "127.0.0.2"


async def test_musl_asks_again_at_once_after_a_server_failure_and_then_waits(tmp_path: Path) -> None:
    failing = Scripted(*[2] * 99)
    async with scripted(failing) as port:
        found = await dig.lookup(
            "web.", types=["A"], resolv_conf=musl_files(tmp_path, 1), hosts=None, port=port, resolver="musl"
        )

    # Two tries, each sent once and repeated twice.
    assert (found.result.status, failing.asked, 0.9 < found.seconds < 2) == ("try again", 6, True)


async def test_musl_waits_where_nobody_listens(tmp_path: Path) -> None:
    found = await dig.lookup(
        "web.", types=["A"], resolv_conf=musl_files(tmp_path, 1), hosts=None, port=9, resolver="musl"
    )

    assert (found.result.status, {step.reply.outcome for step in found.steps}) == ("try again", {"timeout"})


async def test_tcp_and_edns_overrule_the_resolver(tmp_path: Path) -> None:
    resolv, hosts = files(tmp_path)
    async with cluster_server() as (to, _):
        found = await dig.lookup(
            "web", resolv_conf=resolv, hosts=hosts, port=to.ports[53], resolver="go", transport="tcp", edns=0
        )

    assert (found.result.status, {step.transport for step in found.steps}) == ("found", {"tcp"})


async def test_an_unknown_resolver_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    resolv, _ = files(tmp_path)
    with pytest.raises(ValueError, match=r"'java' is not a resolver; expected glibc, musl"):
        await dig.lookup("web", resolv_conf=resolv, resolver="java")

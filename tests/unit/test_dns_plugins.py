"""Plugins of the DNS server, one Corefile each: question in, full answer out."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest

from netemu.dns import wire
from netemu.dns.plugins import dns64
from netemu.dns.server import Server
from netemu.model.errors import UserError
from tests.unit.dns_chain import Bench, bench, lines, query
from tests.unit.test_dns_server import Socket, exchange, question, serving

SOURCE = """
template IN A example.org {
    match ^www[.]
    answer "www.example.org. 60 IN A 192.0.2.1"
    authority "example.org. 60 IN NS ns.example.org."
    additional "ns.example.org. 60 IN A 192.0.2.53"
    fallthrough
}
template IN ANY example.org {
    rcode NXDOMAIN
    authority "example.org. 60 IN SOA ns.example.org. root.example.org. 1 2 3 4 5"
}
"""
"""Something to ask."""


def block(text: str) -> str:
    """A server block for everything."""
    return f".:53 {{\n{text}\n}}"


# --- what is answered --------------------------------------------------------------------------------------------

LOCAL = f"local\n{SOURCE}"
LOCAL_SOA = "604800 IN SOA localhost. root.localhost. 1 0 0 0 604800"
ANSWERS = [
    ("any", "www.example.org ANY", 'NOERROR\nwww.example.org. 8482 IN HINFO "ANY obsoleted" "See RFC 8482"'),
    ("any", "no.such.name ANY", 'NOERROR\nno.such.name. 8482 IN HINFO "ANY obsoleted" "See RFC 8482"'),
    ("any\n" + SOURCE, "absent.example.org A", """NXDOMAIN aa
        authority example.org. 60 IN SOA ns.example.org. root.example.org. 1 2 3 4 5"""),
    ("minimal\n" + SOURCE, "www.example.org A", "NOERROR aa\nwww.example.org. 60 IN A 192.0.2.1"),
    ("minimal\n" + SOURCE, "absent.example.org A", """NXDOMAIN aa
        authority example.org. 60 IN SOA ns.example.org. root.example.org. 1 2 3 4 5"""),
    ("header {\nresponse set ra\nresponse clear aa\n}\n" + SOURCE, "www.example.org A", """NOERROR ra
        www.example.org. 60 IN A 192.0.2.1
        authority example.org. 60 IN NS ns.example.org.
        additional ns.example.org. 60 IN A 192.0.2.53"""),
    ("header {\nset ra\nclear ra\n}\nminimal\n" + SOURCE, "www.example.org A",
     "NOERROR aa\nwww.example.org. 60 IN A 192.0.2.1"),
    (LOCAL, "localhost A", "NOERROR\nlocalhost. 604800 IN A 127.0.0.1"),
    (LOCAL, "LocalHost AAAA", "NOERROR\nLocalHost. 604800 IN AAAA ::1"),
    (LOCAL, "localhost MX", f"NOERROR\nauthority localhost. {LOCAL_SOA}"),
    (LOCAL, "localhost SOA", f"NOERROR\nlocalhost. {LOCAL_SOA}"),
    (LOCAL, "127.in-addr.arpa NS", "NOERROR\n127.in-addr.arpa. 604800 IN NS localhost."),
    (LOCAL, "127.in-addr.arpa A", f"NOERROR\nauthority 127.in-addr.arpa. {LOCAL_SOA}"),
    (LOCAL, "1.0.0.127.in-addr.arpa PTR", "NOERROR\n1.0.0.127.in-addr.arpa. 604800 IN PTR localhost."),
    (LOCAL, "1.0.0.127.in-addr.arpa A", f"NOERROR\nauthority 127.in-addr.arpa. {LOCAL_SOA}"),
    (LOCAL, "2.0.0.127.in-addr.arpa PTR", f"NXDOMAIN\nauthority 127.in-addr.arpa. {LOCAL_SOA}"),
    (LOCAL, "x.localhost A", f"NXDOMAIN\nauthority localhost. {LOCAL_SOA}"),
    (LOCAL, "localhost.shop.svc.cluster.local A", "NOERROR\nlocalhost.shop.svc.cluster.local. 604800 IN A 127.0.0.1"),
    (LOCAL, "localhost.example.org TXT", f"NOERROR\nauthority localhost.example.org. {LOCAL_SOA}"),
    (LOCAL, "localhosts.example.org A", """NXDOMAIN aa
        authority example.org. 60 IN SOA ns.example.org. root.example.org. 1 2 3 4 5"""),
]  # fmt: skip


@pytest.mark.parametrize(("corefile", "question", "wanted"), ANSWERS)
async def test_what_is_answered(corefile: str, question: str, wanted: str) -> None:
    async with bench(block(corefile)) as to:
        assert await to.text(question) == lines(wanted)


CHAOS = [
    ("chaos", "version.bind", ["netemu-"]),
    ("chaos 1.2 me you", "VERSION.server", ["1.2"]),
    ("chaos 1.2 me you", "authors.bind", ["me", "you"]),
    ("chaos", "id.server", [socket.gethostname()]),
    ("chaos", "hostname.bind", [socket.gethostname()]),
    ("chaos", "www.example.org", []),
]


@pytest.mark.parametrize(("corefile", "name", "wanted"), CHAOS)
async def test_who_answers_in_class_chaos(corefile: str, name: str, wanted: list[str]) -> None:
    async with bench(block(corefile)) as to:
        found = (await to.ask(f"{name} TXT", cls=3)).answers
        ordinary = await to.ask(f"{name} TXT")

    texts = sorted(wire.strings(record.rdata)[0].decode() for record in found)
    assert [text.startswith(start) for text, start in zip(texts, wanted, strict=True)] == [True] * len(wanted)
    assert ({record.cls for record in found} <= {3}, ordinary.rcode) == (True, wire.SERVFAIL)


@pytest.mark.parametrize(
    ("line", "offered", "limit"),
    [("bufsize", 4096, 1232), ("bufsize", 1000, 1000), ("bufsize 512", 4096, 512), ("bufsize", None, 512)],
)
async def test_no_reply_is_larger_than_the_network_carries(line: str, offered: int | None, limit: int) -> None:
    asked = query("x.test A", edns=offered) if offered else query("x.test A")
    async with bench(block(f"{line}\nwhoami")) as to:
        await to.resolve(asked, 53)

    assert asked.limit == limit


async def test_what_the_client_did_not_desire_can_be_asked_for() -> None:
    asked = query("x.test A")
    async with bench(block("header {\nquery clear rd\n}\nwhoami")) as to:
        await to.resolve(asked, 53)

    assert asked.flags & wire.RD == 0


# --- acl ---------------------------------------------------------------------------------------------------------

ALLOWED = "NOERROR aa"
ACL = [
    ("block net 10.0.0.0/8", "10.1.2.3", "A", "REFUSED"),
    ("block net 10.0.0.0/8", "192.0.2.9", "A", ALLOWED),
    ("block net 10.1.2.3", "10.1.2.3", "A", "REFUSED"),
    ("block net 10.1.2.3", "10.1.2.4", "A", ALLOWED),
    ("block net fd00::/8", "fd00::1", "A", "REFUSED"),
    ("block net fd00::/8", "10.1.2.3", "A", ALLOWED),
    ("block type A net *", "10.1.2.3", "A", "REFUSED"),
    ("block type MX TXT", "10.1.2.3", "A", ALLOWED),
    ("block type MX A net 192.0.2.0/24 10.0.0.0/8", "10.1.2.3", "A", "REFUSED"),
    ("block", "10.1.2.3", "A", "REFUSED"),
    ("block type *", "fe80::1%eth0", "A", "REFUSED"),
    ("filter net 10.0.0.0/8", "10.1.2.3", "A", "NOERROR"),
    ("drop net 10.0.0.0/8", "10.1.2.3", "A", "silence"),
    ("allow net 10.1.0.0/16\nblock", "10.1.2.3", "A", ALLOWED),
    ("allow net 10.1.0.0/16\nblock", "10.2.2.3", "A", "REFUSED"),
    ("block net 10.0.0.0/8\nallow net 10.1.2.3", "10.1.2.3", "A", "REFUSED"),
    ("block\n}\nacl example.org {\nallow", "10.1.2.3", "A", "REFUSED"),
    ("allow\n}\nacl {\nblock", "10.1.2.3", "A", ALLOWED),
    ("allow net 192.0.2.1\n}\nacl {\nblock", "10.1.2.3", "A", "REFUSED"),
]


@pytest.mark.parametrize(("rules", "client", "kind", "wanted"), ACL)
async def test_who_may_ask(rules: str, client: str, kind: str, wanted: str) -> None:
    async with bench(block(f"acl {{\n{rules}\n}}\n{SOURCE}")) as to:
        assert (await to.text(f"www.example.org {kind}", client)).splitlines()[0] == wanted


async def test_an_acl_speaks_of_its_zones_only() -> None:
    async with bench(block(f"acl example.net {{\nblock\n}}\n{SOURCE}")) as to:
        assert (await to.ask("www.example.org A")).rcode == wire.NOERROR


async def test_a_blocked_question_says_why_and_is_counted() -> None:
    async with bench(block("acl {\nblock\n}\nany")) as to:
        options = (await to.ask("www.example.org ANY")).options
        metrics = to.metrics.text()

    assert options == b"\0\x0f\0\x02\0\x0f"
    assert 'coredns_acl_blocked_requests_total{server="dns://:53",zone=".",view=""} 1' in metrics


async def test_answers_behind_an_acl_are_not_kept_for_everybody() -> None:
    async with bench(block("acl {\nblock net 192.0.2.1\n}\nany")) as to:
        guarded = await to.ask("www.example.org ANY")
    async with bench(block("any")) as to:
        free = await to.ask("www.example.org ANY")

    assert (guarded.stable, free.stable) == (False, True)


# --- erratic -----------------------------------------------------------------------------------------------------

ERRATIC = [
    ("", ["silence", "NOERROR aa", "silence", "NOERROR aa"]),
    ("{\ndrop 3\n}", ["silence", "NOERROR aa", "NOERROR aa", "silence"]),
    ("{\ndrop 0\n}", ["NOERROR aa"] * 4),
    ("{\ntruncate\n}", ["NOERROR aa tc", "NOERROR aa", "NOERROR aa tc", "NOERROR aa"]),
    ("{\ntruncate 3\ndrop\n}", ["silence", "NOERROR aa", "silence", "NOERROR aa tc"]),
    ("{\ndelay 2 1ms\n}", ["NOERROR aa"] * 4),
]


@pytest.mark.parametrize(("options", "wanted"), ERRATIC)
async def test_every_nth_answer_is_spoiled(options: str, wanted: list[str]) -> None:
    async with bench(block(f"erratic {options}")) as to:
        seen = [(await to.text("x.test A")).splitlines()[0] for _ in wanted]

    assert seen == wanted


async def test_erratic_has_one_address_per_family_and_nothing_else() -> None:
    async with bench(block("erratic {\ndrop 0\nlarge\n}")) as to:
        found = [await to.text(f"x.test {kind}") for kind in ("AAAA", "MX")]
        large = await to.ask("x.test A")

    assert found == ["NOERROR aa\nx.test. 0 IN AAAA 2001:db8::53", "SERVFAIL"]
    assert len(large.answers) == 30


async def test_silence_is_not_cached() -> None:
    async with bench(block("cache\nerratic")) as to:
        seen = [(await to.text("x.test A")).splitlines()[0] for _ in range(2)]

    assert seen == ["silence", "NOERROR aa"]


# --- dns64 -------------------------------------------------------------------------------------------------------

FOUR = """
template IN A four.test {
    answer "{{ .Name }} 900 CNAME a.test." "a.test. 900 A 192.0.2.33" "a.test. 30 A 10.0.0.1"
}
template IN AAAA four.test {
    authority "test. 60 SOA ns. root. 1 2 3 4 300"
}
template IN AAAA six.test {
    answer "{{ .Name }} 60 AAAA 2001:db8::1"
}
template IN A six.test {
    answer "{{ .Name }} 60 A 192.0.2.1"
}
template ANY ANY {
    rcode NXDOMAIN
}
"""
MADE_UP = """NOERROR aa
    four.test. 900 IN CNAME a.test.
    a.test. 300 IN AAAA {}
    a.test. 30 IN AAAA {}"""
NAT64 = [
    ("", "four.test AAAA", MADE_UP.format("64:ff9b::c000:221", "64:ff9b::a00:1")),
    ("2001:db8:100::/40", "four.test AAAA", MADE_UP.format("2001:db8:1c0:2:21::", "2001:db8:10a:0:1::")),
    ("{\nprefix 2001:db8::/96\n}", "four.test AAAA", MADE_UP.format("2001:db8::c000:221", "2001:db8::a00:1")),
    ("", "six.test AAAA", "NOERROR aa\nsix.test. 60 IN AAAA 2001:db8::1"),
    ("{\ntranslate_all\n}", "six.test AAAA", "NOERROR aa\nsix.test. 60 IN AAAA 64:ff9b::c000:201"),
    ("", "gone.test AAAA", "NXDOMAIN aa"),
    ("", "six.test A", "NOERROR aa\nsix.test. 60 IN A 192.0.2.1"),
]


@pytest.mark.parametrize(("options", "question", "wanted"), NAT64)
async def test_addresses_are_made_up(options: str, question: str, wanted: str) -> None:
    async with bench(block(f"dns64 {options}\n{FOUR}")) as to:
        assert await to.text(question, "fd00::1") == lines(wanted)


@pytest.mark.parametrize(("options", "count"), [("", 0), ("{\nallow_ipv4\n}", 3)])
async def test_clients_that_ask_over_ipv4_know_better(options: str, count: int) -> None:
    async with bench(block(f"dns64 {options}\n{FOUR}")) as to:
        assert len((await to.ask("four.test AAAA")).answers) == count


# RFC 6052, 2.4: the same address behind a prefix of every length.
@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
    ],
)
def test_an_address_behind_a_prefix(prefix: str, wanted: str) -> None:
    found = dns64.embedded(ipaddress.IPv6Network(prefix), bytes((192, 0, 2, 33)))

    assert ipaddress.ip_address(found) == ipaddress.ip_address(wanted)


# --- over sockets ------------------------------------------------------------------------------------------------


async def asked_from(address: str, to: Server, packet: bytes) -> asyncio.Queue[bytes]:
    """The replies to a packet from one of this machine's addresses, once the server has answered one to 127.0.0.1."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Socket, local_addr=(address, 0), remote_addr=("127.0.0.1", to.ports[53])
    )
    transport.sendto(packet)
    await exchange(to, question("barrier.test", "MX"))
    transport.abort()
    await asyncio.sleep(0)
    return protocol.replies


async def test_a_kept_answer_is_for_those_alone_who_may_have_it() -> None:
    packet = question("www.test", "ANY")
    rules = "acl {\nblock type ANY net 127.0.0.2\ndrop type ANY net 127.0.0.3\n}\nany\nerratic {\ndrop 0\n}"
    async with serving(block(f"bind 127.0.0.1\n{rules}")) as to:
        for _ in range(2):
            allowed = await asked_from("127.0.0.1", to, packet)
            blocked = await asked_from("127.0.0.2", to, packet)
            dropped = await asked_from("127.0.0.3", to, packet)
            codes = [each.get_nowait()[3] & 15 for each in (allowed, blocked)]

            assert (codes, dropped.qsize()) == ([wire.NOERROR, wire.REFUSED], 0)


# --- refusals ----------------------------------------------------------------------------------------------------

REFUSALS = [
    ("bufsize 100", "Corefile:2: bufsize: '100' is not a number from 512 to 4096"),
    ("header", "Corefile:2: header: expected at least one rule, for example `response set ra`"),
    ("header {\nresponse set ar\n}", "Corefile:3: response: unknown flag 'ar'; expected aa, ra or rd"),
    ("header {\nquery\n}", "Corefile:3: query: expected [query|response] set|clear FLAG..."),
    ("header {\nrespond set ra\n}", "Corefile:3: unknown option 'respond'; did you mean \"response\"?"),
    ("dns64 64:ff9b::/95", "Corefile:2: dns64: '64:ff9b::/95' is not an IPv6 prefix of length 32, 40, 48, 56, 64, 96"),
    (
        "dns64 {\nprefix 10.0.0.0/8\n}",
        "Corefile:3: prefix: '10.0.0.0/8' is not an IPv6 prefix of length 32, 40, 48, 56, 64, 96",
    ),
    ("any all", "Corefile:2: any takes no arguments"),
    ("minimal {\nx\n}", "Corefile:2: minimal takes no arguments"),
    ("local x", "Corefile:2: local takes no arguments"),
    ("acl", "Corefile:2: acl: expected at least one rule, for example `block type ANY net 10.0.0.0/8`"),
    ("acl {\nblok\n}", "Corefile:3: unknown action 'blok'; did you mean \"block\"?"),
    ("acl {\nblock typ A\n}", "Corefile:3: block: unknown word 'typ'; expected type or net"),
    ("acl {\nblock type AAA\n}", "Corefile:3: block: unknown type 'AAA'; did you mean \"AAAA\"?"),
    ("acl {\nblock net 10.0.0\n}", "Corefile:3: block: '10.0.0' is neither an address nor a range like 10.0.0.0/8"),
    ("acl {\nblock net\n}", "Corefile:3: block: net needs at least one value, or *"),
    ("erratic 2", "Corefile:2: erratic takes no arguments; its options stand in a block"),
    ("erratic {\ndrops\n}", "Corefile:3: unknown option 'drops'; did you mean \"drop\"?"),
    ("erratic {\ndrop x\n}", "Corefile:3: drop: expected [N]"),
    ("erratic {\ndelay 2 long\n}", "Corefile:3: delay: 'long' is not a duration like 100ms"),
]


@pytest.mark.parametrize(("corefile", "wanted"), REFUSALS)
def test_a_refusal_says_where_and_what_would_be_right(corefile: str, wanted: str) -> None:
    with pytest.raises(UserError) as refused:
        Bench(block(corefile))

    assert str(refused.value) == wanted

"""The rewrite plugin: what is asked instead, and what the client sees of it (nothing but the answer)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netemu.dns import edns, names, rewriting, wire
from netemu.dns.wire import Query, Response
from netemu.model.errors import UserError
from tests.unit.dns_chain import Bench, bench, lines, query

ZONE = """
hosts /nonexistent {
    192.0.2.1 www.example.org
    192.0.2.2 a-eu.example.org
    2001:db8::1 www.example.org
    ttl 60
}
"""
ALIASES = """
template IN SRV svc.example.org {
    answer "{{ .Name }} 60 IN SRV 0 100 80 host1.{{ .Name }}"
    additional "host1.{{ .Name }} 60 IN A 192.0.2.9"
}
template IN A alias.example.org {
    answer "{{ .Name }} 60 IN CNAME old.example.org."
    answer "old.example.org. 60 IN A 192.0.2.8"
}
template IN A new.example.org {
    answer "new.example.org. 30 IN A 192.0.2.7"
}
template IN TXT www.example.org {
    answer "www.example.org. 5 IN TXT text"
    authority "example.org. 600 IN NS ns.example.org."
}
template IN ANY broken.example.org {
    rcode NXDOMAIN
}
"""
WWW = "NOERROR aa\nwww.example.org. 60 IN A 192.0.2.1"

REWRITES = [
    # name: exact puts names back by itself
    ("name www.test www.example.org", "www.test A", "NOERROR aa\nwww.test. 60 IN A 192.0.2.1"),
    ("name www.test www.example.org", "WwW.TeSt A", "NOERROR aa\nWwW.TeSt. 60 IN A 192.0.2.1"),
    ("name www.test. www.example.org.", "www.test A", "NOERROR aa\nwww.test. 60 IN A 192.0.2.1"),
    ("name exact www.test www.example.org", "www.test AAAA", "NOERROR aa\nwww.test. 60 IN AAAA 2001:db8::1"),
    ("name exact www.test www.example.org", "x.www.test A", "SERVFAIL"),
    ("name www.test svc.example.org", "www.test SRV", """NOERROR aa
        www.test. 60 IN SRV 0 100 80 host1.www.test.
        additional host1.www.test. 60 IN A 192.0.2.9"""),
    # the others only with answer auto
    ("name suffix .test .example.org", "www.test A", WWW),
    ("name suffix .test .example.org answer auto", "www.test A", "NOERROR aa\nwww.test. 60 IN A 192.0.2.1"),
    ("name suffix .test .example.org answer auto", "svc.test SRV", """NOERROR aa
        svc.test. 60 IN SRV 0 100 80 host1.svc.test.
        additional host1.svc.test. 60 IN A 192.0.2.9"""),
    ("name prefix old- new-", "new-www.test A", "SERVFAIL"),
    ("name prefix eu- a-", "eu-eu.example.org A", "NOERROR aa\na-eu.example.org. 60 IN A 192.0.2.2"),
    ("name prefix eu- a- answer auto", "eu-eu.example.org A", "NOERROR aa\neu-eu.example.org. 60 IN A 192.0.2.2"),
    ("name substring test example answer auto", "www.test.org A", "NOERROR aa\nwww.test.org. 60 IN A 192.0.2.1"),
    ("name substring test example", "www.test.org A", WWW),
    (r"name regex (.*)[.](eu)[.]test {1}-{2}.example.org", "a.eu.test A",
     "NOERROR aa\na-eu.example.org. 60 IN A 192.0.2.2"),
    (r"name regex (.*)[.](eu)[.]test {1}-{2}.example.org answer auto", "a.eu.test A",
     "NOERROR aa\na.eu.test. 60 IN A 192.0.2.2"),
    (r"name regex (.*)[.]eu[.]test {1}-eu.example.org answer name (.*)-eu[.]example[.]org {1}.eu.test", "a.eu.test A",
     "NOERROR aa\na.eu.test. 60 IN A 192.0.2.2"),
    ("{\nname regex (.*)[.]eu[.]test {1}-eu.example.org\nanswer name (.*)-eu[.]example[.]org {1}.eu.test\n}",
     "a.eu.test A", "NOERROR aa\na.eu.test. 60 IN A 192.0.2.2"),
    ("name suffix .test .example.org answer auto answer value host1[.](.*) h.{1}", "svc.test SRV", """NOERROR aa
        svc.test. 60 IN SRV 0 100 80 h.svc.test.
        additional host1.svc.test. 60 IN A 192.0.2.9"""),
    ("name regex (.+)[.]test {1}..example.org", "www.test A", "SERVFAIL"),
    # rules after each other
    ("name a.test www.example.org\nrewrite name b.test www.example.org", "b.test A",
     "NOERROR aa\nb.test. 60 IN A 192.0.2.1"),
    ("name a.test www.example.org\nrewrite name a.test absent.example.org", "a.test A",
     "NOERROR aa\na.test. 60 IN A 192.0.2.1"),
    ("continue name a.test b.test\nrewrite name b.test www.example.org", "a.test A",
     "NOERROR aa\na.test. 60 IN A 192.0.2.1"),
    ("stop name a.test b.test\nrewrite name b.test www.example.org", "a.test A", "SERVFAIL"),
    ("continue name a.test www.example.org\nrewrite ttl www.example.org 7", "a.test A",
     "NOERROR aa\na.test. 7 IN A 192.0.2.1"),
    # type
    ("type MX A", "www.example.org MX", WWW),
    ("type ANY AAAA", "www.example.org A", WWW),
    # ttl
    ("ttl www.example.org 15", "www.example.org A", WWW.replace(" 60 ", " 15 ")),
    ("ttl exact www.example.org 0", "www.example.org A", WWW.replace(" 60 ", " 0 ")),
    ("ttl suffix .org 10-30", "www.example.org A", WWW.replace(" 60 ", " 30 ")),
    ("ttl prefix www 100-300", "www.example.org A", WWW.replace(" 60 ", " 100 ")),
    ("ttl substring example -30", "www.example.org A", WWW.replace(" 60 ", " 30 ")),
    ("ttl regex ^w+[.] 90-", "www.example.org A", WWW.replace(" 60 ", " 90 ")),
    ("ttl regex ^x 90", "www.example.org A", WWW),
    ("ttl suffix . 30-60", "www.example.org TXT", """NOERROR aa
        www.example.org. 30 IN TXT "text"
        authority example.org. 60 IN NS ns.example.org."""),
    # rcode
    ("rcode broken.example.org NXDOMAIN NOERROR", "broken.example.org A", "NOERROR aa"),
    ("rcode suffix .example.org NXDOMAIN SERVFAIL", "broken.example.org A", "SERVFAIL aa"),
    ("rcode suffix .example.org SERVFAIL REFUSED", "broken.example.org A", "NXDOMAIN aa"),
    # cname
    ("cname old.example.org new.example.org", "alias.example.org A", """NOERROR aa
        alias.example.org. 60 IN CNAME new.example.org.
        new.example.org. 30 IN A 192.0.2.7"""),
    ("cname regex (old)[.](.*) new.{2}", "alias.example.org A", """NOERROR aa
        alias.example.org. 60 IN CNAME new.example.org.
        new.example.org. 30 IN A 192.0.2.7"""),
    ("cname other.example.org new.example.org", "alias.example.org A", """NOERROR aa
        alias.example.org. 60 IN CNAME old.example.org.
        old.example.org. 60 IN A 192.0.2.8"""),
    ("cname suffix .example.org .example.net", "www.example.org A", WWW),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "question", "wanted"), REWRITES)
async def test_what_the_client_sees(rule: str, question: str, wanted: str) -> None:
    async with bench(f". {{\nrewrite {rule}\n{ALIASES}\n{ZONE}\n}}") as to:
        assert await to.text(question) == lines(wanted)


async def test_a_class_is_rewritten_where_other_classes_are_let_in() -> None:
    text = (
        '. {\nrewrite class CH IN\ntemplate IN A x.test {\nanswer "x.test. 1 IN A 192.0.2.1"\n}\nforward . 192.0.2.1\n}'
    )
    async with bench(text) as to:
        found = await to.text("x.test A", cls=3)

    assert found == "NOERROR aa\nx.test. 1 IN A 192.0.2.1"


async def test_the_cache_keeps_what_the_client_saw() -> None:
    async with bench(f". {{\ncache\nrewrite name a.test www.example.org\n{ZONE}\n}}") as to:
        first, second = await to.text("a.test A"), await to.text("a.test A")

    assert first == "NOERROR aa\na.test. 60 IN A 192.0.2.1"
    assert second.replace(" 59 ", " 60 ") == first


async def test_a_loop_of_aliases_ends() -> None:
    text = """. {
        rewrite cname b.test b.test
        template IN A test {
            answer "{{ .Name }} 1 IN CNAME b.test."
        }
    }"""
    async with bench(text) as to:
        response = await to.ask("a.test A")

    assert {record.type for record in response.answers} == {wire.CNAME}


OPTIONS = [
    ("local set 0xffee 0x61626364", [], [(0xFFEE, b"abcd")]),
    ("local set 65518 abcd", [(0xFFEE, b"old"), (1, b"x")], [(1, b"x"), (0xFFEE, b"abcd")]),
    ("local append 0xffee abcd", [(0xFFEE, b"old")], [(0xFFEE, b"old")]),
    ("local append 0xffee abcd revert", [(1, b"x")], [(1, b"x"), (0xFFEE, b"abcd")]),
    ("local replace 0xffee abcd", [(0xFFEE, b"old")], [(0xFFEE, b"abcd")]),
    ("local replace 0xffee abcd", [], []),
    ("local unset 0xffee", [(0xFFEE, b"old"), (1, b"x")], [(1, b"x")]),
    ("local set 1 {client_ip}", [], [(1, bytes((10, 244, 1, 9)))]),
    ("local set 1 {client_port}", [], [(1, b"\x9c\x40")]),
    ("local set 1 {qname}", [], [(1, b"www.test.")]),
    ("local set 1 {qtype}", [], [(1, b"\0\1")]),
    ("local set 1 {protocol}", [], [(1, b"udp")]),
    ("nsid set", [], [(3, b"")]),
    ("subnet set 20 56", [], [(8, b"\0\1\x14\0\x0a\xf4\0")]),
    ("subnet unset", [(8, b"\0\1\x14\0\x0a\xf4\0")], []),
]


@pytest.mark.parametrize(("rule", "sent", "wanted"), OPTIONS)
def test_what_options_go_along(rule: str, sent: list[tuple[int, bytes]], wanted: list[tuple[int, bytes]]) -> None:
    words = [word for word in rule.split() if word != "revert"]
    asked = query("www.test A")
    if sent:
        asked.edns = wire.Edns(1232, False, 0, b"", edns.build(sent))

    found = edns.edit(words).applied(asked) or asked

    assert edns.parse(found.edns.sent if found.edns else b"") == wanted


async def test_another_server_gets_the_options() -> None:
    seen: list[Query] = []

    class Upstream(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            seen.append(wire.parse_query(data))
            self.transport.sendto(wire.pack(seen[-1], Response(wire.NXDOMAIN)), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Upstream, local_addr=("127.0.0.1", 0))
    where = "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    async with bench(f". {{\nrewrite edns0 subnet set 24 56 revert\nforward . {where}\n}}") as to:
        response = await to.ask("www.test A")
    transport.close()
    await asyncio.sleep(0)

    assert response.rcode == wire.NXDOMAIN
    assert [edns.parse(each.edns.sent) for each in seen if each.edns] == [[(8, b"\0\1\x18\0\x0a\xf4\1")]]


def test_undoing_leaves_names_that_would_be_too_long() -> None:
    long = names.parse(".".join(["a" * 60] * 4))
    rename = rewriting.back(long, names.parse("b.test"))

    assert rename(names.parse("x.y.z.w.v.u.t.b.test")) == names.parse("x.y.z.w.v.u.t.b.test")


def test_ttls_change_in_every_section() -> None:
    record = wire.Record(names.ROOT, wire.A, 60, bytes(4))
    response = Response(answers=[record], authority=[record], additional=[record])

    rewriting.changed(response, rewriting.lifetimes(100, 200))

    assert {each.ttl for each in response.answers + response.authority + response.additional} == {100}


REFUSALS = [
    ("", "rewrite: expected [continue|stop] and one of name, type, class, ttl, rcode, cname, edns0"),
    ("continue", "rewrite: expected [continue|stop] and one of name, type, class, ttl, rcode, cname, edns0"),
    ("nmae a b", "rewrite: unknown field 'nmae'; did you mean \"name\"?"),
    ("name a", "rewrite: expected name [exact|prefix|suffix|substring|regex] FROM TO [answer ...]"),
    ("name sufix a b", "rewrite: unknown match 'sufix'; did you mean \"suffix\"?"),
    ("name regex ( b", "rewrite: '(' is not a regular expression: missing ), unterminated subpattern at position 0"),
    ("name regex (a) {2}", "rewrite: '{2}' uses group 2, but '(a)' has 1"),
    ("name suffix a b anser auto", "rewrite: unexpected 'anser'; expected answer auto, answer name or answer value"),
    ("name suffix a b answer", "rewrite: expected auto, name or value after answer"),
    ("name suffix a b answer auto answer name x y", "rewrite: answer auto and answer name cannot be combined"),
    ("type A", "rewrite: expected type FROM TO"),
    ("type A B", "rewrite: unknown type 'B'"),
    ("class IN XX", "rewrite: unknown class 'XX'; expected IN, CH, HS, NONE, ANY"),
    ("ttl a.test x", "rewrite: 'x' is not a TTL like 30, 30-300, 30- or -300"),
    ("ttl a.test 30-10", "rewrite: '30-10': the lower bound is above the upper one"),
    (
        "edns0 local",
        "rewrite: edns0: unknown action ''; expected local, nsid or subnet and set, append, replace, unset",
    ),
    (
        "edns0 locl set 1 2",
        "rewrite: edns0: expected local ACTION CODE DATA, nsid ACTION, or subnet ACTION BITS4 BITS6",
    ),
    ("edns0 local set 70000 x", "rewrite: edns0: 70000 is not an option code"),
    ("edns0 subnet set 24 129", "rewrite: edns0: '129' is not a number of bits from 0 to 128"),
    (
        "edns0 local set 1 {name}",
        "rewrite: unknown variable {name}; expected {qname}, {qtype}, {client_ip}, {client_port}, {protocol}",
    ),
    ("rcode a.test NXDOMAIN", "rewrite: expected rcode [exact|prefix|suffix|substring|regex] NAME FROM TO"),
    ("rcode a.test NXDOMAIN NOEROR", "rewrite: unknown response code 'NOEROR'; did you mean \"NOERROR\"?"),
]


@pytest.mark.parametrize(("rule", "wanted"), REFUSALS)
def test_a_refusal_says_where_and_what_would_be_right(rule: str, wanted: str) -> None:
    with pytest.raises(UserError) as refused:
        Bench(f". {{\nrewrite {rule}\n}}")

    assert str(refused.value) == f"Corefile:2: {wanted}"


# --- any name ----------------------------------------------------------------------------------------------------

EVERYTHING = """
rewrite continue name regex (.*)[.]test[.] {1}.example.org answer auto
rewrite continue name substring a b.c answer auto
rewrite continue name prefix x- y- answer auto answer value (.*)[.]org {1}.net
rewrite continue ttl suffix . 5-10
rewrite cname suffix .org .net
autopath RESOLV
local
any
minimal
loadbalance
template IN ANY {
    match ^(?P<first>[^.]*)[.](?P<rest>.*)$
    answer "{{ .Group.rest }} 1 IN CNAME {{ .Group.first }}.{{ .Zone }}"
    fallthrough
}
erratic {
    drop 0
}
"""
octets = st.binary(min_size=1, max_size=63)
wire_names = st.lists(octets, max_size=6).map(names.join).filter(lambda name: len(name) <= 255)
likely_names = st.lists(st.sampled_from([b"a", b"x-a", b"test", b"example", b"org", b"shop", b"localhost"]), max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=wire_names | likely_names.map(names.join), kind=st.sampled_from([1, 5, 12, 16, 28, 33, 255, 65280]))
def test_no_name_breaks_a_plugin(name: bytes, kind: int, tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("search shop.test test\n")
    question = Query(1, wire.RD, name, kind, client=("10.244.1.9", 40000))

    async def packed() -> tuple[bytes, str]:
        async with bench(f". {{\n{EVERYTHING.replace('RESOLV', str(resolv))}\n}}") as to:
            return wire.pack(question, await to.resolve(question, 53)), to.metrics.text()

    reply, metrics = asyncio.run(packed())

    assert reply[12 : 12 + len(name)] == name
    assert "coredns_panics_total 0" in metrics

"""What a zone says about names, and whole zones for secondaries."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from netemu.dns import names, wire, zonefile
from netemu.dns.plugins import transfer
from netemu.dns.zone import Zone
from netemu.model.errors import UserError
from netemu.model.resources import NAMESPACES, SERVICES
from netemu.testing.client import FakeClient
from tests.unit.dns_chain import Bench, bench, lines
from tests.unit.dns_cluster import port, service
from tests.unit.test_dns_server import serving

ORIGIN = names.parse("example.org")

# --- what a zone says ----------------------------------------------------------------------------------------------

ZONE = """
$TTL 60
@        SOA ns root 7 7200 1800 86400 30
         NS  ns
         MX  10 mail
ns       A   192.0.2.53
mail     A   192.0.2.25
www      A   192.0.2.1
         AAAA 2001:db8::1
alias    CNAME www
far      CNAME www.example.net.
chain    CNAME alias
round    CNAME round
dead     CNAME gone
*.wild   A   192.0.2.9
         TXT "star"
*.walias CNAME www
x.y.deep A   192.0.2.8
sub      NS  ns.sub
sub      NS  ns.example.net.
sub      DS  1 8 2 abcd
ns.sub   A   192.0.2.54
moved    DNAME www
_s._tcp  SRV 0 0 80 www
"""
SOA = "60 IN SOA ns.example.org. root.example.org. 7 7200 1800 86400 30"
NO = f"authority example.org. {SOA}"
NS = "authority example.org. 60 IN NS ns.example.org."
ANSWERS = [
    ("www.example.org A", f"NOERROR aa\nwww.example.org. 60 IN A 192.0.2.1\n{NS}"),
    ("wWw.Example.ORG A", f"NOERROR aa\nwWw.Example.ORG. 60 IN A 192.0.2.1\n{NS}"),
    ("example.org SOA", f"NOERROR aa\nexample.org. {SOA}\n{NS}"),
    ("example.org NS", """NOERROR aa
        example.org. 60 IN NS ns.example.org.
        additional ns.example.org. 60 IN A 192.0.2.53"""),
    ("example.org MX", f"""NOERROR aa
        example.org. 60 IN MX 10 mail.example.org.
        {NS}
        additional mail.example.org. 60 IN A 192.0.2.25"""),
    ("_s._tcp.example.org SRV", f"""NOERROR aa
        _s._tcp.example.org. 60 IN SRV 0 0 80 www.example.org.
        {NS}
        additional www.example.org. 60 IN A 192.0.2.1
        additional www.example.org. 60 IN AAAA 2001:db8::1"""),
    ("www.example.org TXT", f"NOERROR aa\n{NO}"),
    ("gone.example.org A", f"NXDOMAIN aa\n{NO}"),
    ("a.www.example.org A", f"NXDOMAIN aa\n{NO}"),
    ("deep.example.org A", f"NOERROR aa\n{NO}"),
    ("y.deep.example.org A", f"NOERROR aa\n{NO}"),
    ("alias.example.org A", f"""NOERROR aa
        alias.example.org. 60 IN CNAME www.example.org.
        www.example.org. 60 IN A 192.0.2.1
        {NS}"""),
    ("alias.example.org CNAME", f"NOERROR aa\nalias.example.org. 60 IN CNAME www.example.org.\n{NS}"),
    ("alias.example.org TXT", f"NOERROR aa\nalias.example.org. 60 IN CNAME www.example.org.\n{NS}"),
    ("chain.example.org A", f"""NOERROR aa
        chain.example.org. 60 IN CNAME alias.example.org.
        alias.example.org. 60 IN CNAME www.example.org.
        www.example.org. 60 IN A 192.0.2.1
        {NS}"""),
    ("far.example.org A", f"""NOERROR aa
        far.example.org. 60 IN CNAME www.example.net.
        www.example.net. 9 IN A 198.51.100.1
        {NS}"""),
    ("far.example.org AAAA", f"NXDOMAIN aa\nfar.example.org. 60 IN CNAME www.example.net.\n{NS}"),
    ("dead.example.org A", f"NXDOMAIN aa\ndead.example.org. 60 IN CNAME gone.example.org.\n{NS}"),
    ("a.wild.example.org A", f"NOERROR aa\na.wild.example.org. 60 IN A 192.0.2.9\n{NS}"),
    ("a.b.wild.example.org TXT", f'NOERROR aa\na.b.wild.example.org. 60 IN TXT "star"\n{NS}'),
    ("*.wild.example.org A", f"NOERROR aa\n*.wild.example.org. 60 IN A 192.0.2.9\n{NS}"),
    ("a.wild.example.org AAAA", f"NOERROR aa\n{NO}"),
    ("wild.example.org A", f"NOERROR aa\n{NO}"),
    ("a.walias.example.org A", f"""NOERROR aa
        a.walias.example.org. 60 IN CNAME www.example.org.
        www.example.org. 60 IN A 192.0.2.1
        {NS}"""),
    ("host.sub.example.org A", """NOERROR
        authority sub.example.org. 60 IN NS ns.sub.example.org.
        authority sub.example.org. 60 IN NS ns.example.net.
        additional ns.sub.example.org. 60 IN A 192.0.2.54"""),
    ("sub.example.org NS", """NOERROR
        authority sub.example.org. 60 IN NS ns.sub.example.org.
        authority sub.example.org. 60 IN NS ns.example.net.
        additional ns.sub.example.org. 60 IN A 192.0.2.54"""),
    ("sub.example.org DS", f"NOERROR aa\nsub.example.org. 60 IN DS \\# 6 00010802abcd\n{NS}"),
    ("moved.example.org DNAME",
     f"NOERROR aa\nmoved.example.org. 60 IN DNAME \\# 17 03777777076578616d706c65036f726700\n{NS}"),
    ("a.moved.example.org A", f"""NXDOMAIN aa
        moved.example.org. 60 IN DNAME \\# 17 03777777076578616d706c65036f726700
        a.moved.example.org. 60 IN CNAME a.www.example.org.
        {NS}"""),
    ("example.org AXFR", "REFUSED"),
    ("example.com A", "SERVFAIL"),
]  # fmt: skip
OUTSIDE = """
template IN A example.net {
    answer "{{ .Name }} 9 IN A 198.51.100.1"
}
template IN ANY example.net {
    rcode NXDOMAIN
}
"""


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """The zone file."""
    path = tmp_path / "db"
    path.write_text(ZONE)
    return path


@pytest.mark.parametrize(("question", "wanted"), ANSWERS)
async def test_what_a_zone_says(db: Path, question: str, wanted: str) -> None:
    async with bench(f". {{\nfile {db} example.org\n{OUTSIDE}\n}}") as to:
        assert await to.text(question) == lines(wanted)


async def test_an_alias_of_itself_ends(db: Path) -> None:
    async with bench(f". {{\nfile {db} example.org\n}}") as to:
        response = await to.ask("round.example.org A")

    assert (response.rcode, {record.rdata for record in response.answers}) == (0, {names.parse("round.example.org")})


async def test_a_name_that_is_not_there_falls_through(db: Path) -> None:
    text = f". {{\nfile {db} example.org {{\nfallthrough\n}}\nerratic {{\ndrop 0\n}}\n}}"
    async with bench(text) as to:
        found = [await to.text(question) for question in ("gone.example.org A", "www.example.org TXT")]

    assert found == ["NOERROR aa\ngone.example.org. 0 IN A 192.0.2.53", f"NOERROR aa\n{NO}"]


async def test_one_file_serves_several_zones(db: Path) -> None:
    async with bench(f"example.org example.net {{\nroot {db.parent}\nfile db\n}}") as to:
        found = [(await to.ask(f"www.{zone} A")).answers[0].name for zone in ("example.org", "example.net")]

    assert [names.text(name) for name in found] == ["www.example.org.", "www.example.net."]


def replaced(path: Path, text: str) -> None:
    """Another file in the place of one, as editors and ConfigMaps do it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


async def test_a_new_serial_is_read_and_kept_answers_are_void(db: Path) -> None:
    async with bench(f". {{\nfile {db} example.org {{\nreload 10ms\n}}\n}}") as to:
        before = await to.ask("www.example.org A")
        replaced(db, ZONE.replace("192.0.2.1\n", "192.0.2.2\n").replace("root 7 ", "root 8 "))
        async with asyncio.timeout(5):
            while (after := (await to.ask("www.example.org A")).answers[0].rdata) == before.answers[0].rdata:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert (before.stable, after) == (True, bytes((192, 0, 2, 2)))


async def test_a_bad_file_leaves_the_old_zone(db: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(f". {{\nfile {db} example.org {{\nreload 10ms\n}}\n}}") as to:
        replaced(db, "www A nonsense")
        async with asyncio.timeout(5):
            while "keeping the old example.org." not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        found = await to.ask("www.example.org A")

    assert found.answers[0].rdata == bytes((192, 0, 2, 1))


# --- transfer ------------------------------------------------------------------------------------------------------


def transferring(db: Path, rules: str = "to 10.244.0.0/16") -> str:
    return f"example.org {{\ntransfer {{\n{rules}\n}}\nfile {db}\n}}"


async def test_a_whole_zone_begins_and_ends_with_its_soa(db: Path) -> None:
    async with bench(transferring(db)) as to:
        records = (await to.ask("example.org AXFR", transport="tcp")).answers
        plain = Zone(ORIGIN, zonefile.parse(ZONE, ORIGIN)).records()

    assert [records[0].type, records[-1].type] == [wire.SOA, wire.SOA]
    assert sorted(records[1:-1]) == sorted(plain[1:])
    assert len(plain) == len([line for line in ZONE.strip().splitlines() if not line.startswith("$")])


WHO = [
    ("to *", {"transport": "udp"}, wire.REFUSED, 0),
    ("to *", {"transport": "tcp", "client": "fd00::1"}, 0, 23),
    ("to 10.244.1.9", {"transport": "tcp"}, 0, 23),
    ("to 10.244.1.8 10.244.1.7:5353", {"transport": "tcp"}, wire.REFUSED, 0),
    ("to 10.244.1.8\nto 10.244.0.0/16", {"transport": "tcp"}, 0, 23),
    ("to *\n}\ntransfer sub.example.org {\nto 192.0.2.1", {"transport": "tcp"}, 0, 23),
]


@pytest.mark.parametrize(("rules", "how", "rcode", "count"), WHO)
async def test_who_gets_a_zone(db: Path, rules: str, how: dict[str, Any], rcode: int, count: int) -> None:
    async with bench(transferring(db, rules)) as to:
        response = await to.ask("example.org AXFR", **how)

    assert (response.rcode, len(response.answers)) == (rcode, count)


@pytest.mark.parametrize(
    ("serial", "wanted"),
    [(7, (0, 1)), (8, (0, 1)), (6, (0, 23)), (7 + 2**31 + 1, (0, 23)), (None, (wire.SERVFAIL, 0))],
)
async def test_an_incremental_transfer_is_all_or_nothing(db: Path, serial: int | None, wanted: tuple[int, int]) -> None:
    async with bench(transferring(db)) as to:
        response = await to.ask("example.org IXFR", transport="tcp", serial=serial)

    assert (response.rcode, len(response.answers)) == wanted


async def test_a_zone_that_nobody_has_is_asked_for_behind(db: Path) -> None:
    async with bench(transferring(db)) as to:
        response = await to.ask("www.example.org AXFR", transport="tcp")

    assert response.rcode == wire.REFUSED


def test_a_large_zone_is_cut_into_messages() -> None:
    records = [wire.Record(ORIGIN, wire.TXT, 1, bytes(200)) for _ in range(1300)]

    parts = list(transfer.messages(records))

    assert [len(part) for part in parts] == [269, 269, 269, 269, 224]
    assert [record for part in parts for record in part] == records


async def test_a_large_zone_comes_in_several_messages(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_text("@ SOA ns root 1 2 3 4 5\n$GENERATE 1-1200 pod-$ 60 IN A 10.0.0.1\n")
    text = f"example.org:53 {{\nbind 127.0.0.1\ntransfer {{\nto *\n}}\nfile {path}\nloadbalance\n}}"
    records: list[wire.Record] = []
    sizes = []
    async with serving(text) as to, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", to.ports[53])
        packet = wire.build_query(9, ORIGIN, wire.AXFR)
        writer.write(struct.pack("!H", len(packet)) + packet)
        while [record.type for record in records].count(wire.SOA) < 2:
            message = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            part = wire.parse_message(message)
            records += part.answers
            sizes.append((part.id, len(part.answers)))
        writer.close()
        await writer.wait_closed()

    assert sizes == [(9, 500), (9, 500), (9, 202)]
    assert len({record.name for record in records}) == 1201


async def test_a_cluster_is_a_source_too() -> None:
    client = FakeClient()
    await client.create(NAMESPACES, {"metadata": {"name": "shop"}})
    await client.create(SERVICES, service("web", "10.96.0.5", port("http", 80)), "shop")
    text = "cluster.local {\ntransfer {\nto *\n}\nkubernetes\n}"
    async with bench(text, client) as to:
        while to.not_ready():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        found = (await to.ask("cluster.local AXFR", transport="tcp")).answers

    assert (found[0].type, found[-1]) == (wire.SOA, found[0])
    assert "web.shop.svc.cluster.local." in {names.text(record.name) for record in found if record.type == wire.A}


class Secondary(asyncio.DatagramProtocol):
    """Keeps what it is told, and says thanks."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.told.put_nowait(data)
        self.transport.sendto(data[:2] + bytes((data[2] | 0x80,)) + data[3:], addr)


async def test_peers_are_told_of_the_first_version_and_of_each_new_one(db: Path) -> None:
    loop = asyncio.get_running_loop()
    transport, secondary = await loop.create_datagram_endpoint(Secondary, local_addr=("127.0.0.1", 0))
    rules = f"to 127.0.0.1:{transport.get_extra_info('sockname')[1]} *"
    text = transferring(db, rules).replace(f"file {db}", f"file {db} {{\nreload 10ms\n}}")
    async with bench(text), asyncio.timeout(5):
        first = await secondary.told.get()
        replaced(db, ZONE.replace("root 7 ", "root 8 "))
        second = await secondary.told.get()
    transport.close()

    for packet in (first, second):
        assert (packet[2] >> 3 & 15, packet[2] & 4, packet[12:]) == (4, 4, ORIGIN + b"\0\x06\0\1")


# --- refusals ----------------------------------------------------------------------------------------------------

REFUSALS = [
    ("file", "Corefile:2: file: expected DBFILE [ZONES...]"),
    ("file /nonexistent/db", "Corefile:2: file: /nonexistent/db: No such file or directory"),
    ("file DB {\nrelaod 1s\n}", "Corefile:3: unknown option 'relaod'; did you mean \"reload\"?"),
    ("file BAD example.org", "Corefile:2: file: BAD: no SOA record for example.org."),
    ("transfer", "Corefile:2: transfer: expected `to` with who may have the zones, or *"),
    ("transfer {\nto\n}", "Corefile:3: to: expected addresses, ranges or *"),
    ("transfer {\nto nobody\n}", "Corefile:3: to: 'nobody' is neither an address nor a range like 10.0.0.0/8"),
    ("transfer {\nfrom *\n}", "Corefile:3: unknown option 'from'"),
]


@pytest.mark.parametrize(("corefile", "wanted"), REFUSALS)
def test_a_refusal_says_where_and_what_would_be_right(
    corefile: str, wanted: str, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad"
    bad.write_text("www 1 A 192.0.2.1\n")
    with pytest.raises(UserError) as refused:
        Bench(". {\n" + corefile.replace("DB ", f"{db} ").replace("BAD", str(bad)) + "\n}")

    assert str(refused.value) == wanted.replace("BAD", str(bad))


def test_a_zone_refuses_records_of_others() -> None:
    with pytest.raises(ValueError, match=r"www.example.net. is not in example.org."):
        Zone(ORIGIN, zonefile.parse("www.example.net. 1 A 192.0.2.1", ORIGIN))

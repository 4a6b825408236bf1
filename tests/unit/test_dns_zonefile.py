"""The language of zone files: text in, records out, and what is said about mistakes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.dns import names, wire, zonefile

ORIGIN = names.parse("example.org")


def shown(text: str, origin: bytes = ORIGIN) -> list[str]:
    """The records of a zone file, as text."""
    return [wire.record_text(record).replace("\t", " ") for record in zonefile.parse(text, origin)]


# --- the language --------------------------------------------------------------------------------------------------

RECORDS = [
    ("www 60 IN A 192.0.2.1", "www.example.org. 60 IN A 192.0.2.1"),
    ("www IN 60 A 192.0.2.1", "www.example.org. 60 IN A 192.0.2.1"),
    ("www A 192.0.2.1", "www.example.org. 3600 IN A 192.0.2.1"),
    ("www.example.net. 1h30m a 192.0.2.1", "www.example.net. 5400 IN A 192.0.2.1"),
    ("@ 1 IN NS ns", "example.org. 1 IN NS ns.example.org."),
    ("@ 1 IN NS ns.example.net.", "example.org. 1 IN NS ns.example.net."),
    ("* 1 AAAA 2001:DB8::1", "*.example.org. 1 IN AAAA 2001:db8::1"),
    (r"a\.b 1 A 192.0.2.1", r"a\.b.example.org. 1 IN A 192.0.2.1"),
    ("x 1 CH TXT hello", 'x.example.org. 1 CLASS3 TXT "hello"'),
    ("x 1 TXT one \"two ; (three)\" \"\"", 'x.example.org. 1 IN TXT "one" "two ; (three)" ""'),
    (r'x 1 TXT "say \"hi\" \065"', r'x.example.org. 1 IN TXT "say \"hi\" A"'),
    ("x 1 MX 10 mail", "x.example.org. 1 IN MX 10 mail.example.org."),
    ("_s._tcp 1 SRV 1 2 443 host", "_s._tcp.example.org. 1 IN SRV 1 2 443 host.example.org."),
    ("x 1 HINFO cpu os", 'x.example.org. 1 IN HINFO "cpu" "os"'),
    ("@ 1 SOA ns root (\n 1 ; serial\n 2h 3 4\n 5 )",
     "example.org. 1 IN SOA ns.example.org. root.example.org. 1 7200 3 4 5"),
    ("x 1 A \\# 4 C0000201", "x.example.org. 1 IN A 192.0.2.1"),
    ("x 1 TYPE65280 \\# 2 ab cd", "x.example.org. 1 IN TYPE65280 \\# 2 abcd"),
    ("x 1 CAA 0 issue \"ca.test\"", "x.example.org. 1 IN CAA \\# 14 0005697373756563612e74657374"),
    ("x 1 DS 1 8 2 AB CD", "x.example.org. 1 IN DS \\# 6 00010802abcd"),
    ("x 1 TLSA 3 1 1 abcd", "x.example.org. 1 IN TLSA \\# 5 030101abcd"),
    ("x 1 SSHFP 4 2 abcd", "x.example.org. 1 IN SSHFP \\# 4 0402abcd"),
    ("x 1 DNSKEY 257 3 13 qrs=", "x.example.org. 1 IN DNSKEY \\# 6 0101030daabb"),
    ("x 1 NAPTR 1 2 u s \"!a!b!\" .", "x.example.org. 1 IN NAPTR \\# 15 00010002017501730521612162210000"[:-2]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), RECORDS)
def test_a_record_is_read(text: str, wanted: str) -> None:
    assert shown(text) == [wanted]


FILES = [
    ("$TTL 5m\na A 192.0.2.1\n  A 192.0.2.2\n\nb 7 A 192.0.2.3", [
        "a.example.org. 300 IN A 192.0.2.1", "a.example.org. 300 IN A 192.0.2.2", "b.example.org. 7 IN A 192.0.2.3"]),
    ("$ORIGIN sub\na 1 A 192.0.2.1\n$ORIGIN example.net.\na 1 A 192.0.2.2", [
        "a.sub.example.org. 1 IN A 192.0.2.1", "a.example.net. 1 IN A 192.0.2.2"]),
    ("; only\n\n  ; comments\n", []),
    ("$GENERATE 1-3 pod-$ 1 A 10.0.0.$", [f"pod-{n}.example.org. 1 IN A 10.0.0.{n}" for n in (1, 2, 3)]),
    ("$GENERATE 0-4/2 h${8,3,d} 1 A 10.0.0.${8}", [f"h{n:03}.example.org. 1 IN A 10.0.0.{n}" for n in (8, 10, 12)]),
    ("$GENERATE 10-10 x 1 TXT $$ ${0,0,x}", ['x.example.org. 1 IN TXT "$" "a"']),
    ("a 1 A 192.0.2.1 ; no line end", ["a.example.org. 1 IN A 192.0.2.1"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), FILES)
def test_a_file_is_read(text: str, wanted: list[str]) -> None:
    assert shown(text) == wanted


def test_files_include_others(tmp_path: Path) -> None:
    (tmp_path / "hosts.inc").write_text("a 1 A 192.0.2.1\n")
    path = tmp_path / "db"
    text = "$INCLUDE hosts.inc\n$INCLUDE hosts.inc sub\nb 1 A 192.0.2.2"

    found = [names.text(record.name) for record in zonefile.parse(text, ORIGIN, str(path))]

    assert found == ["a.example.org.", "a.sub.example.org.", "b.example.org."]


MISTAKES = [
    ("a 1 A", "line 1: A: expected ADDRESS, got nothing"),
    ("a 1 A 1.2.3", "line 1: '1.2.3' does not appear to be an IPv4 or IPv6 address"),
    ("a 1 A ::1", "line 1: '::1' is not an IPv4 address"),
    ("\na 1 MX mail", "line 2: MX: expected PREFERENCE NAME, got mail"),
    ("a 1 BOGUS x", "line 1: unknown type 'BOGUS'"),
    ("a 1 HTTPS 1 .", "line 1: data of type HTTPS is only known as \\# LENGTH HEX"),
    ("a", "line 1: expected [NAME] [TTL] [CLASS] TYPE DATA"),
    ("  A 192.0.2.1", "line 1: the first record needs a name"),
    ("a 1 TXT \"x", "line 1: a quotation mark is not closed"),
    ("@ SOA a b (\n 1", "line 1: ( is not closed"),
    ("a 1 A 192.0.2.1 )", "line 1: ) without ("),
    ("a 1 A \\# 5 00", "line 1: \\#: the length does not fit the data"),
    ("$BOGUS x", "line 1: $BOGUS: expected $ORIGIN NAME, $TTL SECONDS, $INCLUDE FILE [NAME] or $GENERATE"),
    ("$GENERATE 5-1 a A 10.0.0.$", "line 1: $GENERATE: '5-1' is not a range like 1-10 or 0-100/2"),
    ("$TTL soon", "line 1: 'soon' is not a number of seconds, or like 1h30m"),
    (f"{'a' * 64} A 192.0.2.1", f"line 1: '{'a' * 64}' is not a domain name: a label has 1 to 63 characters"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), MISTAKES)
def test_a_mistake_is_named_with_its_line(text: str, wanted: str) -> None:
    with pytest.raises(zonefile.ZoneError) as refused:
        zonefile.parse(text, ORIGIN)

    assert str(refused.value) == wanted


@given(st.text(alphabet='a1.@$*;()"\\ \n\tAINSOTX', max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    found: list[wire.Record] = []
    with contextlib.suppress(zonefile.ZoneError):
        found = zonefile.parse(text, ORIGIN)

    assert all(record.name.endswith(b"\0") for record in found)

"""The plugins that answer from lines of the Corefile or of a small file: hosts, template, autopath."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from netemu.dns import gotemplate, names, wire
from netemu.dns.plugins.kubernetes import Kubernetes
from netemu.model.errors import UserError
from netemu.model.resources import NAMESPACES, PODS, SERVICES
from netemu.testing.client import FakeClient
from tests.unit.dns_chain import Bench, bench, lines
from tests.unit.dns_cluster import port, service

# --- hosts -------------------------------------------------------------------------------------------------------

HOSTS = """
192.0.2.1 www.example.org www   # a comment
192.0.2.2 www.example.org
2001:db8::1 www.example.org
192.0.2.3 Six.Example.Org
2001:db8::4 only6.example.org
nonsense line
192.0.2.9
fe80::1%eth0 link.example.org
"""
BEHIND = "erratic {\ndrop 0\n}"
ELSEWHERE = "NOERROR aa\n{} 0 IN A 192.0.2.53"
ANSWERS = [
    ("", "www.example.org A", """NOERROR aa
        www.example.org. 3600 IN A 192.0.2.1
        www.example.org. 3600 IN A 192.0.2.2"""),
    ("", "www A", "NOERROR aa\nwww. 3600 IN A 192.0.2.1"),
    ("", "six.example.org A", "NOERROR aa\nsix.example.org. 3600 IN A 192.0.2.3"),
    ("", "SIX.example.org AAAA", "NOERROR aa"),
    ("", "only6.example.org A", "NOERROR aa"),
    ("", "www.example.org MX", "NOERROR aa"),
    ("", "link.example.org AAAA", "NOERROR aa\nlink.example.org. 3600 IN AAAA fe80::1"),
    ("", "gone.example.org A", "SERVFAIL"),
    ("fallthrough", "gone.example.org A", ELSEWHERE.format("gone.example.org.")),
    ("fallthrough example.net", "gone.example.org A", "SERVFAIL"),
    ("fallthrough", "www.example.org MX", "NOERROR aa"),
    ("", "1.2.0.192.in-addr.arpa PTR", """NOERROR aa
        1.2.0.192.in-addr.arpa. 3600 IN PTR www.example.org.
        1.2.0.192.in-addr.arpa. 3600 IN PTR www."""),
    ("", "3.2.0.192.in-addr.arpa PTR", "NOERROR aa\n3.2.0.192.in-addr.arpa. 3600 IN PTR six.example.org."),
    ("", "8.2.0.192.in-addr.arpa PTR", "SERVFAIL"),
    ("no_reverse", "1.2.0.192.in-addr.arpa PTR", "SERVFAIL"),
    ("ttl 5", "www A", "NOERROR aa\nwww. 5 IN A 192.0.2.1"),
    ("192.0.2.7 inline", "inline A", "NOERROR aa\ninline. 3600 IN A 192.0.2.7"),
    ("192.0.2.7 www", "www A", "NOERROR aa\nwww. 3600 IN A 192.0.2.7\nwww. 3600 IN A 192.0.2.1"),
    ("2001:db8::7 inline\nreload 0s", "inline AAAA", "NOERROR aa\ninline. 3600 IN AAAA 2001:db8::7"),
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A hosts file."""
    path = tmp_path / "hosts"
    path.write_text(HOSTS)
    return path


@pytest.mark.parametrize(("options", "question", "wanted"), ANSWERS)
async def test_what_a_hosts_file_says(file: Path, options: str, question: str, wanted: str) -> None:
    async with bench(f". {{\nhosts {file} {{\n{options}\n}}\n{BEHIND}\n}}") as to:
        assert await to.text(question) == lines(wanted)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("www.example.org A", "NOERROR"),
        ("www A", "SERVFAIL"),
        ("4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR", "NOERROR"),
    ],
)
async def test_names_outside_of_its_zones_are_none_of_its_business(file: Path, question: str, wanted: str) -> None:
    async with bench(f". {{\nhosts {file} example.org\n}}") as to:
        assert wire.rcode_name((await to.ask(question)).rcode) == wanted


async def test_a_hosts_file_is_read_again_and_may_come_later(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    async with bench(f". {{\nhosts {path} {{\nreload 10ms\n}}\n}}") as to:
        before = await to.text("www A")
        new = tmp_path / "new"
        new.write_text("192.0.2.1 www")
        os.replace(new, path)
        async with asyncio.timeout(5):
            while (after := await to.text("www A")) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        metrics = to.metrics.text()

    assert (before, after) == ("SERVFAIL", "NOERROR aa\nwww. 3600 IN A 192.0.2.1")
    assert "coredns_hosts_entries 2" in metrics


# --- template ----------------------------------------------------------------------------------------------------

IP = r"match ^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)[.]example[.]org[.]$"
TEMPLATES = [
    (f'IN A example.org {{\n{IP}\nanswer "{{{{ .Name }}}} 60 IN A 10.0.{{{{ .Group.a }}}}.{{{{ .Group.b }}}}"\n}}',
     "IP-1-2.Example.org A", "NOERROR aa\nip-1-2.example.org. 60 IN A 10.0.1.2"),
    (f'IN A example.org {{\n{IP}\nanswer "{{{{.Name}}}} A 10.0.{{{{index .Match 1}}}}.{{{{index .Group `b`}}}}"\n}}',
     "ip-1-2.example.org A", "NOERROR aa\nip-1-2.example.org. 3600 IN A 10.0.1.2"),
    (f"IN A example.org {{\n{IP}\n}}", "x.example.org A", "NXDOMAIN"),
    (f"IN A example.org {{\n{IP}\nfallthrough\n}}", "x.example.org A", ELSEWHERE.format("x.example.org.")),
    (f"IN A example.org {{\n{IP}\nfallthrough example.net\n}}", "x.example.org A", "NXDOMAIN"),
    ("IN A example.org {\nmatch ^no\nmatch ^x\n}", "x.example.org A", "NOERROR aa"),
    ("IN A example.org", "x.example.org A", "NOERROR aa"),
    ("IN A example.org", "x.example.net A", ELSEWHERE.format("x.example.net.")),
    ("IN AAAA example.org", "x.example.org A", ELSEWHERE.format("x.example.org.")),
    ("IN AAAA example.org", "x.example.org ANY", "NOERROR aa"),
    ("ANY ANY example.org {\nrcode REFUSED\n}", "x.example.org A", "REFUSED aa"),
    ("ANY ANY example.org {\nrcode SERVFAIL\n}", "x.example.org A", "SERVFAIL"),
    ('IN ANY {\nrcode NXDOMAIN\nauthority "{{ .Zone }} 60 {{ .Class }} SOA ns. root. (1 2 3 4 5)"\n}', "x.test A",
     "NXDOMAIN aa\nauthority . 60 IN SOA ns. root. 1 2 3 4 5"),
    ('IN MX {\nanswer "{{ .Name }} 1 IN {{ .Type }} 10 {{ .Name }}"\nadditional "{{ .Name }} 1 IN A 192.0.2.1"\n}',
     "x.test MX", "NOERROR aa\nx.test. 1 IN MX 10 x.test.\nadditional x.test. 1 IN A 192.0.2.1"),
    ('IN TXT {\nanswer "{{ .Name }} 1 TXT {{ .Remote }} {{ .Question.Name }} {{ .Question.Qtype }}"\n}', "X.test TXT",
     'NOERROR aa\nx.test. 1 IN TXT "10.244.1.9" "X.test." "16"'),
    ('IN A {\nmatch "^ip(?P<h>[a-f0-9]{2})[.]"\nanswer "{{ .Name }} 1 A 10.0.0.{{ parseInt .Group.h 16 8 }}"\n}',
     "ip7b.test A", "NOERROR aa\nip7b.test. 1 IN A 10.0.0.123"),
    ('IN A {\nmatch "^ip(?P<h>[a-z]+)[.]"\nanswer "{{ .Name }} 1 A 10.0.0.{{ parseInt .Group.h 16 8 }}"\n}',
     "ipzz.test A", "SERVFAIL"),
    ('IN A {\nanswer "{{ .Name }} 1 A {{ if eq .Remote `10.244.1.9` }}192.0.2.1{{ else }}192.0.2.2{{ end }}"\n}',
     "x.test A", "NOERROR aa\nx.test. 1 IN A 192.0.2.1"),
    ('IN A {\nanswer "{{ .Name }} 1 A {{ .Group.missing }}"\n}', "x.test A", "SERVFAIL"),
    ('IN A {\nmatch ^a\nfallthrough\n}\ntemplate IN A {\nanswer "{{ .Name }} 1 A 192.0.2.1"\n}', "b.test A",
     "NOERROR aa\nb.test. 1 IN A 192.0.2.1"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "question", "wanted"), TEMPLATES)
async def test_what_a_template_says(template: str, question: str, wanted: str) -> None:
    async with bench(f". {{\ntemplate {template}\n{BEHIND}\n}}") as to:
        assert await to.text(question) == wanted


async def test_a_template_says_why() -> None:
    async with bench('. {\ntemplate ANY ANY {\nrcode NXDOMAIN\nederror 21 "by policy"\n}\n}') as to:
        assert (await to.ask("x.test A")).options == b"\0\x0f\0\x0b\0\x15by policy"


@pytest.mark.parametrize(("reference", "kept"), [(".Name", True), (".Remote", False), (".Message.Id", False)])
async def test_only_what_is_the_same_for_all_clients_is_kept(reference: str, kept: bool) -> None:
    async with bench(f'. {{\ntemplate IN TXT {{\nanswer "x. 1 TXT {{{{ {reference} }}}}"\n}}\n}}') as to:
        assert (await to.ask("x A")).stable is False
        assert (await to.ask("x TXT")).stable is kept


# --- autopath ----------------------------------------------------------------------------------------------------


def known(name: str, kind: str, address: str) -> str:
    """A template for one name."""
    pattern = name.replace(".", "[.]")
    return (
        f'template IN {kind} {{\nmatch ^{pattern}[.]$\nanswer "{{{{ .Name }}}} 30 {kind} {address}"\nfallthrough\n}}\n'
    )


PATH_ZONES = (
    known("www.example.com", "A", "192.0.2.1")
    + known("web.shop.svc.cluster.local", "A", "192.0.2.2")
    + known("web.other.svc.cluster.local", "A", "192.0.2.3")
    + """
template IN A {
    match ^six[.]other[.]svc[.]
    fallthrough
}
template ANY ANY {
    rcode NXDOMAIN
    authority "{{ .Name }} 30 IN SOA ns. root. 1 2 3 4 5"
}
"""
)
FIRST = "shop.svc.cluster.local"
DENIED = "NXDOMAIN aa\nauthority {}. 30 IN SOA ns. root. 1 2 3 4 5"
WALKS = [
    (f"web.{FIRST} A", f"NOERROR aa\nweb.{FIRST}. 30 IN A 192.0.2.2"),
    (f"web.other.{FIRST} A", f"""NOERROR aa
        web.other.{FIRST}. 30 IN CNAME web.other.svc.cluster.local.
        web.other.svc.cluster.local. 30 IN A 192.0.2.3"""),
    (f"www.example.com.{FIRST} A", f"""NOERROR aa
        www.example.com.{FIRST}. 30 IN CNAME www.example.com.
        www.example.com. 30 IN A 192.0.2.1"""),
    (f"WWW.example.com.{FIRST} A", f"""NOERROR aa
        WWW.example.com.{FIRST}. 30 IN CNAME www.example.com.
        www.example.com. 30 IN A 192.0.2.1"""),
    (f"six.other.{FIRST} A", "NOERROR aa"),
    (f"gone.{FIRST} A", DENIED.format(f"gone.{FIRST}")),
    ("web.svc.cluster.local A", DENIED.format("web.svc.cluster.local")),
    ("www.example.com A", "NOERROR aa\nwww.example.com. 30 IN A 192.0.2.1"),
    (f"{FIRST} A", "SERVFAIL"),
]  # fmt: skip


@pytest.fixture
def resolv(tmp_path: Path) -> Path:
    """The search path of all clients."""
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver 10.96.0.10\nsearch old.test\nsearch {FIRST} svc.cluster.local cluster.local\n")
    return path


@pytest.mark.parametrize(("question", "wanted"), WALKS)
async def test_the_search_path_is_walked_here(resolv: Path, question: str, wanted: str) -> None:
    async with bench(f". {{\nautopath {resolv}\n{PATH_ZONES}\n}}") as to:
        assert await to.text(question) == lines(wanted)


async def test_the_walk_is_for_its_zones_only_and_is_counted(resolv: Path) -> None:
    async with bench(f". {{\nautopath example.org {resolv}\n{PATH_ZONES}\n}}") as to:
        other = await to.text(f"www.example.com.{FIRST} A")
    async with bench(f". {{\nautopath cluster.local {resolv}\n{PATH_ZONES}\n}}") as to:
        found = await to.text(f"www.example.com.{FIRST} A")
        metrics = to.metrics.text()

    assert (other.split()[0], found.split()[0]) == ("NXDOMAIN", "NOERROR")
    assert 'coredns_autopath_success_total{server="dns://:53",zone="cluster.local.",view=""} 1' in metrics


async def test_a_failure_on_the_way_is_the_answer(resolv: Path) -> None:
    text = (
        f". {{\nautopath {resolv}\ntemplate ANY ANY svc.cluster.local {{\nrcode NXDOMAIN\n}}\nforward . 127.0.0.1:9\n}}"
    )
    async with bench(text) as to:
        assert (await to.ask(f"www.example.com.{FIRST} A")).rcode == wire.SERVFAIL


@asynccontextmanager
async def clustered(options: str = "pods verified", extra: str = "") -> AsyncIterator[Bench]:
    """A cluster of two namespaces, with a Pod in `shop` at 10.244.1.9."""
    client = FakeClient()
    for name in ("shop", "other"):
        await client.create(NAMESPACES, {"metadata": {"name": name}})
    await client.create(SERVICES, service("web", "10.96.0.5", port("http", 80)), "shop")
    await client.create(SERVICES, service("web", "10.96.0.6", port("http", 80), namespace="other"), "other")
    pod = {"metadata": {"name": "a", "namespace": "shop"}, "status": {"podIP": "10.244.1.9", "phase": "Running"}}
    await client.create(PODS, pod, "shop")
    text = f". {{\nautopath @kubernetes\nkubernetes cluster.local {{\n{options}\n}}\n{extra}\n{PATH_ZONES_BEHIND}\n}}"
    async with bench(text, client) as to:
        while to.not_ready():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        yield to


PATH_ZONES_BEHIND = "erratic {\ndrop 0\n}"
PODS_ASK = [
    ("10.244.1.9", f"web.{FIRST} A", f"NOERROR aa\nweb.{FIRST}. 5 IN A 10.96.0.5"),
    ("10.244.1.9", f"web.other.{FIRST} A", f"""NOERROR aa
        web.other.{FIRST}. 5 IN CNAME web.other.svc.cluster.local.
        web.other.svc.cluster.local. 5 IN A 10.96.0.6"""),
    ("10.244.1.9", f"www.example.com.{FIRST} A", f"""NOERROR aa
        www.example.com.{FIRST}. 0 IN CNAME www.example.com.
        www.example.com. 0 IN A 192.0.2.53"""),
    ("10.244.1.8", f"web.other.{FIRST} A", "NXDOMAIN"),
    ("10.244.1.9", "web.shop.other.svc.cluster.local A", "NXDOMAIN"),
]  # fmt: skip


@pytest.mark.parametrize(("client", "question", "wanted"), PODS_ASK)
async def test_a_pod_has_the_search_path_of_its_namespace(
    client: str, question: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netemu.dns.plugins.autopath._HOST", tmp_path / "none")
    async with clustered() as to:
        found = await to.text(question, client)

    assert found.startswith(lines(wanted))


async def test_without_verified_pods_nobody_is_known() -> None:
    async with clustered("pods insecure") as to:
        assert (await to.ask(f"web.other.{FIRST} A")).rcode == wire.NXDOMAIN


async def test_the_search_domains_of_the_server_come_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = tmp_path / "resolv.conf"
    host.write_text("search corp.test .\n")
    monkeypatch.setattr("netemu.dns.plugins.autopath._HOST", host)
    async with clustered(extra="") as to:
        assert any(isinstance(plugin, Kubernetes) for plugin in to.plugins())
        answers = (await to.ask(f"db.{FIRST} A")).answers

    assert [names.text(record.name) for record in answers] == [f"db.{FIRST}.", "db.corp.test."]


# --- refusals ----------------------------------------------------------------------------------------------------

REFUSALS = [
    ("hosts {\nttl 0\n}", "3: ttl: '0' is not a number from 1 to 65535"),
    ("hosts {\nno_reverse x\n}", "3: no_reverse takes no arguments"),
    ("hosts {\nreload soon\n}", "3: reload: 'soon' is not a duration like 5s or 1m30s"),
    ("hosts {\nfallthru\n}", "3: unknown option 'fallthru'; did you mean \"fallthrough\"?"),
    ("hosts {\n192.0.2.1\n}", "3: 192.0.2.1: expected ADDRESS NAME..."),
    ("template IN", "2: template: expected CLASS TYPE [ZONE...]"),
    ("template XX A", "2: template: unknown class 'XX'; expected IN, CH, HS, ANY"),
    ("template IN AAA", "2: template: unknown type 'AAA'; did you mean \"AAAA\"?"),
    ("template IN A {\nmatch (\n}",
     "3: match: '(' is not a regular expression: missing ), unterminated subpattern at position 0"),
    ('template IN A {\nanswer "{{ .Nmae }}"\n}', "3: answer: {{ .Nmae }}: unknown .Nmae; did you mean .Name?"),
    ('template IN A {\nanswer "{{ foo .Name }}"\n}', "3: answer: {{ foo .Name }}: unknown function 'foo'; "
     "known: index, parseInt, printf, print, len, eq, ne"),
    ('template IN A {\nanswer "{{ .Name }} {{ .Name 5 A"\n}', "3: answer: '{{ .Name 5 A' is not closed; expected }}"),
    ('template IN A {\nanswer "{{ if .Name }}x"\n}', "3: answer: {{ if .Name }} without {{ end }}"),
    ("template IN A {\nederror x\n}", "3: ederror: expected CODE [TEXT], the code a number (RFC 8914)"),
    ("template IN A {\nanwser x\n}", "3: unknown option 'anwser'; did you mean \"answer\"?"),
    ("autopath", "2: autopath: expected [ZONES...] and @kubernetes or a file like /etc/resolv.conf"),
    ("autopath @kubernets", "2: autopath: @kubernets knows no search path; did you mean \"@kubernetes\"?"),
    ("autopath /nonexistent/file", "2: autopath: /nonexistent/file: No such file or directory"),
    ("autopath /dev/null", "2: autopath: /dev/null names no search domain"),
]  # fmt: skip


@pytest.mark.parametrize(("corefile", "wanted"), REFUSALS)
def test_a_refusal_says_where_and_what_would_be_right(corefile: str, wanted: str) -> None:
    with pytest.raises(UserError) as refused:
        Bench(f". {{\n{corefile}\n}}")

    assert str(refused.value) == f"Corefile:{wanted}"


EXPRESSIONS = [
    ("a {{ .Name }} b", "a x b"),
    ("{{- .Name -}}", "x"),
    ("{{ .Name | printf `%s-%v` `a` }}", "a-x"),
    ("{{ printf `%03d` (parseInt `ff` 16 8) }}", "255"),
    ("{{ len .Match }}", "2"),
    ('{{ index .Match 1 }}{{ print "a\\"" 1 }}', 'onea"1'),
    ("{{ if ne .Name `y` }}{{ if eq .Name `x` `z` }}in{{ end }}{{ else }}out{{ end }}", "in"),
]


@pytest.mark.parametrize(("text", "wanted"), EXPRESSIONS)
def test_an_expression_is_worked_out(text: str, wanted: str) -> None:
    assert gotemplate.read(text, ("Name", "Match")).fill({"Name": "x", "Match": ["all", "one"]}) == wanted


@pytest.mark.parametrize(
    "text", ["{{ .Name .Name }}", "{{ ( .Name }}", "{{ end }}", "{{ $x }}", "{{ index .Name", "{{ }}"]
)
def test_a_wrong_expression_is_refused(text: str) -> None:
    with pytest.raises(gotemplate.TemplateError):
        gotemplate.read(text, ("Name",))

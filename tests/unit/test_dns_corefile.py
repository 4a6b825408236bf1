"""Corefiles: what they mean, and what is said about bad ones."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from netemu.dns import chain, corefile, defaults, names
from netemu.dns.server import Server
from netemu.model.errors import UserError

RESOLV = "nameserver 192.0.2.53\n"


def build(text: str) -> list[str]:
    """The plugins of the first block, in order."""
    built, _ = chain.build(corefile.parse(text)[0], Server(None))
    return [plugin.name for plugin in built.plugins]


@pytest.mark.parametrize("text", [defaults.KUBEADM, defaults.LEGACY], ids=["kubeadm", "legacy"])
def test_the_stock_corefile_loads_as_it_is(text: str, tmp_path: Path) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(RESOLV)
    wanted = [
        "reload",
        "ready",
        "health",
        "prometheus",
        "errors",
        "loadbalance",
        "cache",
        "kubernetes",
        "loop",
        "forward",
    ]

    assert build(text.replace("/etc/resolv.conf", str(resolv))) == wanted


def zones(text: str) -> list[str]:
    return [f"{names.text(zone)}:{port}" for block in corefile.parse(text) for zone, port in block.keys]


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (".", [".:53"]),
        (".:5353", [".:5353"]),
        ("Example.ORG", ["example.org.:53"]),
        ("a.test b.test:54", ["a.test.:53", "b.test.:54"]),
        ("a.test, b.test", ["a.test.:53", "b.test.:53"]),
        ("dns://a.test:99", ["a.test.:99"]),
        (":1053", [".:1053"]),
        ("10.96.0.0/16", ["96.10.in-addr.arpa.:53"]),
        ("10.96.0.0/23", ["0.96.10.in-addr.arpa.:53", "1.96.10.in-addr.arpa.:53"]),
        ("fd00::/8", ["d.f.ip6.arpa.:53"]),
    ],
)
def test_keys_name_zones_and_ports(keys: str, wanted: list[str]) -> None:
    assert zones(keys + " {\n whoami\n}") == wanted


def test_masks_between_octets_expand_to_all_zones_beneath() -> None:
    assert len(names.reverse_zones("10.0.0.0/17")) == 128
    assert len(names.reverse_zones("10.0.0.0/27")) == 32


def test_arguments_options_comments_and_quotes() -> None:
    (block,) = corefile.parse('. {\n # nothing\n a b "c d" # e\n f {\n  g "h#" {\n   i\n  }\n }\n}')
    first, second = block.directives

    assert (first.name, first.args, first.line) == ("a", ("b", "c d"), 3)
    assert (second.options[0].args, second.options[0].options[0].name, second.options[0].line) == (("h#",), "i", 5)


def test_environment_variables_are_put_in() -> None:
    (block,) = corefile.parse('. {\n a {$X} {%Y%}z "{$X} {$NONE}"\n}', env={"X": "1", "Y": "2"})

    assert block.directives[0].args == ("1", "2z", "1 ")


def test_snippets_and_files_are_imported(tmp_path: Path) -> None:
    (tmp_path / "one.conf").write_text("whoami")
    (tmp_path / "blocks").write_text("b.test {\n errors\n}\n")
    main = tmp_path / "Corefile"
    main.write_text(
        "(common) {\n errors\n log {\n  class all\n }\n}\nimport blocks\na.test {\n import common\n import *.conf\n}\n"
    )

    first, second = corefile.load(main)

    assert [each.name for each in second.directives] == ["errors", "log", "whoami"]
    assert (names.text(first.keys[0][0]), first.file) == ("b.test.", str(tmp_path / "blocks"))


def kubernetes(option: str) -> str:
    return f". {{\n kubernetes cluster.local {{\n  {option}\n }}\n}}"


BAD = [
    (". {\n kubernets cluster.local\n}", '2: unknown directive \'kubernets\'; did you mean "kubernetes"?'),
    (kubernetes("pod insecure"), "3: unknown option 'pod'; did you mean \"pods\"?"),
    (kubernetes("pods secure"), "3: pods: 'secure' is none of disabled, insecure, verified"),
    (kubernetes("ttl 4000"), "3: ttl: '4000' is not a number from 0 to 3600"),
    (kubernetes("ttl"), "3: ttl: expected a number from 0 to 3600, got nothing"),
    (kubernetes("noendpoints x"), "3: noendpoints takes no arguments"),
    (". {\n kubernetes in-addr.arpa\n}", "2: kubernetes: needs a zone that is not a reverse zone"),
    (". {\n kubernetes a.b\n kubernetes c.d\n}", "3: kubernetes may stand only once in a server block; it does in line 2"),  # noqa: E501
    (". {\n errors\n", "1: the block that begins here is not closed; expected }"),
    (". {\n errors\n}\n}", "4: } without {"),
    ('. {\n log "a\n}', '2: a quotation mark is not closed; expected another "'),
    (". {\n errors\n}\n. {\n errors\n}", "4: .:53 is already defined in line 1"),
    (". {\n bind ::1\n}\n. {\n errors\n}", "4: .:53 is already defined in line 1"),
    ("a {\n bind ::1 ::2\n}\na {\n bind ::2\n}", "4: a.:53 is already defined in line 1"),
    ("a a {\n errors\n}", "1: a.:53 is already defined in line 1"),
    ("tls://. {\n errors\n}", "1: tls://.: tls:// is not supported"),
    (".:99999 {\n errors\n}", "1: .:99999: port 99999 is not between 1 and 65535"),
    (".:abc {\n errors\n}", "1: .:abc: 'abc' is not a port from 1 to 65535"),
    ("a: {\n errors\n}", "1: a:: '' is not a port from 1 to 65535"),
    (". {\n hosts {\n  1.2.3 foo\n }\n}", "3: hosts: '1.2.3' is not an address; expected ADDRESS NAME..."),
    (". {\n hosts /dev/null/x\n}", "2: hosts: /dev/null/x: Not a directory"),
    (". {\n forward . /nope\n}", "2: forward: '/nope' is neither an address nor a readable file: No such file"),
    ("a..b {\n errors\n}", "1: 'a..b' is not a domain name"),
    ("", "no server block"),
    ("# nothing", "no server block"),
    (". {\n import nowhere\n}", "2: import: no file or snippet 'nowhere'"),
    ("(s) {\n import s\n}\n. {\n import s\n}", "more than 100 imports; does a file import itself?"),
    (". {\n forward .\n}", "2: forward: expected FROM TO..."),
    (". {\n forward . nowhere\n}", "2: forward: 'nowhere' is neither an address nor a readable file"),
    (". {\n forward . tls://9.9.9.9\n}", "2: forward: tls:// is not supported"),
    (". {\n forward . 1.1.1.1 {\n  policy best\n }\n}", "3: policy: 'best' is none of random, round_robin, sequential"),
    (". {\n forward . 1.1.1.1 {\n  max_concurrent many\n }\n}", "3: max_concurrent: 'many' is not a number"),
    (". {\n cache {\n  prefech 3\n }\n}", "3: unknown option 'prefech'"),
    (". {\n cache {\n  disable all\n }\n}", "3: disable: expected success or denial"),
    (". {\n health {\n  lameduck soon\n }\n}", "3: lameduck: 'soon' is not a duration like 5s or 1m30s"),
    (". {\n loadbalance weighted\n}", "2: loadbalance: weighted: expected round_robin or weighted FILE"),
    (". {\n template IN\n}", "2: template: expected CLASS TYPE [ZONE...]"),
    (". {\n template ANY ANY {\n  rcode NOPE\n }\n}", "3: rcode: unknown response code 'NOPE'; did you mean"),
    (". {\n template ANY ANY {\n  match (\n }\n}", "3: match: '(' is not a regular expression"),
    (". {\n template ANY ANY {\n  answer \"{{ .Meta }}\"\n }\n}", "3: answer: {{ .Meta }}: unknown .Meta"),
    (". {\n reload often\n}", "2: reload: expected [INTERVAL] [JITTER]"),
    (". {\n log {\n  class some\n }\n}", "3: log: unknown class 'some'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_file_is_refused_in_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        build(text)

    assert message in str(refusal.value)
    assert str(refusal.value).startswith("Corefile:")
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path}/Corefile: No such file or directory$"):
        corefile.load(tmp_path / "Corefile")


def test_a_hosts_file_that_is_not_there_yet_is_told(caplog: pytest.LogCaptureFixture) -> None:
    build(". {\n hosts /nope\n}")
    build(". {\n hosts\n}")

    assert [record.getMessage() for record in caplog.records] == ["plugin/hosts: Corefile:2: no file /nope yet"]


DOCS = Path(__file__).parents[2] / "docs" / "dns.md"


@pytest.mark.parametrize("plugin", chain.KNOWN)
def test_the_docs_have_every_plugin_with_every_option(plugin: str) -> None:
    (row,) = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{plugin}` |")]
    elsewhere = {"forward": "forwarding", "kubernetes": "kubernetes_options", "root": "chain"}
    module = importlib.import_module(f"netemu.dns.{elsewhere.get(plugin, f'plugins.{plugin}')}")
    options = [option for table in ("_OPTIONS", "_READERS", "_ACTIONS") for option in getattr(module, table, ())]

    assert [option for option in options if f"`{option}`" not in row] == []


def test_the_docs_have_the_chain_in_its_order() -> None:
    text = DOCS.read_text().split("whatever the Corefile:")[1].split("`rewrite` and")[0]

    assert tuple(text.split()) == chain.ORDER

"""Limits on what a network is sent."""

from __future__ import annotations

import pytest

from netemu.dns.plugins.rrl import Accounts, Limits
from netemu.model.errors import UserError
from tests.unit.dns_chain import Bench, bench, shown

COREFILE = """.:53 {
    rrl {
        responses-per-second 2
        EXTRA
    }
    template IN A example.org {
        answer "{{ .Name }} 60 IN A 192.0.2.1"
    }
    template IN ANY example.org {
        rcode NXDOMAIN
        authority "example.org. 60 IN SOA ns.example.org. root.example.org. 1 2 3 4 5"
    }
}"""


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def asked(server: Bench, *questions: str, client: str = "10.244.1.9", transport: str = "udp") -> str:
    """A letter per question: answered, denied, silent or truncated."""
    letters = ""
    for question in questions:
        response = await server.ask(question, client, transport=transport)
        letters += "s" if response.silent else "t" if response.tc else "d" if response.rcode else "a"
    return letters


def test_an_account_earns_its_allowance_and_pays_its_debts_first() -> None:
    clock = Clock()
    accounts = Accounts(Limits(window=3, allowances={"responses": 2}), clock)

    assert [accounts.debit("responses", "x") for _ in range(4)] == [True, True, False, False]
    clock.now += 1  # two earned, two owed
    assert not accounts.debit("responses", "x")
    for _ in range(100):
        accounts.debit("responses", "x")
    clock.now += 3.0  # no debt is older than the window
    assert not accounts.debit("responses", "x")
    clock.now += 1.0
    assert accounts.debit("responses", "x")
    clock.now += 3600  # more than a second's worth is not saved up
    assert [accounts.debit("responses", "x") for _ in range(3)] == [True, True, False]


def test_a_full_table_forgets_who_was_silent_longest() -> None:
    accounts = Accounts(Limits(most_accounts=2, allowances={"responses": 1}), Clock())
    for account in ("a", "b", "b", "c"):
        accounts.debit("responses", account)

    assert not accounts.debit("responses", "b")
    assert accounts.debit("responses", "a")


async def test_equal_answers_to_one_network_share_an_account() -> None:
    async with bench(COREFILE.replace("EXTRA", "")) as server:
        assert await asked(server, *["www.example.org A"] * 3) == "aas"
        assert await asked(server, "www.example.org A", client="10.244.1.200") == "s"
        assert await asked(server, "www.example.org A", client="10.244.2.9") == "a"
        assert await asked(server, "www.example.org A", client="fd00::1") == "a"
        assert await asked(server, "other.example.org A") == "a"
        assert "coredns_rrl_responses_exceeded_total" in server.metrics.text()


async def test_denials_of_a_zone_share_one_whatever_the_name() -> None:
    async with bench(COREFILE.replace("EXTRA", "nxdomains-per-second 1")) as server:
        assert await asked(server, "a.example.org TXT", "b.example.org TXT", "c.example.org TXT") == "dss"


async def test_tcp_is_not_limited() -> None:
    async with bench(COREFILE.replace("EXTRA", "")) as server:
        assert await asked(server, *["www.example.org A"] * 5, transport="tcp") == "aaaaa"


async def test_every_nth_reply_slips_through_empty_and_truncated() -> None:
    async with bench(COREFILE.replace("EXTRA", "slip-ratio 2")) as server:
        assert await asked(server, *["www.example.org A"] * 6) == "aastst"
        assert shown(await server.ask("www.example.org A")).splitlines()[1:] == []


async def test_requests_are_limited_whatever_they_ask() -> None:
    async with bench(COREFILE.replace("EXTRA", "requests-per-second 1")) as server:
        assert await asked(server, "a.example.org A", "b.example.org TXT", "c.example.org A") == "ass"


async def test_report_only_counts_and_answers() -> None:
    async with bench(COREFILE.replace("EXTRA", "report-only")) as server:
        assert await asked(server, *["www.example.org A"] * 4) == "aaaa"
        assert "coredns_rrl_responses_exceeded_total" in server.metrics.text()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("responses-per-second many", "'many' is not a number per second"),
        ("ipv4-prefix-length 33", "not a number from 1 to 32"),
        ("slip-ration 2", 'did you mean "slip-ratio"'),
        ("report-only yes", "takes no arguments"),
    ],
)
def test_a_bad_option_is_refused(option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Bench(COREFILE.replace("EXTRA", option))

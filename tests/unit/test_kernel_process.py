"""What is told of a tool that has failed."""

from __future__ import annotations

import pytest

from netemu.kernel.iptables import naming_line
from netemu.kernel.process import reason
from netemu.model.errors import KernelError

HELP = "Try `iptables-restore -h' or 'iptables-restore --help' for more information.\n"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("one\n two \n\n", "two", id="the last line"),
        pytest.param(f"{HELP}", "", id="nothing but a hint"),
        pytest.param(
            f"iptables-nft-restore v1.8.9 (nf_tables): host/network `10.0.0.999' not found\n"
            f"Error occurred at line: 3\n{HELP}",
            "host/network `10.0.0.999' not found, line 3",
            id="what, then where, then a hint",
        ),
        pytest.param(
            f"ip6tables-restore v1.8.9 (legacy): Couldn't load match `x':No such file or directory\n\n"
            f"Error occurred at line: 12\n{HELP}",
            "Couldn't load match `x':No such file or directory, line 12",
            id="with an empty line",
        ),
        pytest.param(
            "iptables-nft-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed (Invalid argument): rule in chain X",
            "line 3: RULE_APPEND failed (Invalid argument): rule in chain X",
            id="refused by the kernel",
        ),
        pytest.param("iptables-restore: line 3 failed\n", "iptables-restore: line 3 failed", id="the place alone"),
        pytest.param("Error occurred at line: 3\n", "Error occurred at line: 3", id="nothing in front of the place"),
    ],
)
def test_the_reason_is_what_helps(said: str, why: str) -> None:
    assert reason(said.encode()) == why


def test_the_refused_line_is_quoted() -> None:
    error = KernelError("run iptables-restore", "n1", 0, "host/network `x' not found, line 2 (status 2)")

    named = naming_line(error, "*filter\n-A X -d x -j ACCEPT\nCOMMIT\n")

    assert str(named) == (
        "run iptables-restore in n1: host/network `x' not found, line 2 (status 2): -A X -d x -j ACCEPT"
    )

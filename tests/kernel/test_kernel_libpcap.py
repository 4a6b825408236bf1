"""Filter expressions: libpcap compiles them, and says what is wrong with them."""

from __future__ import annotations

import pytest

from netemu.kernel.libpcap import compile_filter
from netemu.model.errors import UserError


def test_an_expression_becomes_a_program() -> None:
    # What `tcpdump -ddd ip` prints: load the type at 12, compare, take everything, take nothing.
    words = [(0x28, 12), (0x15, 0x0800), (0x06, 262144), (0x06, 0)]
    program = compile_filter("ip")
    steps = [program[at : at + 8] for at in range(0, len(program), 8)]

    assert [(int.from_bytes(s[:2], "little"), int.from_bytes(s[4:], "little")) for s in steps] == words


@pytest.mark.parametrize(
    "expression", ["host (10.244.1.5 or fd00::5)", "not dst host (10.244.1.5)", "ip6 host (fd00::5) or udp port 53"]
)
def test_what_names_become_in_an_expression_is_understood(expression: str) -> None:
    assert len(compile_filter(expression)) > 8 * 4


@pytest.mark.parametrize(
    ("expression", "said"),
    [("tcp prt 80", "syntax error"), ("port 99999", "illegal port number"), ("ip and arp", "rejects all")],
)
def test_a_wrong_one_is_refused_in_one_line(expression: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        compile_filter(expression)

    assert said in str(caught.value)
    assert repr(expression) in str(caught.value)
    assert "\n" not in str(caught.value)

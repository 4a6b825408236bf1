"""What `netemu proxy-mode` makes of the node agent's answers."""

from __future__ import annotations

import pytest

from netemu.lab.proxy_mode import outcome

GOOD = {"mode": "nftables", "services": "7", "error": "", "decided": "12"}


@pytest.mark.parametrize(
    ("proxy", "known"),
    [
        pytest.param(GOOD, "", id="done"),
        pytest.param({**GOOD, "mode": "iptables"}, None, id="still in the old mode"),
        pytest.param({**GOOD, "services": ""}, None, id="in the mode, but nothing is programmed"),
        pytest.param({**GOOD, "error": "no such tool"}, "no such tool", id="refused"),
        pytest.param({**GOOD, "decided": "11"}, None, id="what it says is from before the wish"),
        pytest.param({**GOOD, "error": "no IPVS", "decided": "11"}, None, id="it refused an older wish"),
        pytest.param({**GOOD, "error": "no such tool", "decided": ""}, None, id="it does not run"),
        pytest.param({}, None, id="the agent is away"),
    ],
)
def test_outcome_of_a_wish(proxy: dict[str, str], known: str | None) -> None:
    assert outcome(proxy, "nftables", 12) == known

"""Making a link slower, lossy or long: tbf for a rate, netem for delay and loss. Both directions, at either end.

netem is missing from some kernels (tbf hardly from any); then the refusal says so, and nothing pretends.
"""

from __future__ import annotations

from typing import Final

from netemu.kernel import process
from netemu.model.errors import KernelError, UserError
from netemu.network import names
from netemu.network.node import LINK
from netemu.network.plan import LinkPlan, NetworkPlan

# A burst below what the rate brings per timer tick cannot reach the rate; below one large packet nothing passes.
_LEAST_BURST: Final = 32 * 1024
_TICKS: Final = 100


def shape(plan: NetworkPlan, link: LinkPlan) -> None:
    """Give the link of a node or client its properties, or take them away. Raises KernelError, UserError."""
    machine = dict(plan.machines()).get(link.machine)
    if machine is None:
        raise UserError(f"link {link.machine}: no node or client of that name")
    for netns, dev in ((machine, LINK), (names.underlay_netns(plan.lab), plan.ports[machine])):
        _replace(netns, dev, qdisc(link))


def qdisc(link: LinkPlan) -> list[str]:
    """The queueing discipline in tc's words; empty for a link without limits."""
    if link.delay or link.loss:
        words = ["netem"]
        words += ["delay", f"{link.delay * 1e6:.0f}us"] if link.delay else []
        words += ["loss", f"{link.loss * 100:g}%"] if link.loss else []
        return words + (["rate", f"{link.rate}bit"] if link.rate else [])
    if link.rate:
        burst = max(_LEAST_BURST, link.rate // 8 // _TICKS)
        return ["tbf", "rate", f"{link.rate}bit", "burst", f"{burst}", "latency", "50ms"]
    return []


def _replace(netns: str, dev: str, words: list[str]) -> None:
    if not words:
        shown = process.run_sync(["tc", "qdisc", "show", "dev", dev, "root"], netns=netns)
        if b"netem" in shown or b"tbf" in shown:
            process.run_sync(["tc", "qdisc", "del", "dev", dev, "root"], netns=netns)
        return
    try:
        process.run_sync(["tc", "qdisc", "replace", "dev", dev, "root", *words], netns=netns)
    except KernelError as err:
        if "qdisc kind is unknown" in err.detail or "not found" in err.detail:
            need = "delay and loss" if words[0] == "netem" else "a rate"
            detail = f"this kernel has no sch_{words[0]}, which {need} of a link needs"
            raise KernelError(f"shape link {dev}", netns, detail=detail) from err
        raise

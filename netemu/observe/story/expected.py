"""What the oracle expects of one packet on the way that it took: a prediction cut down to the nodes it passed. Pure.

A prediction follows every branch: each endpoint, each node behind a load balancer. A packet took one of them, so what
ought to have happened is what is predicted for the node that decided over it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from netemu.model.objects import Service, ServicePort
from netemu.observe.names import SERVICE, Names
from netemu.observe.predict import Ending, Outcome, Prediction
from netemu.observe.reasons import Reason
from netemu.observe.story.destination import Objects

Verdict = Literal["dnat", "direct", "reject", "drop", "unreachable"]
_FAILED: dict[Outcome, Verdict] = {
    Outcome.REFUSED: "reject",
    Outcome.DROPPED: "drop",
    Outcome.UNREACHABLE: "unreachable",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What should become of the packet."""

    verdict: Verdict
    reason: Reason
    text: str
    node: str = ""
    """The node whose rules decide; "" where no node does."""
    endpoints: frozenset[str] = frozenset()
    """`ip:port`, any of which is right."""
    sources: frozenset[tuple[str, str]] = frozenset()
    """Endpoint, and the source address that it should see."""
    service: Service | None = None
    port: ServicePort | None = None
    via: str = ""
    """Which of the Service's addresses it is: `cluster IP`, `node port`, ..."""


def expected_of(prediction: Prediction, passed: Collection[str], names: Names, objects: Objects) -> Expected:
    """For a packet that was seen in the places `passed` (`node/worker-1`, ...)."""
    mine = [e for e in prediction.endings if f"node/{_decider(e)}" in passed] or list(prediction.endings)
    answered = [e for e in mine if e.outcome is Outcome.ANSWERED]
    about = (answered or mine)[0]
    service, port, via = _service(prediction, names, objects)
    node = _decider(about) or (about.steps[-1].node if about.steps else "")
    if not answered:
        text = about.words or about.reason.value
        return Expected(_FAILED[about.outcome], about.reason, text, node, service=service, port=port, via=via)
    translated = any(step.verdict == "dnat" for step in about.steps) or about.reason is Reason.HOST_PORT
    return Expected(
        "dnat" if translated else "direct",
        about.reason,
        next((step.words for step in about.steps if step.verdict == "dnat"), about.words),
        node,
        frozenset(e.endpoint for e in answered),
        frozenset((e.endpoint, e.source) for e in answered),
        service, port, via,
    )  # fmt: skip


def _decider(ending: Ending) -> str:
    """The first node whose rules did something with the packet."""
    return next((step.node for step in ending.steps if step.verdict != "none"), "")


def _service(prediction: Prediction, names: Names, objects: Objects) -> tuple[Service | None, ServicePort | None, str]:
    """The Service port that the packet is for; the Service alone where the address is its and the port is not."""
    found = names.service_port(prediction.protocol, prediction.destination, prediction.port)
    party = names.party(prediction.destination)
    if found is None:
        is_service = party is not None and party.kind == SERVICE
        return (_by_key(party.name, objects.services) if party is not None and is_service else None), None, ""
    service = _by_key(found.service, objects.services)
    ports = service.spec.ports if service is not None else ()
    port = next((p for p in ports if (p.port, p.name) == (found.port, found.port_name)), None)
    return service, port, found.via


def _by_key(key: str, services: Sequence[Service]) -> Service | None:
    return next((service for service in services if service.key == key), None)

"""Why a packet goes where it goes, as codes: what programs compare, beside the words that people read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The one thing that decides over a packet. Values are stable: they stand in JSON and JUnit output."""

    # what one node's rules decide (`oracle`)
    TRANSLATED = "translated"
    """A Service port has the destination, and an endpoint for it."""
    NO_SERVICE = "no-service"
    """No Service has the destination: the packet goes where routes lead."""
    WRONG_PORT = "wrong-port"
    """A Service has the address, but not with this port and protocol."""
    NO_ENDPOINTS = "no-endpoints"
    """The Service has no endpoints at all."""
    NOT_READY = "not-ready"
    """The Service has endpoints, none of which is ready, or serving on its way out."""
    NO_LOCAL_ENDPOINT = "no-local-endpoint"
    """A traffic policy is Local, and the endpoints are on other nodes."""
    SOURCE_RANGE = "source-range"
    """`loadBalancerSourceRanges` do not have the source."""
    SOURCE_IS_VIRTUAL = "source-is-virtual"
    """In ipvs mode, the source is an address of a Service, which is the node's own."""
    NO_NODE_PORT_HERE = "no-node-port-here"
    """Node ports do not answer on this address of the node."""
    LOOPBACK = "loopback"
    """Nobody but the node itself may reach its loopback."""

    # what the network around decides (`predict`)
    HOST_PORT = "host-port"
    """A Pod has the port as its hostPort."""
    DIRECT = "direct"
    """The destination is where it says: a Pod, a node, a client."""
    NOT_LISTENING = "not-listening"
    """Nothing says that anybody listens there."""
    NO_ROUTE = "no-route"
    """No route leads there, or nobody has the address."""
    NO_ADDRESS = "no-address"
    """The sender has no address of the destination's family."""
    LOOP = "loop"
    """Routes lead in a circle."""
    ANSWER_ASTRAY = "answer-astray"
    """The answer takes a way on which nobody translates it back, so the sender does not know it."""
    FORGED = "forged"
    """The server is the sender itself, and nobody has changed the source: it takes the packet for a forgery."""


@dataclass(frozen=True, slots=True)
class Because:
    """A cause: `reason` is a word for programs, `text` a sentence, `remedy` what would be right ("" if unknown)."""

    reason: str
    text: str
    remedy: str = ""

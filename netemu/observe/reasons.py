"""Why a packet goes where it goes, or does not, as codes: what programs compare, beside the words that people read.

Predictions and causes share them, so the same cause has the same word in the matrix and in a trace. docs/observe.md has
them all.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


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

    # where there is no address to send to (`story/destination.py`)
    UNKNOWN_NAME = "unknown-name"
    """DNS knows no such name."""
    DNS_FAILS = "dns-fails"
    """Nobody answers for the name."""
    UNSCHEDULED = "unscheduled"
    """The Pod is on no node."""
    POD_PENDING = "pod-pending"
    """The Pod, or every Pod of the Service, has no address yet."""
    FAMILY = "family"
    """It has no address of that IP family."""
    EXTERNAL_NAME = "external-name"
    """The Service is only another name."""

    # why a Service leads nowhere, or not where it was meant to (`story/whynot_service.py`)
    TERMINATING = "terminating"
    """Every Pod of the Service is on its way out and does not serve any more."""
    TARGET_PORT = "target-port"
    """`targetPort` is the name of no port of the Service's Pods."""
    WRONG_PROTOCOL = "wrong-protocol"
    """The Service has the port with another protocol."""
    NO_ICMP = "no-icmp"
    """Nobody answers a ping to the Service."""
    HEADLESS = "headless"
    """The Service is headless, so its port is not translated, and the Pod does not have it."""

    # where rules did something else than they should have (`story/whynot.py`)
    STALE_CONNTRACK = "stale-conntrack"
    """Conntrack has the flow from before, so no rule was asked."""
    PROXY_STOPPED = "proxy-stopped"
    """The node's rules are not those of the newest Services."""
    MISSING_RULE = "missing-rule"
    """The node's rules are not what they should be, though its proxy has done all."""
    WRONG_SOURCE = "wrong-source"
    """The same of a masquerade."""
    FOREIGN_RULE = "foreign-rule"
    """A rule that is not kube-proxy's translates the packet, or keeps it from kube-proxy's."""

    # what the network did to the packet (`story/whynot_network.py`), and to its answer
    DROPPED_BY_RULE = "dropped-by-rule"
    """A rule that is not kube-proxy's drops or rejects it."""
    LINK_DOWN = "link-down"
    """A link that it should cross is down."""
    MTU = "mtu"
    """A link that it should cross is too narrow."""
    NO_FORWARDING = "no-forwarding"
    """A place forwards nothing."""
    BLACKHOLE = "blackhole"
    """The route to it drops what it gets."""
    NO_NEIGHBOUR = "no-neighbour"
    """Nobody on the link has the next address."""
    LOST = "lost"
    """It was seen last there, and nothing tells why."""
    NO_ROUTE_BACK = "no-route-back"
    """The server has no route to the sender."""
    NO_ANSWER = "no-answer"
    """It arrived, and nothing was sent back."""
    ANSWER_LOST = "answer-lost"
    """The answer did not come to the sender."""


class Because(Struct, frozen=True):
    """A cause: `reason` is a word for programs, `text` a sentence, `remedy` what would be right ("" if unknown)."""

    reason: Reason
    text: str
    remedy: str = ""

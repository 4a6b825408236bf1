"""What probing found, from what single attempts found. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from netemu.observe.probe.evenness import Evenness, evenness

REFUSED: Final = "refused"
TIMEOUT: Final = "timeout"
RESET: Final = "reset"
CLOSED: Final = "closed"
UNRESOLVABLE: Final = "unresolvable"
UNREACHABLE: Final = "unreachable"
OTHER: Final = "other"


class Answer(Struct, frozen=True):
    """Who answered, as far as the answer tells: name, node, and the source address the server saw."""

    server: str
    node: str = ""
    source: str = ""


class Attempt(Struct, frozen=True):
    """One connection or datagram: an answer, or an error of some kind with its text. Times in seconds."""

    answer: Answer | None = None
    address: str = ""
    seconds: float = 0.0
    lookup_seconds: float = 0.0
    error: str = ""
    detail: str = ""
    begun: float = 0.0
    """Since the probing began."""


class Percentiles(Struct, frozen=True):
    """How long it took, in seconds."""

    min: float
    p50: float
    p90: float
    p99: float
    max: float


class ProbeResult(Struct, frozen=True):
    """The distribution of what happened; every mapping is ordered, the most frequent first.

    `latency` is from the start of the connection to the whole answer, of answered attempts; `lookup` what the
    resolver took before, None where no name was looked up.
    """

    destination: str
    protocol: str
    count: int
    answered: int
    servers: Mapping[str, int]
    nodes: Mapping[str, int]
    sources: Mapping[str, int]
    addresses: Mapping[str, int]
    errors: Mapping[str, int]
    details: Mapping[str, str]
    """The text of the first error of each kind."""
    latency: Percentiles | None
    lookup: Percentiles | None
    evenness: Evenness | None = None
    """Of the answers over the servers; None where one connection carried several requests, which are no draws."""
    connections: int = 0
    """How many connections (over UDP: sockets) were opened for the attempts."""
    seconds: float = 0.0
    """From the first attempt to the end of the last."""
    rate: float = 0.0
    """Attempts per second that were really made."""


def summarize(
    destination: str, protocol: str, attempts: Sequence[Attempt], *,
    over: int = 0, connections: int | None = None, seconds: float = 0.0,
) -> ProbeResult:  # fmt: skip
    """All attempts of a probe, counted.

    `over`: how many servers should have answered, if that is known. `connections`: how many there were, if not one for
    each attempt.
    """
    answers = [attempt.answer for attempt in attempts if attempt.answer]
    failed = [attempt for attempt in attempts if not attempt.answer]
    servers = _counted(answer.server for answer in answers)
    begun = [attempt.begun for attempt in attempts]
    sending = max(begun, default=0.0) - min(begun, default=0.0)
    return ProbeResult(
        destination=destination,
        protocol=protocol,
        count=len(attempts),
        answered=len(answers),
        servers=servers,
        nodes=_counted(answer.node for answer in answers),
        sources=_counted(answer.source for answer in answers),
        addresses=_counted(attempt.address for attempt in attempts),
        errors=_counted(attempt.error for attempt in failed),
        details={attempt.error: attempt.detail for attempt in reversed(failed)},
        latency=percentiles([attempt.seconds for attempt in attempts if attempt.answer]),
        lookup=percentiles([attempt.lookup_seconds for attempt in attempts if attempt.lookup_seconds]),
        evenness=evenness(list(servers.values()), over) if connections is None else None,
        connections=len(attempts) if connections is None else connections,
        seconds=round(seconds, 3),
        rate=round((len(attempts) - 1) / sending, 1) if sending else 0.0,
    )


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """Nearest rank: p99 is a value that occurred, the smallest that 99 % do not exceed."""
    if not values:
        return None
    ordered = sorted(values)

    def rank(percent: int) -> float:
        return ordered[max(-(-percent * len(ordered) // 100), 1) - 1]

    return Percentiles(ordered[0], rank(50), rank(90), rank(99), ordered[-1])


def read_answer(body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Who a server says it is: netemu's headers (names in lower case), netemu's JSON, else its first line."""
    headers, said = headers or {}, _object(body)
    if "x-netemu-pod" in headers:
        return Answer(
            headers["x-netemu-pod"], headers.get("x-netemu-node", ""), host_of(headers.get("x-netemu-client", ""))
        )
    if "pod" in said:
        return Answer(str(said["pod"]), str(said.get("node", "")), str(said.get("client", "")))
    name = headers.get("x-pod-name") or headers.get("hostname") or _first_line(body)
    return Answer(name)


def host_of(endpoint: str) -> str:
    """The address of `10.0.0.1:80` and `[fd00::1]:80`."""
    host, colon, port = endpoint.rpartition(":")
    return (host if colon and port.isdigit() else endpoint).strip("[]")


def _object(body: bytes) -> Mapping[str, object]:
    # An echo answers with its line first and then what it was sent.
    for text in (body, body.partition(b"\n")[0]):
        try:
            said = json.loads(text)
        except ValueError:
            continue
        return said if isinstance(said, dict) else {}
    return {}


def _first_line(body: bytes) -> str:
    lines = body.decode(errors="replace").strip().splitlines()
    return lines[0].strip()[:80] if lines else "(empty answer)"


def _counted(values: Iterable[str]) -> dict[str, int]:
    counts = Counter(value for value in values if value)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

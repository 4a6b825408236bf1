"""What a plugin is, and what it sees of the server around it.

A server block is a list of plugins in the order of `chain.ORDER`. A query walks down the list: each `serve` says
`Response` (this is the answer), `Refuse` (this is the answer, and it is only a code) or `NEXT` (not mine). Whatever
was said then walks back up through `after` of the plugins that were passed, which may reorder it, keep a copy or log
it; `done` hears of the reply when its size is known. So order is data, and composing plugins is a loop. A plugin that
asks something else than its client did, or asks several times, puts its questions to `rest`, the plugins behind it.

The server keeps finished replies and sends them again without asking any plugin (`port.py`), but only what says that it
is `stable`. So a plugin whose answers depend on who asks, or change by themselves, or that must see every query, says
`response.stable = False` in `after`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from netemu.dns import names
from netemu.dns.corefile import Directive
from netemu.dns.metrics import Metrics
from netemu.dns.wire import Query, Record, Response

if TYPE_CHECKING:
    from netemu.client.base import Client


class Next:
    """Not mine: ask the plugin behind me."""


NEXT = Next()


@dataclass(frozen=True, slots=True)
class Refuse:
    """An answer without records: a code, and the cause for the log."""

    rcode: int
    cause: str = ""


Result = Response | Refuse | Next
MOST_ALIASES = 8
Rest = Callable[[Query], Awaitable[Response]]
Page = Callable[[], tuple[int, str]]
"""A status page: (HTTP status, body)."""


class Host(Protocol):
    """The server, as plugins see it."""

    metrics: Metrics
    corefile: Path | None

    def client(self, credentials: object) -> Awaitable[Client]:
        """A client of the API server; `credentials` None means those of the command line or of the Pod."""
        ...

    async def resolve(self, query: Query, port: int) -> Response:
        """The answer of the whole server, as a client of that port gets it."""
        ...

    def local_addresses(self) -> tuple[str, ...]:
        """Addresses of this machine (namespace), loopback left out."""
        ...

    def invalidate(self, changed: Collection[bytes] | None = None) -> None:
        """Watched objects changed: finished answers that depend on one of `changed` are void (None: all of them), and
        those that name nothing they depend on."""
        ...

    def fail(self, cause: str) -> None:
        """Stop the server: it must not go on like this."""
        ...

    def say(self, kind: str, reason: str, message: str) -> None:
        """Tell the cluster by an Event about our Pod; `kind` is Normal or Warning. Outside a Pod nobody is told."""
        ...

    def page(self, address: str, path: str, page: Page) -> None:
        """Serve a status page over HTTP. Raises ValueError for what is no address."""
        ...

    def not_ready(self) -> list[str]:
        """Names of plugins that are not ready yet."""
        ...

    async def reload(self) -> None:
        """Read the Corefile again; a bad one changes nothing and raises UserError."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """The server block that a plugin stands in."""

    zones: tuple[bytes, ...]
    ports: tuple[int, ...]
    host: Host
    bind: tuple[str, ...] = ()
    root: Path = Path()
    """Where relative paths begin: the `root` directive."""

    def count(self, metric: str, zone: bytes) -> None:
        """Count something that concerns a zone."""
        server = f"dns://:{self.ports[0]}"
        self.host.metrics.add(metric, (("server", server), ("zone", names.text(zone)), ("view", "")))


class Plugin:
    """Passes every query on. Subclasses override what they need; `setup` in each module makes one from its
    directive."""

    name = ""
    rest: Rest
    """What the plugins behind this one say to a question; it always is an answer. Set when the chain is complete."""
    siblings: tuple[Plugin, ...] = ()
    """All plugins of the server block, in order. Set when the chain is complete."""
    any_class = False
    """Whether questions of classes other than IN reach this server block."""
    lameduck = 0.0
    """Seconds to go on answering after the signal to stop."""

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """An answer, a refusal, or NEXT: at once, or, from a plugin that has to wait (`async def`), later.

        What is said at once costs a third of what a task does, so only what waits should be a coroutine.
        """
        return NEXT

    def after(self, query: Query, response: Response) -> None:
        """Look at, or change, what a later plugin answered."""

    def done(self, query: Query, response: Response, size: int, seconds: float) -> None:
        """The reply was sent: so many octets, so long after the question came."""

    def search_path(self, query: Query) -> tuple[bytes, ...]:
        """The search domains of whoever asks, in order, for `autopath @NAME`; empty: not known."""
        return ()

    def transfer(self, zone: bytes) -> list[Record] | None:
        """All records of a zone that this plugin is the source of, its SOA first and only once; None: not mine."""
        return None

    def zone_changed(self, zone: bytes) -> None:
        """A plugin of the same server block serves another version of a zone from now on."""

    async def start(self) -> None:
        """Begin background work; the sockets are open already."""

    async def close(self) -> None:
        """End background work."""

    @property
    def ready(self) -> bool:
        """Whether answers are complete."""
        return True


def longest_zone(name: bytes, zones: tuple[bytes, ...]) -> bytes:
    """The longest of `zones` that a lower-case name lies in; empty for none."""
    found = b""
    for zone in zones:
        if len(zone) > len(found) and name.endswith(zone) and (zone == names.ROOT or names.within(name, zone)):
            found = zone
    return found


async def follow(block: Block, query: Query, target: bytes) -> Response | None:
    """What the whole server says about the target of an alias, with the type that was asked for; None: too many of
    them led here."""
    if query.depth >= MOST_ALIASES:
        return None
    question = dataclasses.replace(query, name=target, question=b"", cls=1, depth=query.depth + 1)
    return await block.host.resolve(question, block.ports[0])


class Fallthrough:
    """`fallthrough [ZONES...]`: which denials go to the next plugin instead."""

    def __init__(self, directive: Directive | None = None) -> None:
        self.zones = directive.zones(directive.args) or (names.ROOT,) if directive else ()

    def __call__(self, name: bytes) -> bool:
        """Whether a denial of this lower-case name falls through."""
        return bool(self.zones and longest_zone(name, self.zones))

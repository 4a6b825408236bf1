"""The plugins of one server block, in order."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from netemu.dns import wire
from netemu.dns.corefile import Directive, ServerBlock
from netemu.dns.plugin import NEXT, Block, Host, Next, Plugin, Refuse, Result
from netemu.dns.plugins.bind import addresses
from netemu.dns.wire import Query, Response
from netemu.model.errors import UserError

log = logging.getLogger(__name__)

# The rule: what watches all replies stands first (it must see what everybody else does), then what reorders replies,
# then the cache (so that hits are watched and reordered too), then what answers, most specific first, then what asks
# others, and what answers everything last. It is CoreDNS's build-time order (`plugin.cfg`), whatever the order in the
# Corefile.
ORDER = (
    "reload", "bufsize", "ready", "health", "prometheus", "errors", "log", "rrl", "local", "dns64", "acl", "any",
    "chaos", "loadbalance", "cache", "rewrite", "header", "autopath", "minimal", "template", "transfer", "hosts",
    "kubernetes", "file", "loop", "forward", "erratic", "whoami",
)  # fmt: skip

KNOWN = ("root", "bind", *ORDER)
_REPEATABLE = frozenset(("forward", "template", "hosts", "log", "file"))
_TOGETHER = frozenset(("acl", "rewrite", "transfer"))
"""Plugins whose directives of one server block make one plugin: their order among each other matters."""


_Step = tuple[Plugin, tuple[Plugin, ...]]
"""Who is asked, and who looks at what it says, nearest first."""


class Chain:
    """One server block: asks its plugins in turn. Never raises."""

    def __init__(
        self, plugins: list[Plugin], zones: tuple[bytes, ...], on_panic: Callable[[], None] = lambda: None
    ) -> None:
        self.plugins, self.zones, self.on_panic = plugins, zones, on_panic
        self.any_class = any(plugin.any_class for plugin in plugins)
        self._steps, self._all = _steps(plugins)
        self.finishing = tuple(plugin for plugin in plugins if type(plugin).done is not Plugin.done)
        for at, plugin in enumerate(plugins, 1):
            plugin.siblings = tuple(plugins)
            plugin.rest = functools.partial(_ask, *_steps(plugins[at:]))

    def begin(self, query: Query) -> Response | Coroutine[Any, Any, Response]:
        """The block's answer to a query in its zones: itself where no plugin has to wait, else to be awaited."""
        if query.edns and query.edns.version:
            return Response(wire.BADVERS, aa=False)
        if query.cls != 1 and not self.any_class:
            return Response(wire.REFUSED, aa=False)
        try:
            begun = _begin(self._steps, self._all, query)
        except Exception:
            return self._broken(query)
        return begun if isinstance(begun, Response) else self._end(query, begun)

    async def _end(self, query: Query, begun: Coroutine[Any, Any, Response]) -> Response:
        try:
            return await begun
        except Exception:
            return self._broken(query)

    def _broken(self, query: Query) -> Response:
        """One strange question must not end the server; SERVFAIL is what CoreDNS says after a panic."""
        log.exception("query %r type %d", query.name, query.type)
        self.on_panic()
        return Response(wire.SERVFAIL, aa=False)

    async def serve(self, query: Query) -> Response:
        """The block's answer, in any case."""
        begun = self.begin(query)
        return begun if isinstance(begun, Response) else await begun


def _steps(plugins: list[Plugin]) -> tuple[tuple[_Step, ...], tuple[Plugin, ...]]:
    """Who is asked in turn, and who looks at the answer when nobody has one."""
    passed: list[Plugin] = []
    found: list[_Step] = []
    for plugin in plugins:
        if type(plugin).serve is not Plugin.serve:
            found.append((plugin, tuple(reversed(passed))))
        if type(plugin).after is not Plugin.after:
            passed.append(plugin)
    return tuple(found), tuple(reversed(passed))


def _begin(
    steps: tuple[_Step, ...], everybody: tuple[Plugin, ...], query: Query
) -> Response | Coroutine[Any, Any, Response]:
    for at, (plugin, before) in enumerate(steps):
        result = plugin.serve(query)
        if not isinstance(result, (Response, Refuse, Next)):
            return _wait(result, steps[at:], everybody, query)
        if result is not NEXT:
            return _passed_back(query, _response(result, plugin.name), before)
    return _passed_back(query, _response(NEXT, ""), everybody)


async def _wait(
    pending: Awaitable[Result], steps: tuple[_Step, ...], everybody: tuple[Plugin, ...], query: Query
) -> Response:
    """What the first of `steps` will say, or else what those behind it say."""
    result = await pending
    if result is NEXT:
        return await _ask(steps[1:], everybody, query)
    plugin, before = steps[0]
    return _passed_back(query, _response(result, plugin.name), before)


async def _ask(steps: tuple[_Step, ...], everybody: tuple[Plugin, ...], query: Query) -> Response:
    begun = _begin(steps, everybody, query)
    return begun if isinstance(begun, Response) else await begun


def _passed_back(query: Query, response: Response, plugins: tuple[Plugin, ...]) -> Response:
    for plugin in plugins:
        plugin.after(query, response)
    return response


def _response(result: Result, name: str) -> Response:
    if isinstance(result, Next):
        return Response(wire.SERVFAIL, aa=False, cause="no next plugin found")
    if isinstance(result, Refuse):
        return Response(result.rcode, aa=False, cause=result.cause, plugin=name)
    result.plugin = result.plugin or name
    return result


def build(block: ServerBlock, host: Host, first: Sequence[Plugin] = ()) -> tuple[Chain, tuple[str, ...]]:
    """The chain of a server block, and the addresses it is bound to (empty: all). Raises UserError.

    `first` are plugins that no Corefile names and that stand before all others.
    """
    for directive in block.directives:
        if directive.name not in KNOWN:
            raise directive.unknown(KNOWN, "directive")
    bound = [address for each in block.directives if each.name == "bind" for address in addresses(each)]
    bind = tuple(dict.fromkeys(bound))
    zones = tuple(zone for zone, _ in block.keys)
    roots = [each.one("a folder") for each in block.directives if each.name == "root"]
    where = Block(zones, tuple({port for _, port in block.keys}), host, bind, Path(*roots[-1:]))
    plugins = [*first]
    for name in ORDER:
        mentioned = [directive for directive in block.directives if directive.name == name]
        if mentioned and name in _TOGETHER:
            plugins.append(_setup(mentioned, where))
            continue
        if len(mentioned) > 1 and name not in _REPEATABLE:
            raise mentioned[1].error(
                f"{name} may stand only once in a server block; it does in line {mentioned[0].line}"
            )
        plugins += [_setup([directive], where) for directive in mentioned]
    return Chain(plugins, zones, lambda: host.metrics.add("coredns_panics_total")), bind


def _setup(directives: list[Directive], block: Block) -> Plugin:
    # Imported by name so that a Corefile costs only the plugins it mentions.
    first = directives[0]
    module = importlib.import_module(f"netemu.dns.plugins.{first.name}")
    try:
        plugin = module.setup_all(directives, block) if first.name in _TOGETHER else module.setup(first, block)
    except ValueError as error:
        raise first.error(f"{first.name}: {error}") from error
    if not isinstance(plugin, Plugin):
        raise UserError(f"plugin {first.name} is not one")
    plugin.name = first.name
    return plugin

"""The plugins of one server block, in order."""

from __future__ import annotations

import functools
import importlib
import logging

from netemu.dns import wire
from netemu.dns.corefile import Directive, ServerBlock
from netemu.dns.plugin import NEXT, Block, Host, Next, Plugin, Refuse, Result
from netemu.dns.wire import Query, Response
from netemu.model.errors import UserError

log = logging.getLogger(__name__)

# The rule: what watches all replies stands first (it must see what everybody else does), then what reorders replies,
# then the cache (so that hits are watched and reordered too), then what answers, most specific first, then what asks
# others, and what answers everything last. It is CoreDNS's build-time order (`plugin.cfg`), whatever the order in the
# Corefile.
ORDER = (
    "reload", "ready", "health", "prometheus", "errors", "log", "loadbalance", "cache", "template", "hosts",
    "kubernetes", "loop", "forward", "whoami",
)  # fmt: skip

KNOWN = ("bind", *ORDER)
_REPEATABLE = frozenset(("forward", "template", "hosts", "log"))


_Step = tuple[Plugin, tuple[Plugin, ...]]
"""Who is asked, and who looks at what it says, nearest first."""


class Chain:
    """One server block: asks its plugins in turn. Never raises."""

    def __init__(self, plugins: list[Plugin], zones: tuple[bytes, ...]) -> None:
        self.plugins, self.zones = plugins, zones
        self.any_class = any(plugin.any_class for plugin in plugins)
        self._steps, self._all = _steps(plugins)
        self.finishing = tuple(plugin for plugin in plugins if type(plugin).done is not Plugin.done)
        for at, plugin in enumerate(plugins, 1):
            plugin.siblings = tuple(plugins)
            plugin.rest = functools.partial(_ask, *_steps(plugins[at:]))

    async def serve(self, query: Query) -> Response:
        """The block's answer to a query in its zones."""
        if query.edns and query.edns.version:
            return Response(wire.BADVERS, aa=False)
        if query.cls != 1 and not self.any_class:
            return Response(wire.REFUSED, aa=False)
        try:
            return await _ask(self._steps, self._all, query)
        except Exception:  # one strange question must not end the server; SERVFAIL is what CoreDNS says after a panic
            log.exception("query %r type %d", query.name, query.type)
            return Response(wire.SERVFAIL, aa=False)


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


async def _ask(steps: tuple[_Step, ...], everybody: tuple[Plugin, ...], query: Query) -> Response:
    result: Result = NEXT
    passed, name = everybody, ""
    for plugin, before in steps:
        result = await plugin.serve(query)
        if result is not NEXT:
            passed, name = before, plugin.name
            break
    response = _response(result, name)
    for plugin in passed:
        plugin.after(query, response)
    return response


def _response(result: Result, name: str) -> Response:
    if isinstance(result, Next):
        return Response(wire.SERVFAIL, aa=False, cause="no next plugin found")
    if isinstance(result, Refuse):
        return Response(result.rcode, aa=False, cause=result.cause, plugin=name)
    result.plugin = result.plugin or name
    return result


def build(block: ServerBlock, host: Host) -> tuple[Chain, tuple[str, ...]]:
    """The chain of a server block, and the addresses it is bound to (empty: all). Raises UserError."""
    for directive in block.directives:
        if directive.name not in KNOWN:
            raise directive.unknown(KNOWN, "directive")
    bind = tuple(arg for each in block.directives if each.name == "bind" for arg in each.args)
    zones = tuple(zone for zone, _ in block.keys)
    where = Block(zones, tuple({port for _, port in block.keys}), host, bind)
    plugins = []
    for name in ORDER:
        mentioned = [directive for directive in block.directives if directive.name == name]
        if len(mentioned) > 1 and name not in _REPEATABLE:
            raise mentioned[1].error(
                f"{name} may stand only once in a server block; it does in line {mentioned[0].line}"
            )
        plugins += [_setup(directive, where) for directive in mentioned]
    return Chain(plugins, zones), bind


def _setup(directive: Directive, block: Block) -> Plugin:
    # Imported by name so that a Corefile costs only the plugins it mentions.
    module = importlib.import_module(f"netemu.dns.plugins.{directive.name}")
    try:
        plugin = module.setup(directive, block)
    except ValueError as error:
        raise directive.error(f"{directive.name}: {error}") from error
    if not isinstance(plugin, Plugin):
        raise UserError(f"plugin {directive.name} is not one")
    plugin.name = directive.name
    return plugin

"""`log [NAME...] [FORMAT]`: a line for every query.

    log [NAME...] [FORMAT] {
        class CLASS...
        minDuration DURATION
    }

FORMAT is text with placeholders: `{type} {name} {class} {proto} {remote} {local} {port} {size} {rcode} {rsize}
{duration} {>rflags} {>bufsize} {>do} {>id} {>opcode}`; `{common}`, the default, and `{combined}` are whole formats.
Only queries for the NAMEs (all of the server block's zones) and answers of the classes are logged: success (NOERROR
with answers), denial (NXDOMAIN, NODATA), error (SERVFAIL, NOTIMP, REFUSED), all - and with `minDuration` also any that
took longer. Several directives may stand in a server block; each logs for itself (`coredns/plugin/log`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from netemu.dns import names, wire
from netemu.dns.corefile import Directive, nearest
from netemu.dns.plugin import Block, Plugin, longest_zone
from netemu.dns.wire import Query, Response
from netemu.model.hosts import bracketed

log = logging.getLogger(__name__)
_CLASSES = ("all", "success", "denial", "error")
_OPTIONS = ("class", "minDuration")
COMMON = '{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" {rcode} {>rflags} {rsize} {duration}'  # noqa: E501
COMBINED = COMMON.replace("{type}", "{>opcode} {type}")
_PLACEHOLDER = re.compile(r"\{[^{}\s]+\}")


class Log(Plugin):
    """One directive."""

    def __init__(self, zones: tuple[bytes, ...], form: str, classes: frozenset[str], slow: float | None) -> None:
        self.zones, self.form, self.classes, self.slow = zones, form, classes, slow

    def after(self, query: Query, response: Response) -> None:
        """Finished answers would pass unlogged."""
        response.stable = False

    def done(self, query: Query, response: Response, size: int, seconds: float) -> None:
        """See Plugin."""
        if not longest_zone(query.lower, self.zones):
            return
        slow = self.slow is not None and seconds >= self.slow
        if slow or not self.classes.isdisjoint(("all", classify(response))):
            log.info("%s", line(self.form, query, response, size, seconds))


def classify(response: Response) -> str:
    """success, denial or error (`coredns/plugin/pkg/response/classify.go`)."""
    if response.rcode == wire.NXDOMAIN:
        return "denial"
    if response.rcode != wire.NOERROR:
        return "error"
    delegation = any(record.type == wire.NS for record in response.authority)
    return "success" if response.answers or delegation else "denial"


def line(form: str, query: Query, response: Response, size: int, seconds: float) -> str:
    """A format filled in."""

    def value(match: re.Match[str]) -> str:
        known = _VALUES.get(match[0][1:-1])
        return known(query, response, size, seconds) if known else match[0]

    return _PLACEHOLDER.sub(value, form)


def _flags(response: Response, query: Query) -> str:
    found = ["qr"] + [name for name in ("aa", "tc") if getattr(response, name)]
    found += ["rd"] if query.flags & wire.RD else []
    found += ["ra"] if response.ra else []
    found += ["cd"] if query.flags & wire.CD else []
    return ",".join(found)


_VALUES: dict[str, Callable[[Query, Response, int, float], str]] = {
    "type": lambda query, *_: wire.type_name(query.type),
    "name": lambda query, *_: names.text(query.name),
    "class": lambda query, *_: "IN" if query.cls == 1 else f"CLASS{query.cls}",
    "proto": lambda query, *_: query.transport,
    "remote": lambda query, *_: bracketed(query.client[0]),
    "local": lambda *_: "-",
    "port": lambda query, *_: str(query.client[1]),
    "size": lambda query, *_: str(query.size),
    "rcode": lambda _, response, *__: wire.rcode_name(response.rcode),
    "rsize": lambda _, __, size, ___: str(size),
    "duration": lambda _, __, ___, seconds: f"{seconds:.9f}s",
    ">rflags": lambda query, response, *_: _flags(response, query),
    ">bufsize": lambda query, *_: str(query.edns.size if query.edns else 512),
    ">do": lambda query, *_: str(query.do).lower(),
    ">id": lambda query, *_: str(query.id),
    ">opcode": lambda query, *_: str(query.flags >> 11 & 15),
}


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    words = list(directive.args)
    form = COMMON
    if words and "{" in words[-1]:
        form = words.pop().replace("{common}", COMMON).replace("{combined}", COMBINED)
    for placeholder in _PLACEHOLDER.findall(form):
        if placeholder[1:-1] not in _VALUES:
            near = nearest(placeholder, [f"{{{name}}}" for name in _VALUES])
            raise directive.error(f"log: unknown placeholder {placeholder}{near}")
    classes: frozenset[str] = frozenset()
    slow = None
    for option in directive.options:
        if option.name == "class":
            classes |= _classes(option)
        elif option.name == "minDuration":
            slow = option.duration()
        else:
            raise option.unknown(_OPTIONS)
    return Log(directive.zones(words) or block.zones, form, classes or frozenset(("all",)), slow)


def _classes(option: Directive) -> frozenset[str]:
    for word in option.args:
        if word not in _CLASSES:
            raise option.error(f"log: unknown class {word!r}; expected {', '.join(_CLASSES)}")
    if not option.args:
        raise option.error(f"class: expected at least one of {', '.join(_CLASSES)}")
    return frozenset(option.args)

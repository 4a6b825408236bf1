"""`errors`: a line in the log for every query that could not be answered properly, with the cause.

    errors [stdout] {
        stacktrace
        consolidate DURATION PATTERN [LEVEL] [show_first]
    }

A line has the code, the name, the type and the cause. A cause that fits the regular expression of a `consolidate` is
not logged by itself: DURATION after the first, one line tells how many there were, at LEVEL (error, warning, info or
debug); with `show_first` the first is logged at once too. The first pattern that fits takes it. `stacktrace` is there
already: bugs are logged with their stack (`coredns/plugin/errors`).
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass

from netemu.dns import names
from netemu.dns.corefile import Directive, parse_duration
from netemu.dns.plugin import Block, Plugin
from netemu.dns.wire import Query, Response, type_name

log = logging.getLogger(__name__)
_OPTIONS = ("stacktrace", "consolidate")
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}


@dataclass(slots=True)
class Consolidated:
    """Causes of one kind, counted from the first of them until `period` has passed."""

    period: str
    seconds: float
    pattern: re.Pattern[str]
    level: int = logging.ERROR
    show_first: bool = False
    count: int = 0
    timer: asyncio.TimerHandle | None = None

    def add(self, line: str) -> None:
        """One more."""
        self.count += 1
        if self.timer is None:
            if self.show_first:
                log.log(self.level, "%s", line)
            self.timer = asyncio.get_running_loop().call_later(self.seconds, self.report)

    def report(self) -> None:
        """Tell, and begin anew; one that was shown already is not told of again."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        if self.count > self.show_first:
            pattern = self.pattern.pattern
            log.log(
                self.level, "plugin/errors: %d errors like '%s' occurred in last %s", self.count, pattern, self.period
            )
        self.count = 0


class Errors(Plugin):
    """Logs `response.cause` in CoreDNS's form: code, name, type, cause."""

    def __init__(self, consolidated: list[Consolidated]) -> None:
        self.consolidated = consolidated

    def after(self, query: Query, response: Response) -> None:
        """See Plugin."""
        cause = response.cause
        if not cause:
            return
        line = f"plugin/errors: {response.rcode} {names.text(query.name)} {type_name(query.type)}: {cause}"
        for each in self.consolidated:
            if each.pattern.search(cause):
                each.add(line)
                return
        log.error("%s", line)

    async def close(self) -> None:
        """See Plugin."""
        for each in self.consolidated:
            each.report()


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if directive.args not in ((), ("stderr",), ("stdout",)):
        raise directive.error(f"errors: expected nothing or stdout, got {' '.join(directive.args)}")
    consolidated = []
    for option in directive.options:
        if option.name == "consolidate":
            consolidated.append(_consolidate(option))
        elif option.name == "stacktrace":
            option.none()
        else:
            raise option.unknown(_OPTIONS)
    return Errors(consolidated)


def _consolidate(option: Directive) -> Consolidated:
    if not 2 <= len(option.args) <= 4:
        raise option.error("consolidate: expected DURATION PATTERN [LEVEL] [show_first]")
    period, pattern, *rest = option.args
    seconds = parse_duration(period)
    if not seconds:
        raise option.error(f"consolidate: {period!r} is not a duration like 30s")
    show_first = rest[-1:] == ["show_first"]
    level = "".join(rest[:-1] if show_first else rest) or "error"
    if level not in _LEVELS:
        raise option.error(f"consolidate: unknown level {level!r}; expected {', '.join(_LEVELS)}")
    return Consolidated(period, seconds, option.pattern(pattern), _LEVELS[level], show_first)

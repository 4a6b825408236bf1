"""`erratic`: a server that misbehaves on purpose, for trying out clients.

    erratic {
        drop [N]
        truncate [N]
        delay [N [DURATION]]
        large
    }

Every A question is answered with 192.0.2.53, every AAAA question with 2001:db8::53 and everything else with SERVFAIL;
but the first question and every Nth after it is dropped, truncated (TC is set) or delayed. N is 2 by default, 0 means
never, the delay is 100ms; without any option every second question is dropped. `large` puts 30 records into an A
answer, too many for 512 octets. Being one of the last plugins, it gets what no other wanted (`coredns/plugin/erratic`).
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

from netemu.dns import wire
from netemu.dns.corefile import Directive, parse_duration
from netemu.dns.plugin import Block, Plugin, Refuse, Result
from netemu.dns.wire import Query, Record, Response

_EVERY, _DELAY = 2, 0.1
_OPTIONS = ("drop", "truncate", "delay", "large")
_ADDRESSES = {wire.A: bytes((192, 0, 2, 53)), wire.AAAA: b"\x20\x01\x0d\xb8" + bytes(11) + b"\x53"}
_LARGE = 30


@dataclass(slots=True)
class Settings:
    """Which questions meet with what: every nth; 0: none."""

    drop: int = 0
    truncate: int = 0
    delay: int = 0
    seconds: float = _DELAY
    large: bool = False


class Erratic(Plugin):
    """Counts questions from 0."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._numbers = itertools.count()

    async def serve(self, query: Query) -> Result:
        """See Plugin."""
        settings, number = self.settings, next(self._numbers)
        if settings.drop and number % settings.drop == 0:
            return Response(silent=True)
        if settings.delay and number % settings.delay == 0:
            await asyncio.sleep(settings.seconds)
        address = _ADDRESSES.get(query.type)
        if address is None:
            return Refuse(wire.SERVFAIL)
        count = _LARGE if settings.large and query.type == wire.A else 1
        truncated = bool(settings.truncate) and number % settings.truncate == 0
        return Response(answers=[Record(query.name, query.type, 0, address)] * count, tc=truncated)


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    if directive.args:
        raise directive.error("erratic takes no arguments; its options stand in a block")
    settings = Settings()
    for option in directive.options:
        _option(settings, option)
    if not (settings.delay or settings.truncate or any(option.name == "drop" for option in directive.options)):
        settings.drop = _EVERY
    return Erratic(settings)


def _option(settings: Settings, option: Directive) -> None:
    if option.name not in _OPTIONS:
        raise option.unknown(_OPTIONS)
    if option.name == "large":
        option.none()
        settings.large = True
        return
    most = 2 if option.name == "delay" else 1
    if len(option.args) > most or (option.args and not option.args[0].isdecimal()):
        raise option.error(f"{option.name}: expected [N]{' [DURATION]' if most == 2 else ''}")
    every = int(option.args[0]) if option.args else _EVERY
    if len(option.args) == 2:
        seconds = parse_duration(option.args[1])
        if seconds is None:
            raise option.error(f"delay: {option.args[1]!r} is not a duration like 100ms")
        settings.seconds = seconds
    setattr(settings, option.name, every)

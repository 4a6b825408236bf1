"""What commands have in common that watch until somebody has seen enough."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from netemu.cli.output import note
from netemu.lab.addresses import CurrentNames

_LOOK: Final = 1.0
"""Seconds between looks whether what is watched is still there."""


class Watching:
    """When to end: after so many seconds (0: never), when interrupted, or when what is watched went away.

    Within the `with` block the first Ctrl-C or SIGTERM only asks for the end; the second breaks off. The end of whoever
    reads standard output is one more way to end, and no mistake.
    """

    def __init__(self, duration: float, gone: Callable[[], bool]) -> None:
        self._deadline = time.monotonic() + duration if duration else float("inf")
        self._look, self._next = gone, 0.0
        self.gone, self._asked = False, False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Watching:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is not None and issubclass(kind, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still unwritten would be tried again at the exit
            return True
        return False

    def _ask(self, number: int, _: FrameType | None) -> None:
        self._asked = True
        signal.signal(number, signal.default_int_handler)

    def over(self) -> bool:
        """Whether to end."""
        now = time.monotonic()
        if now > self._next:
            self._next, self.gone = now + _LOOK, self._look()
        return self._asked or self.gone or now > self._deadline


def limits(duration: float, count: int = 0) -> str:
    """What ends it, for the first line."""
    named = [f"{count} packets"] * bool(count) + [f"{duration:g} s"] * bool(duration)
    return f"ends after {' or '.join(named)}" if named else "Ctrl-C ends it"


def named(lab: str) -> CurrentNames:
    """The names of a lab, with a word to whoever reads them where Services have none."""
    names = CurrentNames(lab)
    if names.problem:
        note(f"warning: Services are told by their addresses: {names.problem}")
    return names

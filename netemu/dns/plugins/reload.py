"""`reload [INTERVAL] [JITTER]`: the Corefile is read again when it has changed; a bad one changes nothing.

It is read every INTERVAL (30s), shifted by up to half of JITTER (15s, at most half of the interval) at random, so that
many servers do not reload at once. Files and snippets that it imports count as part of it. Beyond CoreDNS, a Corefile
that has been replaced is noticed within half a second: who edits it is waiting; one that is gone counts as a bad one
after two. Running queries are
answered by the old configuration, and new ones wait for nothing: the new plugins start before the old ones end
(`coredns/plugin/reload`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from pathlib import Path

from netemu.dns import corefile
from netemu.dns.corefile import Directive, ServerBlock, parse_duration
from netemu.dns.plugin import Block, Host, Plugin
from netemu.model.errors import NetemuError, UserError

log = logging.getLogger(__name__)

_GLANCE = 0.5
"""Seconds between two looks at whether the file is still the same one."""
_AWAY = 2.0
"""Seconds for which a file may be missing."""


class Reload(Plugin):
    """Looks every `interval` seconds, shifted at random so that many servers do not reload at once."""

    def __init__(self, host: Host, interval: float, jitter: float) -> None:
        self.host, self.interval, self.jitter = host, interval, jitter
        self._task: asyncio.Task[None] | None = None
        # Now, and not when the task begins: what changes in between must be seen.
        self._known = _meaning(host.corefile) if host.corefile else ""

    async def start(self) -> None:
        """See Plugin."""
        if self.host.corefile:
            self._task = asyncio.create_task(self._watch(), name="dns reload")

    async def _watch(self) -> None:
        assert self.host.corefile
        while True:
            await self._pause(self.host.corefile)
            await _return(self.host.corefile)
            found = _meaning(self.host.corefile)
            if found == self._known:
                continue
            self._known = found
            # Reloading closes this plugin, so the work belongs to a task of its own.
            task = asyncio.create_task(_reload(self.host), name="dns reloading")
            await asyncio.shield(task)

    async def _pause(self, path: Path) -> None:
        """Until the interval is over or the file is another."""
        loop, before = asyncio.get_running_loop(), _identity(path)
        end = loop.time() + self.interval + random.uniform(-1, 1) * self.jitter / 2
        while loop.time() < end and _identity(path) == before:  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(min(_GLANCE, self.interval))

    async def close(self) -> None:
        """See Plugin."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


async def _return(path: Path) -> None:
    """Give a file that is not there a while to come: a ConfigMap volume may be being replaced. One that stays away is
    as bad as one that cannot be read."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _AWAY
    while not path.exists() and loop.time() < end:  # noqa: ASYNC110 - files tell nobody
        await asyncio.sleep(min(_GLANCE, _AWAY))


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file: inode, time and size."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _meaning(path: Path) -> list[ServerBlock] | str:
    """What a Corefile says, its imports included, or what is wrong with it."""
    try:
        return corefile.load(path)
    except UserError as error:
        return str(error)


async def _reload(host: Host) -> None:
    try:
        await host.reload()
        log.info("plugin/reload: running configuration replaced")
        host.say("Normal", "Reloaded", f"running what {host.corefile} says now")
    except NetemuError as error:
        log.error("plugin/reload: keeping the old configuration: %s", error)
        host.say("Warning", "ReloadFailed", f"keeping the old configuration: {error}")


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    seconds = [parse_duration(word) for word in directive.args]
    if len(seconds) > 2 or None in seconds or directive.options:
        raise directive.error("reload: expected [INTERVAL] [JITTER], for example `reload 30s 15s`")
    interval = (seconds[0] if seconds else None) or 30.0
    jitter = seconds[1] if len(seconds) > 1 else None
    return Reload(block.host, interval, interval / 2 if jitter is None else min(jitter, interval / 2))

"""The node agent's half of the store of listening sockets; `fd_store` is the supervisor's and has the protocol.

Nothing here waits for the supervisor except `forget`: what does not fit into the channel is sent when it does. If the
supervisor is gone, sockets are simply not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence

from netemu.lab.fd_store import FORGET, KEEP

log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds to wait for an answer. The supervisor has nothing else to do; later means that it is stopped."""
_AT_ONCE = 100
"""Names in a message."""


class KeptSockets:
    """See runtime.socket_store.SocketStore. Made and used in a running event loop."""

    def __init__(self, channel: socket.socket, kept: Mapping[str, int]) -> None:
        """`kept`: what an earlier process kept, as open descriptors of this one, which now belong to this object."""
        self._channel, self._kept = channel, dict(kept)
        for fd in self._kept.values():
            os.set_inheritable(fd, False)
        channel.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel, self._readable)
        self._unsent: deque[tuple[bytes, int]] = deque()
        """Messages and, where one goes with it, a descriptor of their own; -1 without."""
        self._unanswered: deque[asyncio.Future[None]] = deque()
        self._gone = False

    @classmethod
    def inherited(cls, channel: int, index: int) -> KeptSockets:
        """From the two descriptors that a supervisor gives the process it starts."""
        os.set_inheritable(channel, False)
        with os.fdopen(index) as file:
            return cls(socket.socket(fileno=channel), json.load(file))

    @property
    def left(self) -> list[str]:
        """Names of what an earlier process kept and nobody has taken."""
        return list(self._kept)

    def keep(self, name: str, sock: socket.socket) -> None:
        """See SocketStore."""
        self._send(f"{KEEP} {name}".encode(), sock.fileno())

    def take(self, name: str) -> socket.socket | None:
        """See SocketStore."""
        fd = self._kept.pop(name, -1)
        if fd < 0:
            return None
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        return sock

    async def forget(self, names: Sequence[str]) -> None:
        """See SocketStore."""
        for name in names:
            if (fd := self._kept.pop(name, -1)) >= 0:
                os.close(fd)
        answers = []
        for start in range(0, len(names), _AT_ONCE):
            self._send(" ".join((FORGET, *names[start : start + _AT_ONCE])).encode(), -1)
            if self._gone:
                return
            answers.append(self._loop.create_future())
            self._unanswered.append(answers[-1])
        if answers:
            await asyncio.wait(answers, timeout=_PATIENCE)

    def close(self) -> None:
        """Let go of the channel; what is kept stays kept."""
        if self._gone:
            return
        self._gone = True
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.close()
        for _, fd in self._unsent:
            if fd >= 0:
                os.close(fd)
        self._unsent.clear()
        for answer in self._unanswered:
            if not answer.done():
                answer.set_result(None)
        self._unanswered.clear()

    def _send(self, message: bytes, fd: int) -> None:
        if self._gone:
            return
        if self._unsent or not self._sent(message, fd):
            # The caller may close its descriptor before this one is sent.
            self._unsent.append((message, os.dup(fd) if fd >= 0 else -1))
            self._loop.add_writer(self._channel, self._writable)

    def _sent(self, message: bytes, fd: int) -> bool:
        """Whether the message is on its way, or past all hope."""
        try:
            socket.send_fds(self._channel, [message], [fd] if fd >= 0 else [])
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(str(error))
        return True

    def _writable(self) -> None:
        while self._unsent and self._sent(*self._unsent[0]):
            if not self._unsent:  # lost meanwhile
                return
            _, fd = self._unsent.popleft()
            if fd >= 0:
                os.close(fd)
        if not self._unsent and not self._gone:
            self._loop.remove_writer(self._channel)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    answer = self._channel.recv(64)
                except ConnectionError:
                    answer = b""
                if not answer:
                    self._lost("closed")
                    return
                if self._unanswered and not (first := self._unanswered.popleft()).done():
                    first.set_result(None)

    def _lost(self, why: str) -> None:
        log.warning("no supervisor any more (%s): listening sockets will end with this process", why)
        self.close()

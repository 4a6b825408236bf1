"""Netlink sockets for questions and for many small changes: what ipset and IPVS have in common.

Theory of operation: the kernel works requests off within sendmsg, and every netlink family takes many messages in one
buffer. Refusals are answered always, success only where it is asked for, so of each buffer only the last message asks:
its acknowledgement is the end of the answers. Nothing here is a transaction; what comes after a refusal is done too.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

from netemu.kernel import netns as namespaces
from netemu.kernel.nfnetlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, refusal, split
from netemu.model.errors import KernelError

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_HEADER: Final = struct.Struct("=IHHII")
_BUFFER: Final = 1 << 20
# Every request may be refused, and all answers must fit the receive buffer.
_AT_ONCE: Final = 256


class Message(Struct, frozen=True):
    """One request: netlink type, flags besides REQUEST, and everything after the header."""

    kind: int
    flags: int
    body: bytes


class Refused(Struct, frozen=True):
    """The request at `index` was refused."""

    index: int
    code: int
    detail: str


class Requests:
    """A netlink socket of `protocol` in the namespace `netns` ("" for the calling thread's). Calls block shortly."""

    def __init__(self, netns: str, protocol: int) -> None:
        self.netns = netns
        with namespaces.entered(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def ask(self, message: Message, operation: str, *, dump: bool = False) -> list[bytes]:
        """What the kernel answers, each without the netlink header. Raises KernelError."""
        flags = message.flags | (NLM_F_DUMP if dump else NLM_F_ACK)
        (sequence,) = self._send([Message(message.kind, flags, message.body)])
        answers: list[bytes] = []
        for got, kind, answer_flags, payload in self._answers():
            if got != sequence:
                continue
            if kind == _NLMSG_DONE:
                return answers
            if kind == _NLMSG_ERROR:
                found = refusal(got, answer_flags, payload)
                if found.code:
                    raise KernelError.of(operation, self.netns, found.code, found.detail)
                return answers
            answers.append(payload)
        raise AssertionError("a socket has no end")

    def change(self, messages: Sequence[Message]) -> list[Refused]:
        """Try all of them, in order; what was refused."""
        refused: list[Refused] = []
        for start in range(0, len(messages), _AT_ONCE):
            part = list(messages[start : start + _AT_ONCE])
            part[-1] = Message(part[-1].kind, part[-1].flags | NLM_F_ACK, part[-1].body)
            first = self._sequence + 1
            last = self._send(part)[-1]
            for sequence, kind, flags, payload in self._answers():
                if kind != _NLMSG_ERROR or not first <= sequence <= last:
                    continue
                found = refusal(sequence, flags, payload)
                if found.code:
                    refused.append(Refused(start + sequence - first, found.code, found.detail))
                if sequence == last:
                    break
        return refused

    def _send(self, messages: Sequence[Message]) -> list[int]:
        sequences, data = [], bytearray()
        for message in messages:
            self._sequence += 1
            sequences.append(self._sequence)
            data += _HEADER.pack(16 + len(message.body), message.kind, message.flags | NLM_F_REQUEST, self._sequence, 0)
            data += message.body + bytes(-len(message.body) % 4)
        self._socket.send(data)
        return sequences

    def _answers(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            yield from split(self._socket.recv(1 << 18))

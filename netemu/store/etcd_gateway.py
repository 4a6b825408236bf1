"""etcd v3's JSON gateway: calls that fail over between members, and streams of answers.

etcd serves its gRPC methods as JSON under `/v3/` on the same port and with the same certificates (etcd's
`Documentation/dev-guide/api_grpc_gateway`), so HTTP is all it takes: aiohttp's for streams, and for calls, of which
there are many, connections of our own (`etcd_connection`). Bytes are base64 there, and 64-bit numbers strings; msgspec
reads both into what they are.

A member is tried until it fails, or does not answer for 2.5 s, then the next, and streams from it end, for a hung one
would leave them silent; the one that answered last is asked first. A call that certainly did
nothing is repeated on the next member until the patience ends. Where a member may have done what it was asked and only
the answer is lost, `MaybeDone` is raised at once: only the caller knows how to find out.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec

from netemu.kernel import netns
from netemu.model.errors import ServiceUnavailable
from netemu.store.base import StoreError
from netemu.store.etcd_connection import Connections, Unreachable

PATIENCE = 10.0
"""Seconds that a call goes on trying: an election takes one to two of them."""
_CONNECT_SECONDS = 1.0
_PAUSE_SECONDS = 0.1
_UNSENT = ("Accept", "Accept-Encoding", "User-Agent")

_INVALID, _NOT_FOUND, _EXHAUSTED, _PRECONDITION, _OUT_OF_RANGE, _UNIMPLEMENTED = 3, 5, 8, 9, 11, 12
_FINAL = frozenset({_INVALID, _NOT_FOUND, _EXHAUSTED, _PRECONDITION, _OUT_OF_RANGE, _UNIMPLEMENTED})
"""gRPC codes of refusals that every member would repeat, and that leave nothing written."""
_COMPACTED = "required revision has been compacted"
_NOT_DONE = ("no leader", "not ready", "not capable", "too many requests", "learner", "corrupt cluster")
"""Refusals that etcd gives before it proposes a write (etcd's `api/v3rpc/rpctypes/error.go`)."""

_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class MaybeDone(Exception):
    """A member may have done what it was asked: its answer got lost."""


class GatewayError(StoreError):
    """etcd understood, and refused for good."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"etcd: {message}")

    @property
    def compacted(self) -> bool:
        """Whether the revision that was asked for is compacted away."""
        return self.code == _OUT_OF_RANGE and _COMPACTED in str(self)

    @property
    def full(self) -> bool:
        """Whether etcd takes no more writes because its space is used up."""
        return self.code == _EXHAUSTED


class Header(msgspec.Struct):
    """In every answer: the revision of the store when it was given."""

    revision: int = 0


class Pair(msgspec.Struct):
    """etcd's mvccpb.KeyValue."""

    key: bytes = b""
    value: bytes = b""
    mod_revision: int = 0


class RangeAnswer(msgspec.Struct):
    """Answer to `kv/range`."""

    header: Header = msgspec.field(default_factory=Header)
    kvs: list[Pair] = msgspec.field(default_factory=list)
    more: bool = False


class TxnPart(msgspec.Struct):
    """Answer to one operation of a transaction; only ranges are of interest."""

    response_range: RangeAnswer | None = None


class TxnAnswer(msgspec.Struct):
    """Answer to `kv/txn`."""

    header: Header = msgspec.field(default_factory=Header)
    succeeded: bool = False
    responses: list[TxnPart] = msgspec.field(default_factory=list)


class LeaseAnswer(msgspec.Struct):
    """Answer to `lease/grant`."""

    id: int = msgspec.field(name="ID", default=0)


class Done(msgspec.Struct):
    """Answer of which only the arrival matters."""


class Event(msgspec.Struct):
    """etcd's mvccpb.Event."""

    kv: Pair
    type: Literal["PUT", "DELETE"] = "PUT"
    prev_kv: Pair | None = None


class WatchAnswer(msgspec.Struct):
    """One message of a watch."""

    header: Header = msgspec.field(default_factory=Header)
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[Event] = msgspec.field(default_factory=list)


class _Failure(msgspec.Struct):
    """How the gateway tells of an error: with `message` by 3.4 and later, with `error` by all."""

    code: int = 0
    error: str = ""
    message: str = ""


class _Line(msgspec.Struct):
    """One line of a stream."""

    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class Gateway:
    """The members of one cluster. Belongs to the event loop it was made in."""

    def __init__(self, endpoints: Sequence[str], tls: ssl.SSLContext | None, namespace: str = "") -> None:
        """`endpoints` are URLs like `https://127.0.0.1:2379`, reached from a network namespace ("": this process's);
        `tls` checks the members and has our certificate."""
        self._namespace = namespace
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._connections = {endpoint: Connections(endpoint, tls, namespace) for endpoint in self._endpoints}
        self._preferred = 0
        self._streams: dict[str, set[aiohttp.ClientResponse]] = {endpoint: set() for endpoint in self._endpoints}
        connector = aiohttp.TCPConnector(limit=0, ssl=tls or True, socket_factory=self._socket)
        # Where a request has Accept, etcd 3.4 warns of the gateway's own certificate, each time.
        self._session = aiohttp.ClientSession(connector=connector, skip_auto_headers=_UNSENT)

    def _socket(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        return netns.open_socket(self._namespace, family, kind, protocol)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()
        for connections in self._connections.values():
            await connections.close()

    async def call(self, method: str, body: Any, answer: type[_Answer], *, repeatable: bool = True) -> _Answer:
        """The answer of whichever member gives one.

        Raises GatewayError; ServiceUnavailable when no member answered and nothing was done; MaybeDone only where the
        call is not `repeatable`.
        """
        content, loop = msgspec.json.encode(body), asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while True:
            endpoint = self._endpoints[self._preferred]
            try:
                return await self._ask(endpoint, method, content, answer)
            except MaybeDone as error:
                self._fail_over(endpoint)
                if not repeatable:
                    raise
                problem: Exception = error
            except ServiceUnavailable as error:
                self._fail_over(endpoint)
                problem = error
            if loop.time() >= deadline:
                raise ServiceUnavailable(f"no member of etcd answers: {problem}") from problem
            await asyncio.sleep(_PAUSE_SECONDS)

    def _fail_over(self, failed: str) -> None:
        """Ask the member after `failed` first from now on, unless another caller has found that out already."""
        if self._endpoints[self._preferred] == failed:
            self._preferred = (self._preferred + 1) % len(self._endpoints)
        for response in self._streams[failed]:
            response.close()

    async def _ask(self, endpoint: str, method: str, content: bytes, answer: type[_Answer]) -> _Answer:
        try:
            status, text = await self._connections[endpoint].post(f"/v3/{method}", content)
            if status == 200:
                return msgspec.json.decode(text, type=answer, strict=False)
        except Unreachable as error:
            raise ServiceUnavailable(f"{endpoint}: {error}") from error
        except (OSError, EOFError, msgspec.DecodeError) as error:
            raise MaybeDone(f"{endpoint}: {str(error) or type(error).__name__}") from error
        raise _failure(endpoint, text)

    @asynccontextmanager
    async def stream(self, method: str, body: Any) -> AsyncGenerator[AsyncGenerator[list[bytes], None], None]:
        """The answers to one call, as JSON texts in the batches in which they arrive, from the preferred member.

        Raises GatewayError, and ServiceUnavailable when the stream breaks. That, raised by who reads it, is also how to
        give up the member.
        """
        endpoint = self._endpoints[self._preferred]
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        # A member that lost its leader ends the stream instead of being silent.
        headers = {"Grpc-Metadata-hasleader": "true"}
        try:
            async with self._session.post(
                f"{endpoint}/v3/{method}", data=msgspec.json.encode(body), timeout=timeout, headers=headers
            ) as response:
                if response.status != 200:
                    raise _as_refusal(_failure(endpoint, await response.read()))
                answers = _answers(endpoint, response)
                self._streams[endpoint].add(response)
                try:
                    yield answers
                finally:
                    self._streams[endpoint].discard(response)
                    await answers.aclose()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._fail_over(endpoint)
            raise ServiceUnavailable(f"{endpoint}: {error or type(error).__name__}") from error
        except ServiceUnavailable:
            self._fail_over(endpoint)
            raise


async def _answers(endpoint: str, response: aiohttp.ClientResponse) -> AsyncGenerator[list[bytes], None]:
    rest = bytearray()
    async for data in response.content.iter_any():
        rest += data
        if b"\n" not in data:
            continue
        whole, _, tail = bytes(rest).rpartition(b"\n")
        rest = bytearray(tail)
        yield [_result(endpoint, line) for line in whole.splitlines() if line]


def _result(endpoint: str, text: bytes) -> bytes:
    line = msgspec.json.decode(text, type=_Line)
    if not bytes(line.result):
        raise _as_refusal(_failure(endpoint, bytes(line.error)))
    return bytes(line.result)


def _as_refusal(error: Exception) -> Exception:
    """A stream does nothing that could be done twice."""
    return ServiceUnavailable(str(error)) if isinstance(error, MaybeDone) else error


def _failure(endpoint: str, text: bytes) -> Exception:
    """What an error's JSON means for the caller."""
    try:
        told = msgspec.json.decode(text, type=_Failure)
    except msgspec.DecodeError:
        return MaybeDone(f"{endpoint}: {text[:200].decode(errors='replace')}")
    message = told.message or told.error
    where = f"{endpoint}: {message}"
    if any(word in message for word in _NOT_DONE):
        return ServiceUnavailable(where)
    return GatewayError(told.code, message) if told.code in _FINAL else MaybeDone(where)

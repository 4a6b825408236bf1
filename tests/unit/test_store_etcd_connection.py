"""Connections to a member of etcd: forms of answers, when a connection is used again, and what failures say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from netemu.store.etcd_connection import Answer, Connections, Unreachable

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKS = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\nA\r\n"bcdefgh"}\r\n0\r\n\r\n'
REFUSAL = b'HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n{"code": 11}'


class Member:
    """Gives one answer after the other; an empty one closes the connection."""

    def __init__(self, answers: Iterator[bytes]) -> None:
        self._answers = answers
        self.connections = 0
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while answer := next(self._answers):
                self.requests.append(await reader.readuntil(b"}"))
                for at in range(0, len(answer), 7):  # as a network may cut it
                    writer.write(answer[at : at + 7])
                    await writer.drain()
                    await asyncio.sleep(0)
        except EOFError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def asking(*answers: bytes) -> AsyncIterator[tuple[Member, Connections]]:
    member = Member(iter([*answers, b""]))
    server = await asyncio.start_server(member.serve, "127.0.0.1", 0)
    connections = Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, "")
    yield member, connections
    await connections.close()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        pytest.param(LENGTH, Answer(200, b"{}"), id="with its length"),
        pytest.param(CHUNKS, Answer(200, b'{"a":"bcdefgh"}'), id="in chunks"),
        pytest.param(REFUSAL, Answer(400, b'{"code": 11}'), id="a refusal"),
    ],
)
async def test_one_connection_serves_one_call_after_the_other(told: bytes, answer: Answer) -> None:
    async with asking(told, told, told) as (member, connections):
        answers = [await connections.post("/v3/kv/txn", b'{"a":1}') for _ in range(3)]

    assert answers == [answer] * 3
    assert member.connections == 1
    head, _, body = member.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v3/kv/txn HTTP/1.1\r\nHost: 127.0.0.1:")
    assert (b"Content-Length: 7" in head, body) == (True, b'{"a":1}')


async def test_calls_at_the_same_time_have_a_connection_each() -> None:
    async with asking(*[LENGTH] * 5) as (member, connections):
        await asyncio.gather(*(connections.post("/v3/kv/range", b"{}") for _ in range(3)))

    assert member.connections == 3


async def test_a_connection_that_the_member_closed_is_not_used_again() -> None:
    async with asking(LENGTH, b"", LENGTH) as (member, connections):
        await connections.post("/v3/kv/range", b"{}")
        async with asyncio.timeout(10):
            while connections._idle[0].usable:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)
        answer = await connections.post("/v3/kv/range", b"{}")

    assert (answer.status, member.connections) == (200, 2)


async def test_an_answer_that_breaks_off_is_told_from_a_call_that_was_never_made() -> None:
    async with asking(CHUNKS[:-9]) as (_, connections):
        with pytest.raises(EOFError):
            await connections.post("/v3/kv/txn", b"{}")
    with pytest.raises(Unreachable, match="cannot connect"):
        await connections.post("/v3/kv/txn", b"{}")

"""Probing: what answers mean and what many of them come to. Pure parts only."""

from __future__ import annotations

import pytest

from netemu.observe.probe.prober import complete, split
from netemu.observe.probe.result import Answer, Attempt, Percentiles, percentiles, read_answer, summarize


@pytest.mark.parametrize(
    ("body", "headers", "answer"),
    [
        pytest.param(
            b"{}", {"x-netemu-pod": "web-1", "x-netemu-node": "n1", "x-netemu-client": "10.244.0.2:4000"},
            Answer("web-1", "n1", "10.244.0.2"), id="headers of an emulated image",
        ),
        pytest.param(
            b"{}", {"x-netemu-pod": "web-1", "x-netemu-client": "[fd00::1]:4000"},
            Answer("web-1", "", "fd00::1"), id="IPv6 client",
        ),
        pytest.param(
            b'{"pod":"web-1","node":"n1","client":"10.244.0.2"}\nhostname', {},
            Answer("web-1", "n1", "10.244.0.2"), id="JSON line of an echo, then the echo",
        ),
        pytest.param(b"<html>", {"x-pod-name": "web-1"}, Answer("web-1"), id="a header of somebody else's"),
        pytest.param(b"\nwelcome\nmore", {}, Answer("welcome"), id="first line of anything else"),
        pytest.param(b"[1, 2]", {}, Answer("[1, 2]"), id="JSON that is no object"),
        pytest.param(b"", {}, Answer("(empty answer)"), id="nothing"),
    ],
)  # fmt: skip
def test_answer_tells_who_it_is_from(body: bytes, headers: dict[str, str], answer: Answer) -> None:
    assert read_answer(body, headers) == answer


@pytest.mark.parametrize(
    ("received", "whole"),
    [
        pytest.param(b"HTT", False, id="too little to tell"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", False, id="body not all there"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", True, id="body all there"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Len", False, id="headers not all there"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", True, id="no content"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nabc\n", False, id="body until the end of the connection"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False, id="chunks to come"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True, id="last chunk"),
        pytest.param(b"220 mail ready", False, id="half a banner"),
        pytest.param(b"220 mail ready\r\n", True, id="a banner"),
    ],
)
def test_answer_is_whole(received: bytes, whole: bool) -> None:
    assert complete(received) is whole


def test_headers_are_split_from_the_body() -> None:
    headers, body = split(b"HTTP/1.1 200 OK\r\nX-Netemu-Pod: a:b\r\n\r\nbody\r\n\r\nmore")

    assert (headers, body) == ({"x-netemu-pod": "a:b"}, b"body\r\n\r\nmore")


def test_attempts_are_counted_the_most_frequent_first() -> None:
    one, two = Answer("web-1", "n1", "10.244.0.2"), Answer("web-2", "n2", "10.244.0.2")
    attempts = [Attempt(answer, "10.96.0.5", 0.001) for answer in (one, two, two)]

    result = summarize("web:80", "TCP", attempts)

    assert list(result.servers.items()) == [("web-2", 2), ("web-1", 1)]
    assert (result.sources, result.addresses) == ({"10.244.0.2": 3}, {"10.96.0.5": 3})


def test_errors_are_counted_by_kind_with_the_first_text_of_each() -> None:
    attempts = [Attempt(error="refused", detail=text) for text in ("first", "second")]

    result = summarize("web:80", "TCP", [*attempts, Attempt(Answer("web-1"), seconds=0.5)])

    assert (result.count, result.answered) == (3, 1)
    assert (result.errors, result.details) == ({"refused": 2}, {"refused": "first"})


def test_failed_attempts_do_not_count_for_latency() -> None:
    result = summarize("web:80", "TCP", [Attempt(Answer("a"), seconds=1.0), Attempt(error="timeout", seconds=9.0)])

    assert result.latency == Percentiles(1.0, 1.0, 1.0, 1.0, 1.0)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles([float(n) for n in range(200, 0, -1)]) == Percentiles(1.0, 100.0, 180.0, 198.0, 200.0)
    assert percentiles([]) is None

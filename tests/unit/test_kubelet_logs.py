"""What is shown of a container's log."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.kubelet.container_logs import LogOptions, Shown, entry_of, read, tail_position
from netemu.model import times

NOW = times.parse("2026-01-02T03:04:05Z")


async def ended() -> bool:
    return False


async def shown(path: Path, **query: str) -> bytes:
    options = LogOptions.of(query, NOW)
    return b"".join([piece async for piece in read(path, options, ended)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "0.log"
    path.write_bytes(
        b"2026-01-02T03:03:00.000000Z stdout F old\n"
        b"nonsense\n"
        b"2026-01-02T03:04:00.000000Z stderr P long\n"
        b"2026-01-02T03:04:00.000001Z stderr F er\n"
        b"2026-01-02T03:04:01.000000Z stdout F  two words\n"
    )
    return path


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, b"old\nlonger\n two words\n"),
        ({"tailLines": "1"}, b" two words\n"),
        ({"tailLines": "0"}, b""),
        ({"tailLines": "99"}, b"old\nlonger\n two words\n"),
        ({"sinceSeconds": "10"}, b"longer\n two words\n"),
        ({"sinceTime": "2026-01-02T03:04:01Z"}, b" two words\n"),
        ({"sinceTime": "2026-01-02T04:04:01+01:00"}, b" two words\n"),
        ({"limitBytes": "6"}, b"old\nlo"),
        ({"tailLines": "1", "timestamps": "true"}, b"2026-01-02T03:04:01.000000Z  two words\n"),
    ],
)
async def test_options_choose_what_is_shown(log: Path, query: dict[str, str], text: bytes) -> None:
    assert await shown(log, **query) == text


@given(st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b"")), max_size=9), st.integers(0, 12))
def test_the_tail_begins_where_its_lines_do(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: int
) -> None:
    path = tmp_path_factory.mktemp("tail") / "log"
    path.write_bytes(b"".join(line + b"\n" for line in lines))

    assert path.read_bytes()[tail_position(path, tail) :] == b"".join(
        line + b"\n" for line in (lines[-tail:] if tail else [])
    )


def test_the_tail_of_a_log_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%d %s\n" % (number, b"x" * 1000) for number in range(500)))

    lines = path.read_bytes()[tail_position(path, 200) :].splitlines()

    assert (len(lines), lines[0][:3]) == (200, b"300")


@given(st.binary(max_size=60))
def test_no_line_breaks_the_reader(line: bytes) -> None:
    entry = entry_of(line)

    assert entry is None or Shown(LogOptions()).feed(entry).startswith(entry.text)

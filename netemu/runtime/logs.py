"""CRI's log format: `2026-01-02T03:04:05.000006Z stdout F text`, one line per line (P where a long line is cut).

Upstream: kubernetes/pkg/kubelet/kuberuntime/logs; `kubectl logs` and `netemu logs` show the text after the third space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from netemu.model import times

LONGEST_LINE = 16 * 1024


def append(path: Path, stream: str, text: str) -> None:
    """Add whole lines to a log, making it if needed."""
    write(path, b"".join(format_line(stream, line.encode()) for line in text.splitlines()))


def write(path: Path, entries: bytes) -> None:
    """Add entries to a log, making it if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(entries)


def format_line(stream: str, line: bytes, *, partial: bool = False) -> bytes:
    """One entry; `line` without its newline."""
    return f"{times.micro_now()} {stream} {'P' if partial else 'F'} ".encode() + line + b"\n"


class Splitter:
    """Turns the chunks of one stream into entries."""

    def __init__(self, stream: str) -> None:
        self._stream, self._rest = stream, b""

    def feed(self, data: bytes) -> bytes:
        """The entries that are complete with `data`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        out = [entry for line in lines for entry in self._entries(line)]
        while len(self._rest) >= LONGEST_LINE:
            out.append(format_line(self._stream, self._rest[:LONGEST_LINE], partial=True))
            self._rest = self._rest[LONGEST_LINE:]
        return b"".join(out)

    def finish(self) -> bytes:
        """What remains without a newline when the stream ends."""
        rest, self._rest = self._rest, b""
        return format_line(self._stream, rest) if rest else b""

    def _entries(self, line: bytes) -> Iterator[bytes]:
        while len(line) > LONGEST_LINE:
            yield format_line(self._stream, line[:LONGEST_LINE], partial=True)
            line = line[LONGEST_LINE:]
        yield format_line(self._stream, line)

"""What commands print: columns for people, JSON for programs, one line for a mistake."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from netemu.model.columns import table
from netemu.model.errors import UserError, reason

__all__ = ["Format", "Progress", "note", "say", "say_json", "table"]


class Format(StrEnum):
    """`-o`."""

    table = "table"
    json = "json"


class ReportFormat(StrEnum):
    """`-o` of what is a test, too."""

    table = "table"
    json = "json"
    junit = "junit"
    html = "html"


class Drawing(StrEnum):
    """`--format` of `netemu graph`."""

    dot = "dot"
    mermaid = "mermaid"
    svg = "svg"
    html = "html"
    json = "json"


def say(text: str) -> None:
    """A line of the result, to standard output."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A line about the work, to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    """A value, structs included, as indented JSON."""
    say(json_text(value))


def json_text(value: Any) -> str:
    """The same as text."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def write_file(path: Path, content: str | Iterable[bytes]) -> None:
    """What a command was asked to write to a file. Raises UserError where it cannot."""
    try:
        with path.open("wb") as file:
            file.writelines([content.encode()] if isinstance(content, str) else content)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: object, error: OSError) -> UserError:
    """The same refusal for everything that is written."""
    return UserError(f"cannot write {path}: {reason(error)}")


class Progress:
    """Stages of long work: a line each when done; on a terminal also what is being waited for, in place."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._live, self._text = quiet, sys.stderr.isatty(), ""
        self.stages: list[dict[str, object]] = []

    def __call__(self, stage: str, seconds: float, missing: str) -> None:
        """See netemu.lab.bring_up.Report."""
        if not missing:
            self.stages.append({"stage": stage, "seconds": round(seconds, 3)})
            self._line(f"{stage}: {seconds:.2f} s", end="\n")
        elif self._live and missing != self._text:
            self._text = missing
            self._line(f"{stage}: {missing}"[:100], end="")

    def _line(self, text: str, end: str) -> None:
        if not self._quiet:
            sys.stderr.write(("\r\x1b[K" if self._live else "") + text + end)
            sys.stderr.flush()

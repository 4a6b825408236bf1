"""Words and options of `netemu dns-fault` that mean nothing together."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from netemu.cli.main import app


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--pod", "client"], "--pod: what for? expected KIND before it"),
        (["--percent", "30"], "--percent: what for?"),
        (["--as", "x"], "--as: what for?"),
        (["off", "--pod", "client"], "--pod: `off` takes names of faults alone"),
        (["off", "--percent", "100"], "--percent: `off` takes names"),
        (["drop", "x", "--seconds", "5"], "--seconds: only delay takes seconds, not drop"),
    ],
)
def test_an_option_without_meaning_is_refused(words: list[str], why: str) -> None:
    done = CliRunner().invoke(app, ["dns-fault", *words], env={"TERM": "dumb", "COLUMNS": "200"})

    assert (done.exit_code, why in done.output) == (2, True), done.output

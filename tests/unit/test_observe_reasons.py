"""The codes of causes, and what the documentation says of them."""

from __future__ import annotations

import re
from pathlib import Path

from netemu.observe.reasons import Reason

PAGE = Path(__file__).parents[2] / "docs" / "observe.md"
TABLES = ("### Why not", "## The prediction")


def test_the_tables_of_the_documentation_have_every_code_and_no_other() -> None:
    sections = [part for part in re.split(r"^(?=##+ )", PAGE.read_text(), flags=re.M) if part.startswith(TABLES)]
    rows = [row for part in sections for row in part.splitlines() if row.startswith("| `")]
    codes = [code for row in rows for code in re.findall(r"`([a-z-]+)`", row.split(" | ")[0])]

    assert len(sections) == len(TABLES)
    assert {*codes} == {*Reason}

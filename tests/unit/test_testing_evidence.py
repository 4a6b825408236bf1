"""The report of a failed claim, where its lab is no more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from netemu.lab.failures import Failed
from netemu.testing.evidence import sections
from netemu.testing.vantage import ClaimFailed


def test_what_cannot_be_had_is_said_in_its_section_and_the_failure_is_told_all_the_same(tmp_path: Path) -> None:
    lab = SimpleNamespace(name="t-there-is-none", mode="", topology="lab.yaml", artifacts=tmp_path)
    place: Any = SimpleNamespace(lab=lab, name="default/client", netns="none")

    told = dict(sections(ClaimFailed(place, "web:80", "reaches web:80", Failed("refused"), lambda: None), "test_it"))

    assert told["netemu lab"].startswith("could not be had: UserError: no lab named 't-there-is-none'")
    assert told["netemu packets"].startswith("could not be had: ")

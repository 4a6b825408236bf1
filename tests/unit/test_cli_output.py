"""Files that commands write, and the line that says why one cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from netemu.cli.output import Format, write_file
from netemu.cli.test import test as run_checks
from netemu.model.errors import UserError

CHECKED = Path(__file__).parents[2] / "topologies/dns-ndots.yaml"


@pytest.mark.parametrize("content", ["für\n", [b"f\xc3\xbc", b"r\n"]], ids=["text", "blocks"])
def test_a_file_is_written_anew(tmp_path: Path, content: str | list[bytes]) -> None:
    file = tmp_path / "file"
    file.write_text("what was there before, and is longer")

    write_file(file, content)

    assert file.read_text(encoding="utf-8") == "für\n"


@pytest.mark.parametrize(("name", "why"), [("none/file", "No such file or directory"), ("", "Is a directory")])
def test_a_file_that_cannot_be_written_is_refused_in_a_line(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(UserError) as told:
        write_file(tmp_path / name, "")

    assert str(told.value) == f"cannot write {tmp_path / name}: {why}"


def test_results_that_cannot_be_written_are_refused_before_the_lab_comes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netemu.cli.test.need_root", lambda: None)
    monkeypatch.setattr("netemu.lab.bring_up.bring_up", lambda *_, **__: pytest.fail("the lab comes up"))
    junit = tmp_path / "none/results.xml"

    with pytest.raises(UserError, match=f"^cannot write {junit}: No such file or directory$"):
        run_checks(CHECKED, lab="", keep=False, junit=junit, output=Format.table)

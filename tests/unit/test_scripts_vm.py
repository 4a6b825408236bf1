"""How output leaves the virtual machine of scripts/vm: whole, in order, and without what marks its end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

_FILE = Path(__file__).parents[2] / "scripts/vm.py"
TOKEN = b"0123456789abcdef"


@pytest.fixture(scope="module")
def vm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripts_vm", _FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scripts_vm"] = module
    spec.loader.exec_module(module)
    return module


def carried(vm: ModuleType, pieces: Sequence[bytes], after: int) -> tuple[bytes, bytes | None]:
    """What is passed on, and what followed the token, when the stream comes in these pieces."""
    (read_end, write_end), (result, target) = os.pipe(), os.pipe()
    stream = vm.Stream(read_end, target, TOKEN, after)
    try:
        for piece in pieces:
            os.write(write_end, piece)
            if not stream.read():
                break
        else:
            os.close(write_end)
            write_end = -1
            while stream.read():
                pass
    finally:
        os.close(target)
        passed = os.read(result, 1 << 16)
        for fd in (read_end, result, write_end):
            if fd >= 0:
                os.close(fd)
    return passed, stream.rest


@pytest.mark.parametrize("size", [1, 2, 3, 7, 15, 16, 17, 1000])
def test_output_arrives_whole_however_it_is_cut(vm: ModuleType, size: int) -> None:
    text = b"first\nsecond 0123 0123456789abcde\n"
    whole = text + TOKEN + b"007"

    assert carried(vm, [whole[i : i + size] for i in range(0, len(whole), size)], 3) == (text, b"007")


def test_output_of_a_machine_that_died_is_passed_on_and_has_no_end(vm: ModuleType) -> None:
    assert carried(vm, [b"half a li", b"ne 0123"], 3) == (b"half a line 0123", None)


def test_command_keeps_its_words_directory_and_environment(
    vm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "it's\ntwo lines")
    monkeypatch.chdir(tmp_path)
    vm.write_command(tmp_path, tmp_path / "k", ["sh", "-c", 'printf "%s|" "$PWD" "$ODD" "$@"', "sh", "a b", "c'd"], "t")

    bare = {"PATH": os.environ["PATH"]}
    said = subprocess.run(
        ["sh", str(tmp_path / "command")], env=bare, capture_output=True, text=True, check=True
    ).stdout

    assert said == f"{tmp_path}|it's\ntwo lines|a b|c'd|"


def test_a_machine_has_time_to_start_and_then_time_for_its_command(vm: ModuleType, tmp_path: Path) -> None:
    console = tmp_path / "console"
    silent, late = (vm.Watch(console, seconds=60, ready_seconds=limit) for limit in (60, 0))
    at_once = (silent.over(), late.over())
    console.write_text("Booting\nvm: ready after 20 s\n")
    patient, hasty = (vm.Watch(console, seconds=limit, ready_seconds=0) for limit in (60, 0))

    assert (at_once, silent.ready, late.ready) == ((False, True), False, False)
    assert (patient.over(), hasty.over(), patient.ready, hasty.ready) == (False, True, True, True)


def test_a_stream_that_brings_nothing_is_not_waited_for_for_ever(vm: ModuleType) -> None:
    read_end, write_end = os.pipe()
    answers = iter((False, True))
    try:
        vm.carry([vm.Stream(read_end, 1, TOKEN)], lambda: next(answers))
    finally:
        os.close(read_end)
        os.close(write_end)

    assert next(answers, None) is None


def test_a_machine_that_breaks_has_one_more_chance(
    vm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = iter((vm.Broken("ended before its command"), 3))

    def run(*_: object) -> int:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(vm, "run_in_vm", run)

    assert vm.main(tmp_path, ["true"]) == 3
    assert "ended before its command; trying once more" in capfd.readouterr().err

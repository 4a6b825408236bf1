"""The pytest plugin without a lab: what it costs, what it refuses, and whom it leaves alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = "pytester"

_QUIET = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:looptime_plugin")


def test_loading_it_loads_nothing_but_pytest() -> None:
    program = (
        "import sys, pytest; before = set(sys.modules); import netemu.testing.plugin; print(*set(sys.modules) - before)"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert set(loaded) == {"netemu", "netemu.testing", "netemu.testing.plugin"}


def test_tests_without_a_lab_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys
        import pytest

        @pytest.fixture
        def client():
            return "mine"

        @pytest.fixture
        def lab():
            return "mine too"

        def test_fixtures_of_that_name_are_mine(client, lab):
            assert (client, lab) == ("mine", "mine too")

        def test_nothing_is_loaded():
            assert "netemu.lab" not in sys.modules
        """
    )

    result = pytester.runpytest_subprocess(*_QUIET, "-v", "--netemu-mode", "iptables,nftables")

    result.assert_outcomes(passed=2)


def test_a_lab_without_a_topology_is_refused_with_what_to_do(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(pod): pass")

    result = pytester.runpytest_subprocess(*_QUIET)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("no topology: mark the test or its module netemu(FILE), or set netemu_topology")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param(["--netemu-mode", "iptabels"], "'iptabels' is no mode; use some of iptables", id="mode"),
        pytest.param(["-o", "netemu_scope=class"], "netemu_scope: 'class': must be one of module, session", id="scope"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(pytester: pytest.Pytester, options: list[str], text: str) -> None:
    result = pytester.runpytest_subprocess(*_QUIET, *options)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text in result.stderr.str()


@pytest.mark.parametrize("mark", ["", "'a.yaml', 'b.yaml'", "file='a.yaml'", "''", "['a.yaml']"])
def test_a_mark_that_names_no_topology_is_told_before_anything_runs(pytester: pytest.Pytester, mark: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.netemu({mark})\ndef test_it(pod): pass")

    result = pytester.runpytest_subprocess(*_QUIET)

    assert result.ret in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED)
    assert "must have one topology file" in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("mark", ["'lab.yaml'", "topology='lab.yaml'"])
def test_a_mark_names_the_topology_by_position_or_by_name(pytester: pytest.Pytester, mark: str) -> None:
    pytester.makefile(".yaml", lab="{}")
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.netemu({mark})\ndef test_it(_netemu_wanted): print(_netemu_wanted)"
    )

    result = pytester.runpytest_subprocess(*_QUIET, "-s")

    result.stdout.fnmatch_lines(f"*{pytester.path / 'lab.yaml'}*")

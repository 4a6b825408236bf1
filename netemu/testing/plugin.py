"""The pytest plugin: `pip install netemu` gives it, as the entry point `netemu` of `pytest11`.

    @pytest.mark.netemu("topologies/quickstart.yaml")
    def test_a_name_leads_to_every_pod(pod):
        pod("shop/client").assert_spread("web:80", over=3)

A lab comes up once for a module (or a session, as `netemu_scope` says) and topology file, in every mode of
`--netemu-mode`, and is put back after each test. This module is loaded with every pytest of an environment where netemu
is installed, so it imports nothing but pytest: what does the work is imported by the first test that needs a lab.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from netemu.testing.lab import Lab
    from netemu.testing.vantage import Vantage

_MODES = ("iptables", "ipvs", "nftables")
_SCOPES = ("module", "session")
_WANTED = "_netemu_wanted"
_UNNAMED: Any = getattr(pytest, "HIDDEN_PARAM", "lab")
"""A test in the file's own mode keeps its name; before pytest 8.4 it has `[lab]` behind it."""


class Wanted(NamedTuple):
    """The lab that a test wants. `mode` "" is the topology file's own."""

    topology: Path | None
    mode: str


def pytest_addoption(parser: pytest.Parser) -> None:
    """The command line's and the ini file's options."""
    group = parser.getgroup("netemu", "labs of netemu")
    group.addoption(
        "--netemu-mode", default="", metavar="MODE,...", help="run each test of a lab in these modes of kube-proxy"
    )
    group.addoption(
        "--netemu-scope", choices=_SCOPES, default=None, help="keep a lab for a module (the default) or the session"
    )
    group.addoption(
        "--netemu-artifacts", default="", metavar="DIR", help="where captures of failed tests go; default: pytest's own"
    )
    group.addoption(
        "--netemu-timeout", type=float, default=60, metavar="SECONDS", help="until a lab must be up; default: 60"
    )
    parser.addini("netemu_topology", "topology file of tests that name none, relative to this file")
    parser.addini("netemu_scope", "keep a lab for a module or the session", default="module")


def pytest_configure(config: pytest.Config) -> None:
    """The marker; wrong options are told before anything runs."""
    config.addinivalue_line("markers", "netemu(topology): the topology file of the lab that these tests are given")
    for mode in _modes(config):
        if mode and mode not in _MODES:
            raise pytest.UsageError(f"--netemu-mode: {mode!r} is no mode; use some of {', '.join(_MODES)}")
    if _scope("", config) not in _SCOPES:
        raise pytest.UsageError(f"netemu_scope: {_scope('', config)!r}: must be one of {', '.join(_SCOPES)}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that is given a lab of ours runs once for each mode."""
    if _WANTED not in metafunc.fixturenames:
        return
    topology, modes = _topology(metafunc), _modes(metafunc.config)
    wanted = [pytest.param(_wanted(topology, mode), id=mode or _UNNAMED, marks=_skip(mode)) for mode in modes]
    metafunc.parametrize(_WANTED, wanted, indirect=True)


def _modes(config: pytest.Config) -> list[str]:
    said: str = config.getoption("--netemu-mode")
    return [mode.strip() for mode in said.split(",")]


def _scope(fixture_name: str, config: pytest.Config) -> Any:
    return config.getoption("--netemu-scope") or config.getini("netemu_scope")


def _topology(metafunc: pytest.Metafunc) -> Path | None:
    """The file that the nearest mark names, relative to the test's own folder or to the root; else the ini file's."""
    config = metafunc.config
    marker = metafunc.definition.get_closest_marker("netemu")
    if marker is None:
        said = config.getini("netemu_topology")
        return (config.inipath or config.rootpath / "pytest.ini").parent / said if said else None
    name = _named(*marker.args, **marker.kwargs)
    beside = metafunc.definition.path.parent / name
    return beside if beside.exists() else config.rootpath / name


def _named(*said: object, **options: object) -> Path:
    """What a mark names: `netemu(FILE)`, or `netemu(topology=FILE)`."""
    match (*said, *options.items()):
        case (str() | Path() as topology,) | (("topology", str() | Path() as topology),) if str(topology):
            return Path(topology)
    given = ", ".join([*map(repr, said), *(f"{name}={value!r}" for name, value in options.items())])
    raise pytest.UsageError(f'netemu({given}): must have one topology file, for example netemu("lab.yaml")')


@functools.cache
def _wanted(topology: Path | None, mode: str) -> Wanted:
    """The same object for the same lab: pytest tells parameters apart by identity, and would start the lab again."""
    return Wanted(topology, mode)


@functools.cache
def _skip(mode: str) -> tuple[pytest.MarkDecorator, ...]:
    """A reason to skip tests in a mode that this machine's kernel lacks."""
    if not mode or os.geteuid() != 0:
        return ()
    from netemu.lab.features import findings, lacking_for_mode

    why = lacking_for_mode(mode, findings())
    return (pytest.mark.skip(reason=why),) if why else ()


@pytest.fixture(scope=_scope)
def _netemu_wanted(request: pytest.FixtureRequest) -> Wanted:
    wanted: Wanted = request.param
    return wanted


@pytest.fixture(scope=_scope)
def lab(_netemu_wanted: Wanted, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    """A running lab of the topology file that the mark `netemu` names; see netemu.testing.lab.Lab."""
    from netemu.model.errors import NetemuError
    from netemu.testing.lab import Lab

    topology, mode = _netemu_wanted
    if topology is None:
        pytest.fail("no topology: mark the test or its module netemu(FILE), or set netemu_topology", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("labs need root to make network namespaces: sudo -E env PATH=$PATH pytest", pytrace=False)
    artifacts = Path(pytestconfig.getoption("--netemu-artifacts") or tmp_path_factory.mktemp("netemu"))
    try:
        timeout = pytestconfig.getoption("--netemu-timeout")
        running = Lab(topology, mode=mode, artifacts=artifacts, timeout=timeout)
    except NetemuError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield running
    finally:
        running.down()


@pytest.fixture
def pod(lab: Lab) -> Callable[[str], Vantage]:
    """`pod("shop/client")`: a place to look from; see netemu.testing.vantage.Vantage."""
    return lab.pod


@pytest.fixture
def node(lab: Lab) -> Callable[[str], Vantage]:
    """`node("worker-1")`: a place to look from; see netemu.testing.vantage.Vantage."""
    return lab.node


@pytest.fixture
def client(lab: Lab) -> Callable[[str], Vantage]:
    """`client("laptop")`: a machine outside the cluster to look from; see netemu.testing.vantage.Vantage."""
    return lab.client


@pytest.fixture(autouse=True)
def _netemu_reset(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test has changed of its lab is put back when all its other fixtures have ended."""
    if _WANTED not in request.fixturenames:
        yield
        return
    running: Lab = request.getfixturevalue("lab")
    yield
    running.reset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A claim that failed has what was seen, the rules and a capture in its report."""
    report = yield
    vantage = sys.modules.get("netemu.testing.vantage")
    if vantage and call.excinfo and isinstance(call.excinfo.value, vantage.ClaimFailed):
        from netemu.testing.evidence import sections

        report.sections.extend(sections(call.excinfo.value, item.name))
    return report

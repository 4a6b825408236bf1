"""A lab that tests run on: it comes up from a topology file under a name of its own and goes with the tests.

The name has the process id of the tests, so runs beside each other do not meet, and whatever a run that was killed has
left is known by a process that lives no more; the next run removes it.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

from netemu.lab import changes, remains
from netemu.lab.api import LabApi
from netemu.lab.check_spec import Reference
from netemu.lab.commands import environment_of, run_command
from netemu.lab.config import load_config
from netemu.lab.paths import LabPaths
from netemu.lab.targets import find_target
from netemu.lab.tear_down import tear_down
from netemu.model.errors import NetemuError, UserError
from netemu.model.resources import PODS, by_name
from netemu.testing.reset import Baseline, machine
from netemu.testing.vantage import Vantage

_NUMBERS = itertools.count(1)
_OURS = re.compile(r"pytest-(\d+)-\d+")

_log = logging.getLogger(__name__)


class Lab:
    """A running lab. Raises NetemuError, with what `netemu up` says, where it does not come up."""

    def __init__(self, topology: Path, *, mode: str = "", artifacts: Path, timeout: float = 60.0) -> None:
        self.topology, self.mode, self.artifacts = topology, mode, artifacts
        self.name = f"pytest-{os.getpid()}-{next(_NUMBERS)}"
        self._timeout = timeout
        self._machines: dict[str, str] = {}
        remove_abandoned()
        try:
            self._up()
        except BaseException:
            self.down()
            raise

    def _up(self) -> None:
        options = ["--name", self.name, "--timeout", str(self._timeout), "--proxy-mode", self.mode, "-o", "json"]
        _netemu("up", str(self.topology), *options)
        self._machines.clear()
        self._baseline = Baseline(self.api, load_config(self.name))

    def down(self) -> None:
        """Remove all of it."""
        with contextlib.suppress(UserError):  # there is none
            tear_down(self.name)

    # --- places --------------------------------------------------------------------------------------------------

    def pod(self, name: str, namespace: str = "default") -> Vantage:
        """`client`, `shop/client`; any other place too, written as for `netemu exec`.

        Raises UserError naming what is there instead.
        """
        return Vantage(self, find_target(self.name, name, namespace))

    def pods(self, namespace: str = "default", selector: str = "") -> list[Vantage]:
        """The Pods of a namespace, those that a label selector (`app=web`) chooses."""
        found, _ = self.api.list(PODS, namespace, labelSelector=selector)
        return [self.pod(pod["metadata"]["name"], namespace) for pod in found]

    def node(self, name: str) -> Vantage:
        """`worker-1`."""
        return self.pod(f"node/{name}")

    def client(self, name: str) -> Vantage:
        """`laptop`: a machine outside the cluster."""
        return self.pod(f"client/{name}")

    # --- objects -------------------------------------------------------------------------------------------------

    @property
    def api(self) -> LabApi:
        """Requests to its API server."""
        return LabApi(self.name)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return LabPaths(self.name).kubeconfig

    def apply(self, *manifests: str | Mapping[str, Any]) -> None:
        """Create objects, or merge them into those that are there: YAML or mappings. Returns when rules are theirs."""
        objects = [obj for one in manifests for obj in _objects(one)]
        changes.apply(self.api, objects)

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object, `delete("service", "web", "shop")`; returns when the rules are without it."""
        resource = by_name(kind)
        if resource is None:
            raise UserError(f"{kind!r} is no kind of this cluster")
        gone = Reference(kind=resource.kind, api_version=resource.api_version, name=name, namespace=namespace)
        changes.delete(self.api, [gone])

    def kubectl(self, *arguments: str, input: str = "", timeout: float = 60.0) -> str:
        """What kubectl prints. It does not wait for anything; `settle` does.

        Raises NetemuError where it fails, and where it does not end within `timeout` seconds.
        """
        command = ["kubectl", *arguments]
        done = run_command(command, input=input, env=environment_of(self.name), timeout=timeout)
        if done.returncode:
            raise NetemuError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def settle(self) -> None:
        """Return when Pods are Ready or gone, and every node's rules are those of the newest objects."""
        changes.settle(self.api)

    # --- between tests -------------------------------------------------------------------------------------------

    def note_machine(self, netns: str) -> None:
        """Remember the links, addresses, routes and rules of a place, before something is done to them."""
        if netns not in self._machines:
            self._machines[netns] = machine(netns)

    def reset(self) -> None:
        """Put back what tests have changed; where that cannot be done, build the lab anew."""
        try:
            touched = self._baseline.restore()
            spoiled = [netns for netns, before in self._machines.items() if touched or machine(netns) != before]
        except NetemuError as error:
            _log.warning("lab %s is built anew: %s", self.name, error)
            self._rebuild()
            return
        if spoiled:
            _log.warning("lab %s is built anew: a command has changed %s", self.name, ", ".join(spoiled))
            self._rebuild()

    def _rebuild(self) -> None:
        self.down()
        self._up()


def remove_abandoned() -> None:
    """Remove what runs of tests that are no more have left."""
    for name in remains.known_labs():
        if (match := _OURS.fullmatch(name)) and not Path(f"/proc/{match[1]}").exists():
            with contextlib.suppress(UserError):  # somebody else does it
                tear_down(name)


def _objects(manifest: str | Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    documents = yaml.safe_load_all(dedent(manifest)) if isinstance(manifest, str) else [dict(manifest)]
    for document in documents:
        if document:
            yield from document["items"] if document.get("kind") == "List" else [document]


def _netemu(*arguments: str) -> None:
    """A command of netemu, in a process and a session of its own: a lab's processes must be nobody's children here, and
    an interruption is told to it once, so that it takes back what it began. Raises NetemuError with what it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "netemu", *arguments], text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True, preexec_fn=_interruptible,
    )  # fmt: skip
    try:
        _, said = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    if process.returncode:
        raise NetemuError(said.strip().removeprefix("error: ") or f"netemu {arguments[0]}: {process.returncode}")


def _interruptible() -> None:
    """Whoever runs tests in the background has them ignore Ctrl-C, and children would too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

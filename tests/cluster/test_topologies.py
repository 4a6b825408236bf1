"""Every lab that ships with checks shows what it says."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cluster.labs import ROOT, run

CHECKED = sorted(file for file in (ROOT / "topologies").glob("*.yaml") if "\n  checks:\n" in file.read_text())
BROKEN = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: broken}
spec:
  nodes: [{name: one}]
  checks:
    - name: nobody is there
      reaches: {from: node/one, to: "203.0.113.77:80"}
    - name: the API server answers
      reaches: {from: node/one, to: "10.96.0.1:443", udp: false}
    - name: nobody is silent
      dropped: {from: node/one, to: "127.0.0.1:9"}
    - name: a place that is not there
      resolves: {from: nowhere, name: x}
"""


@pytest.mark.parametrize("file", CHECKED, ids=lambda file: file.stem)
@pytest.mark.timeout(240)
def test_a_lab_shows_what_it_says(file: Path) -> None:
    done = run("test", str(file), "-o", "json", timeout=230)

    checks = json.loads(done.stdout)["checks"]
    assert [(check["name"], check.get("why")) for check in checks if not check["passed"]] == []
    assert done.returncode == 0


def test_what_does_not_hold_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    file, junit = tmp_path / "broken.yaml", tmp_path / "junit.xml"
    file.write_text(BROKEN)

    done = run("test", str(file), "--junit", str(junit))

    suite = ElementTree.parse(junit).getroot()
    nobody = next(suite.iter("failure"))
    assert (done.returncode, "0 of 1 answered" in done.stdout, "no Pod 'nowhere'" in done.stdout) == (1, True, True)
    assert "why not: " in done.stdout
    assert (nobody.text or "").startswith("node/one -> 203.0.113.77:80, TCP\n")
    assert "why not: " in (nobody.text or "")
    assert "0 of 1 answered (1 refused), expected 1 dropped (timeout)" in done.stdout
    assert (suite.get("tests"), len(suite.findall(".//failure"))) == ("4", int(suite.get("failures") or 0))


def test_a_file_without_checks_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    file.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")

    done = run("test", str(file))

    assert (done.returncode, "no spec.checks; there is nothing to test" in done.stderr) == (1, True)

"""The DNS laboratory on a running lab: resolvers, the query log, faults, the Corefile as a ConfigMap, the outside."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.lab.addons import FAULTS
from netemu.model.resources import CONFIGMAPS, EVENTS
from tests.cluster.labs import api, eventually, netemu, netemu_json, run, start, up

SYSTEM = "kube-system"
LAB = """\
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: dns}
spec:
  nodes: [{name: one}, {name: two}]
  clients:
    - name: shop
      names: [www.example.com]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  runtimeClassName: process
  containers: [{name: c, image: c, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  containers: [{name: c, image: pause}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with up("t-dns-lab", LAB, tmp_path_factory.mktemp("dns")) as name:
        yield name


def dig(lab: str, name: str, *words: str, pod: str = "client") -> Any:
    """`netemu dig`, whether it finds the name or not."""
    return json.loads(run("dig", "--lab", lab, pod, name, *words, "-o", "json").stdout)


def outcomes(found: Any) -> list[str]:
    return [step["reply"]["outcome"] for step in found["steps"]]


@pytest.mark.parametrize(("resolver", "queries"), [("glibc", 8), ("musl", 8), ("go", 8)], ids=["glibc", "musl", "go"])
def test_a_name_outside_is_found_after_the_search_path(lab: str, resolver: str, queries: int) -> None:
    found = dig(lab, "www.example.com", "--resolver", resolver)

    assert (found["result"]["addresses"], len(found["steps"])) == (["203.0.113.10"], queries)


def test_real_glibc_agrees(lab: str) -> None:
    answer = netemu("exec", "--lab", lab, "client", "--", "getent", "ahostsv4", "www.example.com")

    assert answer.split()[0] == "203.0.113.10"


def test_nodes_ask_the_resolver_outside(lab: str) -> None:
    found = dig(lab, "www.example.com", "A", pod="node/two")

    assert (found["result"]["addresses"], found["steps"][0]["reply"]["server"]) == (["203.0.113.10"], "203.0.113.1")


def test_a_transport_can_be_asked_for(lab: str) -> None:
    found = dig(lab, "kubernetes", "A", "+tcp", "+edns=4096")

    assert [(step["transport"], step["reply"]["outcome"]) for step in found["steps"]] == [("tcp", "NOERROR")]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["+tpc"], "+tpc: expected +tcp"),
        (["FOO"], "'FOO' is not a record type"),
        (["--resolver", "java"], "'java' is not a resolver"),
    ],
)
def test_words_that_mean_nothing_are_wrong_usage(lab: str, words: list[str], why: str) -> None:
    done = run("dig", "--lab", lab, "client", "kubernetes", *words)

    assert (done.returncode, why in done.stderr) == (2, True)


def test_the_log_tells_queries_and_what_a_lookup_costs(lab: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        listening = start("dns-log", "--lab", lab, "--for", "6", "-o", "json", stdout=out, stderr=subprocess.PIPE)
        assert listening.stderr is not None
        with listening.stderr as told:
            assert told.readline().startswith(b"listening")
            dig(lab, "www.example.com")
            assert listening.wait(30) == 0
    said = json.loads(log.read_text())

    mine = [query for query in said["queries"] if query["pod"] == "default/client"]
    assert [query["outcome"] for query in mine].count("NXDOMAIN") == 6
    assert {"203.0.113.10"} in [set(query["answers"]) for query in mine if query["type"] == "A"]
    (row,) = [row for row in said["pods"] if row["pod"] == "default/client"]
    assert (row["lookups"], row["queries"], row["worst"]) == (1, 8, "www.example.com")


def test_a_log_that_follows_sums_up_when_it_is_interrupted(lab: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as out:
        listening = start("dns-log", "--lab", lab, "--follow", "-o", "json", stdout=out)
        eventually(lambda: dig(lab, "kubernetes", "A") and log.read_text(), "a query")
        listening.send_signal(signal.SIGINT)
        assert listening.wait(30) == 0
    *queries, last = map(json.loads, log.read_text().splitlines())

    assert "default/client" in {query["pod"] for query in queries}
    assert sum(row["queries"] for row in last["pods"]) == len(queries)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nosuch"], "no Pod 'nosuch' running in namespace default"),
        (["client", "-n", "kube-system"], "there is one in default: -n default"),
        (["kube-system/client"], "there is one in default: -n default"),
        (["node/one"], "'node/one' is no Pod; must be POD or NAMESPACE/POD"),
        (["nowhere/client"], "'nowhere/client' is no target; must be POD, NAMESPACE/POD"),
    ],
)
def test_a_log_of_a_pod_that_does_not_run_is_refused(lab: str, words: list[str], why: str) -> None:
    done = run("dns-log", "--lab", lab, *words, "--for", "0.1")

    assert (done.returncode, why in done.stderr) == (1, True), done.stderr


def test_a_pod_is_named_with_its_namespace(lab: str) -> None:
    found = dig(lab, "kubernetes", "A", pod="default/client")

    assert outcomes(found) == ["NOERROR"]
    assert netemu("dns-log", "--lab", lab, "default/client", "--for", "0.1").strip() == "no queries"


def test_a_fault_of_a_pod_that_may_come_is_made_with_a_warning(lab: str) -> None:
    done = run("dns-fault", "--lab", lab, "drop", "--pod", "later/client")
    listed = netemu_json("dns-fault", "--lab", lab)["faults"]
    netemu("dns-fault", "--lab", lab, "off")

    assert (done.returncode, "warning: " in done.stderr) == (0, True)
    assert "the fault waits for later/client" in done.stderr
    assert [fault["pod"] for fault in listed] == ["later/client"]


def test_a_fault_concerns_one_pod_and_ends(lab: str) -> None:
    netemu("dns-fault", "--lab", lab, "servfail", "kubernetes.*", "--pod", "client")
    broken = eventually(
        lambda: (found := dig(lab, "kubernetes", "A")) and "SERVFAIL" in outcomes(found) and found, "the fault"
    )
    listed = netemu_json("dns-fault", "--lab", lab)["faults"]
    other = dig(lab, "kubernetes", "A", pod="other")
    netemu("dns-fault", "--lab", lab, "off", "servfail")
    mended = eventually(lambda: "NOERROR" in outcomes(dig(lab, "kubernetes", "A")), "the end of the fault")

    assert broken["result"]["status"] == "try again"
    assert [(fault["key"], fault["fault"], fault["pod"]) for fault in listed] == [
        ("servfail", "servfail", "default/client")
    ]
    assert (outcomes(other), mended) == (["NOERROR"], True)


def test_faults_switched_on_at_once_all_stand(lab: str) -> None:
    names = {f"n{number}.test" for number in range(6)}
    together = [start("dns-fault", "--lab", lab, "drop", name) for name in sorted(names)]
    try:
        assert [each.wait(60) for each in together] == [0] * len(together)
        listed = netemu_json("dns-fault", "--lab", lab)["faults"]
    finally:
        netemu("dns-fault", "--lab", lab, "off")

    assert {fault["name"] for fault in listed} == names


def test_a_fault_outside_is_seen_through_the_cluster(lab: str) -> None:
    netemu("dns-fault", "--lab", lab, "nxdomain", "www.example.com", "--outside")
    try:
        eventually(lambda: dig(lab, "www.example.com.", "A", pod="node/one")["result"]["status"] == "not found", "it")
    finally:
        netemu("dns-fault", "--lab", lab, "off", "--outside")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["dely"], 2, "did you mean delay?"),
        (["off", "nope"], 1, "there is none"),
        (["delay", "--seconds", "100"], 1, "must be 0 to 60"),
        (["off", "--pod", "client"], 2, "--pod: `off` takes names of faults alone"),
    ],
    ids=["kind", "off", "seconds", "off with a Pod"],
)
def test_faults_that_make_no_sense(lab: str, words: list[str], code: int, why: str) -> None:
    done = run("dns-fault", "--lab", lab, *words)

    assert done.returncode == code
    assert why in done.stderr
    assert api(lab).get(CONFIGMAPS, FAULTS, SYSTEM).get("data", {}) == {}


def test_an_edit_of_the_corefile_takes_effect_and_a_bad_one_is_kept_out(lab: str) -> None:
    before = api(lab).get(CONFIGMAPS, "coredns", SYSTEM)["data"]["Corefile"]
    hosts = "    hosts {\n        192.0.2.9 edited.test\n        fallthrough\n    }\n"
    edited = before.replace("    ready\n", "    ready\n" + hosts)

    api(lab).merge_patch(CONFIGMAPS, "coredns", {"data": {"Corefile": edited}}, SYSTEM)
    began = time.monotonic()
    eventually(lambda: dig(lab, "edited.test.", "A")["result"]["addresses"] == ["192.0.2.9"], "the edit")
    took = time.monotonic() - began
    bad = edited.replace("forward .", "forwrad .")
    api(lab).merge_patch(CONFIGMAPS, "coredns", {"data": {"Corefile": bad}}, SYSTEM)
    told = eventually(
        lambda: [e["message"] for e in api(lab).list(EVENTS, SYSTEM)[0] if e["reason"] == "ReloadFailed"], "an Event"
    )
    after = dig(lab, "edited.test.", "A")
    api(lab).merge_patch(CONFIGMAPS, "coredns", {"data": {"Corefile": before}}, SYSTEM)

    # Two seconds on a machine that has nothing else to do.
    assert took < 6
    assert 'did you mean "forward"?' in told[0]
    assert after["result"]["addresses"] == ["192.0.2.9"]

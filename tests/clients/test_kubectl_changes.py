"""Changing a running lab with kubectl: rollouts, scaling, moving, deleting; rules, names and packets follow."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from netemu.lab import changes
from netemu.lab.api import LabApi
from netemu.lab.check_spec import Reference
from tests.clients.apiserver import find_kubectl
from tests.clients.labs import NODES, LabKubectl
from tests.cluster.labs import eventually

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: registry.k8s.io/e2e-test-images/agnhost:2.53
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 1}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-peers}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: pause}]}
"""

SLEEPER = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  TOLERATION
  nodeSelector: {kubernetes.io/hostname: worker-1}
  containers: [{name: c, image: pause}]
"""

SWITCHED = """
apiVersion: v1
kind: Pod
metadata: {name: switched, labels: {app: switched}}
spec:
  runtimeClassName: process
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: python
    command: [python3, -m, http.server, "80"]
    readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Service
metadata: {name: switched}
spec: {selector: {app: switched}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: pause}]}
"""

NEEDY = """
apiVersion: v1
kind: Pod
metadata: {name: needy}
spec:
  nodeSelector: {disk: ssd}
  containers: [{name: c, image: nginx, envFrom: [{configMapRef: {name: late}}]}]
"""

STUBBORN = """
apiVersion: v1
kind: Pod
metadata: {name: stubborn}
spec:
  runtimeClassName: process
  containers: [{name: c, image: busybox, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]}]
"""

_numbers = itertools.count(1)


@pytest.fixture
def space(lab: LabKubectl) -> Iterator[LabKubectl]:
    """A namespace of the test's own; deleting it must take everything in it."""
    inside = lab.within(f"space-{next(_numbers)}")
    lab("create", "namespace", inside.namespace)
    yield inside
    lab("delete", "namespace", inside.namespace, "--ignore-not-found", "--timeout=40s")
    assert inside.pod_networks() == []


@pytest.fixture
def web(space: LabKubectl) -> LabKubectl:
    """Two replicas behind a Service, and a client Pod."""
    space("apply", "-f", "-", stdin=WEB)
    space("rollout", "status", "deployment/web", "--timeout=20s")
    space("wait", "--for=condition=Ready", "pod/client", "--timeout=20s")
    space.follows("web", "app=web", 2)
    return space


def replicas(space: LabKubectl) -> set[str]:
    names = space("get", "pods", "-l", "app=web", "-o", "name").split()
    return {name.removeprefix("pod/") for name in names}


def nodes_of(space: LabKubectl, selector: str) -> list[str]:
    return [pod["spec"].get("nodeName", "") for pod in space.get("pods", "-l", selector)["items"]]


# --- rollouts


def test_a_restart_under_load_loses_no_connection(web: LabKubectl) -> None:
    before = replicas(web)
    arguments = web.probe_arguments("client", "web:80", "--concurrency", "4", count=2500)
    load = subprocess.Popen([sys.executable, "-m", "netemu", *arguments], stdout=subprocess.PIPE, text=True)
    eventually(lambda: web.exec("client", "ss", "-Htan"), "connections")
    web("rollout", "restart", "deployment/web")
    said = web("rollout", "status", "deployment/web", "--timeout=30s")
    result = json.loads(load.communicate(timeout=40)[0])

    assert said.endswith('deployment "web" successfully rolled out\n')
    assert (result["answered"], result["errors"]) == (2500, {})
    assert set(result["servers"]) > before


def test_a_rollout_that_never_gets_ready_keeps_the_old_pods_and_can_be_undone(web: LabKubectl) -> None:
    before = replicas(web)
    broken = {"op": "replace", "path": "/spec/template/spec/containers/0/readinessProbe/httpGet/port", "value": 1}
    web("patch", "deployment", "web", "--type=json", "-p", json.dumps([broken]))
    waited = web.run("rollout", "status", "deployment/web", "--timeout=2s")
    served = set(web.probe("client", "web:80", count=30)["servers"])

    web("rollout", "undo", "deployment/web")
    web("rollout", "status", "deployment/web", "--timeout=20s")

    assert (waited.returncode, "timed out waiting for the condition" in waited.stderr) == (1, True)
    assert served == before
    assert [line.split()[0] for line in web("rollout", "history", "deployment/web").splitlines()[2:-1]] == ["2", "3"]
    eventually(lambda: replicas(web) == before, "only the old Pods")


def test_a_new_image_makes_a_new_replica_set(web: LabKubectl) -> None:
    web("set", "image", "deployment/web", "web=registry.k8s.io/e2e-test-images/agnhost:2.54")
    web("rollout", "status", "deployment/web", "--timeout=20s")

    sets = {
        one["spec"]["template"]["spec"]["containers"][0]["image"][-4:]: one["status"].get("readyReplicas", 0)
        for one in web.get("replicasets")["items"]
    }
    assert sets == {"2.53": 0, "2.54": 2}
    assert "Scaled up replica set" in web("describe", "deployment", "web")


# --- scaling


def test_endpoints_rules_and_names_follow_the_scale(web: LabKubectl) -> None:
    for count in (5, 1):
        web("scale", "deployment", "web", f"--replicas={count}")
        pods = web.follows("web", "app=web", count)
        eventually(lambda pods=pods: set(web.resolve("client", "web-peers")["addresses"]) == pods, "the name")  # type: ignore[misc]

        assert len(web.probe("client", "web:80", count=60)["servers"]) == count


def test_a_service_scaled_to_nothing_refuses_and_its_headless_name_is_gone(web: LabKubectl) -> None:
    web("scale", "deployment", "web", "--replicas=0")
    web.follows("web", "app=web", 0)

    eventually(lambda: web.probe("client", "web:80")["errors"] == {"refused": 1}, "refusal")
    eventually(lambda: not web.resolve("client", "web-peers")["addresses"], "no such name")


# --- Pods come and go


def test_a_deleted_pod_is_replaced_and_takes_its_place(web: LabKubectl) -> None:
    victim = sorted(replicas(web))[0]
    web("delete", "pod", victim)
    web("rollout", "status", "deployment/web", "--timeout=20s")
    web.follows("web", "app=web", 2)

    assert victim not in replicas(web)
    assert web.probe("client", "web:80", count=20)["answered"] == 20
    assert not any(name.endswith(victim) for name in web.pod_networks())


def test_a_pod_whose_label_changes_leaves_the_service_and_its_owner(web: LabKubectl) -> None:
    moved = sorted(replicas(web))[0]
    address = web.field("pod", moved, path=".status.podIP")
    web("label", "pod", moved, "app=aside", "--overwrite")

    now = web.follows("web", "app=web", 2)

    assert address not in now
    assert web.field("pod", moved, path=".metadata.ownerReferences") == ""
    assert moved not in web.probe("client", "web:80", count=40)["servers"]
    assert web.probe("client", f"{address}:8080")["servers"] == {moved: 1}


def test_a_changed_selector_moves_the_service(web: LabKubectl) -> None:
    web("run", "other", "--image=nginx", "--port=8080", "--labels=app=other")
    web("wait", "--for=condition=Ready", "pod/other", "--timeout=20s")
    web("set", "selector", "service", "web", "app=other")
    web.follows("web", "app=other", 1)

    assert web.probe("client", "web:80", count=10)["servers"] == {"other": 10}


def test_watching_shows_a_pod_come_up(space: LabKubectl) -> None:
    space("run", "early", "--image=nginx")
    watching = space.start("get", "pods", "--watch", "--no-headers")
    assert watching.stdout is not None
    rows = (line.split() for line in watching.stdout)
    next(rows)  # it watches
    space("run", "late", "--image=nginx")
    states = [row[1:3] for row in itertools.takewhile(lambda row: row[:2] != ["late", "1/1"], rows) if row[0] == "late"]
    watching.terminate()
    watching.communicate()

    assert states[0] == ["0/1", "Pending"]


def test_waiting_ends_when_the_last_finalizer_goes(space: LabKubectl) -> None:
    hold = {"metadata": {"finalizers": ["example.com/hold"]}}
    space("run", "one", "--image=nginx", "--overrides", json.dumps({"apiVersion": "v1", **hold}))
    space("delete", "pod", "one", "--wait=false")
    eventually(lambda: not space.pod_networks(), "the kubelet is done with it")
    waiting = space.start("wait", "--for=delete", "pod/one", "--timeout=20s", "-v=6")
    assert waiting.stderr is not None
    next(line for line in waiting.stderr if "watch=true" in line)
    space("patch", "pod", "one", "-p", '{"metadata":{"finalizers":null}}')

    assert (waiting.communicate()[0], waiting.returncode) == ("pod/one condition met\n", 0)


def test_a_pod_enters_and_leaves_its_service_as_its_readiness_changes(space: LabKubectl) -> None:
    space("apply", "-f", "-", stdin=SWITCHED)
    space("wait", "--for=condition=Ready", "pod/client", "--timeout=20s")
    eventually(lambda: space.probe("client", "switched:80")["errors"] == {"refused": 1}, "refusal")

    space.exec("switched", "touch", "/tmp/ready")
    space("wait", "--for=condition=Ready", "pod/switched", "--timeout=20s")
    eventually(lambda: space.probe("client", "switched:80")["answered"] == 1, "an answer")

    space.exec("switched", "rm", "/tmp/ready")
    space("wait", "--for=condition=Ready=False", "pod/switched", "--timeout=20s")
    eventually(lambda: space.probe("client", "switched:80")["errors"] == {"refused": 1}, "refusal again")


def test_a_pod_runs_as_soon_as_what_it_lacked_is_there(space: LabKubectl) -> None:
    waiting = ".status.containerStatuses[0].state.waiting.reason"
    space("apply", "-f", "-", stdin=NEEDY)
    eventually(lambda: "FailedScheduling" in space("get", "events"), "no node for it")
    space("label", "node", "worker-1", "disk=ssd")
    try:
        lacks = eventually(
            lambda: space.field("pod", "needy", path=waiting).replace("ContainerCreating", ""), "a reason"
        )
        space("create", "configmap", "late", "--from-literal=A=b")
        space("wait", "--for=condition=Ready", "pod/needy", "--timeout=20s")
    finally:
        space("label", "node", "worker-1", "disk-")

    assert lacks == "CreateContainerConfigError"
    assert space.exec("needy", "printenv", "A") == "b\n"


# --- nodes


def test_a_cordoned_node_gets_no_new_pods(space: LabKubectl) -> None:
    space("cordon", "worker-1")
    try:
        space("create", "deployment", "many", "--image=pause", "--replicas=4")
        space("rollout", "status", "deployment/many", "--timeout=20s")
        space("apply", "-f", "-", stdin=SLEEPER.replace("NAME", "pinned").replace("TOLERATION", ""))
        why = '.status.conditions[?(@.type=="PodScheduled")].message'
        said = eventually(lambda: space.field("pod", "pinned", path=why), "unschedulable")
    finally:
        space("uncordon", "worker-1")

    assert nodes_of(space, "app=many") == ["worker-2"] * 4
    assert "1 node(s) were unschedulable" in said
    space("wait", "--for=condition=Ready", "pod/pinned", "--timeout=20s")


def test_a_taint_evicts_pods_that_do_not_tolerate_it(space: LabKubectl) -> None:
    dns = space.within("kube-system")
    node = next(name for name in NODES[1:] if name not in nodes_of(dns, "k8s-app=kube-dns"))
    there = SLEEPER.replace("worker-1", node)
    tolerant = "tolerations: [{key: away, operator: Exists}]"
    space("apply", "-f", "-", stdin=there.replace("NAME", "stays").replace("TOLERATION", tolerant))
    space("apply", "-f", "-", stdin=there.replace("NAME", "leaves").replace("TOLERATION", ""))
    space("wait", "--for=condition=Ready", "pod", "--all", "--timeout=20s")
    space("taint", "node", node, "away=now:NoExecute")
    try:
        space("wait", "--for=delete", "pod/leaves", "--timeout=20s")
        left = space("get", "pods", "-o", "name")
    finally:
        space("taint", "node", node, "away-")

    assert left == "pod/stays\n"


def test_drain_empties_a_node_and_the_service_lives_on(web: LabKubectl) -> None:
    try:
        web("drain", "worker-2", "--ignore-daemonsets", "--force", "--pod-selector=app=web", "--timeout=30s")
        web.follows("web", "app=web", 2)
        where = set(nodes_of(web, "app=web"))
        eventually(lambda: web.run("get", "pod", "client").returncode == 0, "the client")
        answered = web.probe("node/control-plane", f"{web.field('service', 'web', path='.spec.clusterIP')}:80", count=9)
    finally:
        web("uncordon", "worker-2")

    assert where == {"worker-1"}
    assert answered["answered"] == 9


BUDGETED = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Pod
metadata: {name: scratch, labels: {app: scratch}}
spec:
  nodeSelector: {kubernetes.io/hostname: worker-1}
  volumes: [{name: scratch, emptyDir: {}}]
  containers: [{name: c, image: pause, volumeMounts: [{name: scratch, mountPath: /scratch}]}]
"""
OURS = "--pod-selector=app in (web,scratch)"


@pytest.mark.parametrize("minor", [27, 33])
def test_drain_waits_until_the_disruption_budget_lets_go(web: LabKubectl, minor: int) -> None:
    anything = ("--force", "--delete-emptydir-data", "--ignore-daemonsets")
    kubectl = replace(web, program=find_kubectl(minor), cache=web.cache / str(minor))
    kubectl("apply", "-f", "-", stdin=BUDGETED)
    web("wait", "--for=condition=Ready", "pod/scratch", "--timeout=20s")
    web("wait", "--for=jsonpath={.status.currentHealthy}=2", "pdb/web", "--timeout=20s")
    node = nodes_of(web, "app=web")[0]
    web("cordon", "worker-1", "worker-2")
    try:
        strict = kubectl.run("drain", "worker-1", OURS)
        trial = kubectl("drain", "worker-1", "--pod-selector=app=scratch", *anything, "--dry-run=server")
        draining = kubectl.start("drain", node, OURS, *anything, "--timeout=30s")
        told = itertools.takewhile(lambda line: "will retry after 5s" not in line, draining.stderr or ())
        before = [*told]
        web("uncordon", next(other for other in ("worker-1", "worker-2") if other != node))
        web("scale", "deployment/web", "--replicas=3")
        out, err = draining.communicate(timeout=40)
    finally:
        web("uncordon", "worker-1", "worker-2")

    assert "cannot delete" in strict.stderr
    assert "use --delete-emptydir-data to override" in strict.stderr
    assert "node/worker-1 drained (server dry run)" in trial
    assert draining.returncode == 0, f"{before} {err}"
    assert f"node/{node} drained" in out
    assert node not in nodes_of(web, "app=web")


AGENT = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: agent, image: "agent:1"}]}
"""


def test_a_daemon_set_has_a_pod_on_every_node_that_takes_it(web: LabKubectl) -> None:
    def nodes() -> list[str]:
        return sorted(nodes_of(web, "app=agent"))

    web("apply", "-f", "-", stdin=AGENT)
    web("rollout", "status", "ds/agent", "--timeout=40s")
    assert nodes() == ["worker-1", "worker-2"]  # the third node's taint is not tolerated
    assert web("get", "ds", "agent", "--no-headers").split()[1:7] == ["2", "2", "2", "2", "2", "<none>"]

    web("set", "image", "ds/agent", "agent=agent:2")
    web("rollout", "status", "ds/agent", "--timeout=40s")
    assert {pod["spec"]["containers"][0]["image"] for pod in web.get("pods", "-l", "app=agent")["items"]} == {"agent:2"}
    assert [line.split()[0] for line in web("rollout", "history", "ds/agent").splitlines()[2:4]] == ["1", "2"]
    web("rollout", "undo", "ds/agent")
    web("rollout", "status", "ds/agent", "--timeout=40s")
    assert {pod["spec"]["containers"][0]["image"] for pod in web.get("pods", "-l", "app=agent")["items"]} == {"agent:1"}

    web("patch", "ds", "agent", "-p", '{"spec": {"template": {"spec": {"nodeSelector": {"agent": "here"}}}}}')
    web("label", "node", "worker-2", "agent=here")
    web("rollout", "status", "ds/agent", "--timeout=40s")
    eventually(lambda: nodes() == ["worker-2"], "a Pod on worker-2 alone")
    refused = web.run("drain", "worker-2", "--pod-selector=app=agent", "--dry-run=server")
    web("uncordon", "worker-2")
    web("label", "node", "worker-2", "agent-")
    web("delete", "ds", "agent", "--timeout=20s")
    assert "cannot delete DaemonSet-managed Pods" in refused.stderr


SHARDS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: shard}
spec:
  replicas: 2
  serviceName: shard
  selector: {matchLabels: {app: shard}}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  template:
    metadata: {labels: {app: shard}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: "shard:1", ports: [{containerPort: 80}], volumeMounts: [{name: data, mountPath: /d}]}
---
apiVersion: v1
kind: Service
metadata: {name: shard}
spec: {clusterIP: None, selector: {app: shard}, ports: [{port: 80}]}
"""


def test_each_pod_of_a_stateful_set_has_a_name_in_dns_that_stays_its_own(web: LabKubectl) -> None:
    def answers(number: int) -> bool:
        done = web.run("exec", "client", "--", "curl", "-s", "-m", "2", f"http://shard-{number}.shard")
        return f'"pod":"shard-{number}"' in done.stdout

    web("apply", "-f", "-", stdin=SHARDS)
    web("rollout", "status", "sts/shard", "--timeout=40s")
    assert web("get", "sts", "shard", "--no-headers").split()[:2] == ["shard", "2/2"]
    assert web("get", "pvc", "-o", "name").split() == [f"persistentvolumeclaim/data-shard-{n}" for n in (0, 1)]
    eventually(lambda: answers(0) and answers(1), "both by their names")

    web("set", "image", "sts/shard", "c=shard:2")
    web("rollout", "status", "sts/shard", "--timeout=40s")
    assert web.field("pods", "-l", "app=shard", path=".items[*].spec.containers[0].image") == "shard:2 shard:2"
    eventually(lambda: answers(0) and answers(1), "both by their names")
    web("rollout", "undo", "sts/shard")
    web("rollout", "status", "sts/shard", "--timeout=40s")
    assert [line.split()[0] for line in web("rollout", "history", "sts/shard").splitlines()[2:4]] == ["2", "3"]
    assert web.field("pods", "-l", "app=shard", path=".items[*].spec.containers[0].image") == "shard:1 shard:1"

    web("scale", "sts/shard", "--replicas=1")
    eventually(lambda: web("get", "pods", "-l", "app=shard", "-o", "name").split() == ["pod/shard-0"], "one is left")
    web("delete", "sts/shard", "service/shard", "pvc/data-shard-0", "pvc/data-shard-1", "--ignore-not-found")


def test_steps_of_a_topology_change_objects_of_kinds_that_were_defined_just_now(web: LabKubectl) -> None:
    web = replace(web, cache=web.cache / "gates")  # what it remembers of kinds is soon untrue
    lab, spec = LabApi(web.lab), {"listeners": [{"name": "web", "port": 80}], "className": "nginx"}
    definition = yaml.safe_load(Path(__file__).with_name("gates.yaml").read_text())
    meta = {"name": "front", "namespace": web.namespace}
    gate = {"apiVersion": "edge.example.com/v1", "kind": "Gate", "metadata": meta, "spec": spec}

    changes.apply(lab, [definition, gate])
    changes.apply(lab, [{**gate, "spec": {**spec, "replicas": 3}}])
    assert web.field("gate", "front", path=".spec.replicas") == "3"
    gone = Reference(api_version="edge.example.com/v1", kind="Gate", name="front", namespace=web.namespace)
    changes.delete(lab, [gone])
    assert "not found" in web.run("get", "gate", "front").stderr
    web("delete", "-f", "-", stdin=json.dumps(definition))


def test_a_service_cidr_gives_addresses_and_goes_when_none_is_left(web: LabKubectl) -> None:
    more = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: more}\nspec: {cidrs: [10.97.0.0/24]}"
    why = '.status.conditions[?(@.type=="Ready")].reason'
    web("apply", "-f", "-", stdin=more)
    web("wait", "--for=condition=Ready", "servicecidr/more", "--timeout=20s")
    web("create", "service", "clusterip", "extra", "--tcp=80:8080", "--clusterip=10.97.0.9")
    web("patch", "service", "extra", "-p", '{"spec": {"selector": {"app": "web"}}}')
    web.follows("extra", "app=web", 2)
    answered = web.probe("client", "extra:80", count=3)["answered"]
    web("delete", "servicecidr", "more", "--wait=false")
    waiting = eventually(lambda: web.field("servicecidr", "more", path=why), "a reason to wait")
    web("delete", "service", "extra")
    web("wait", "--for=delete", "servicecidr/more", "--timeout=40s")

    assert (answered, waiting) == (3, "Terminating")


# --- several hands


def test_two_applies_at_once_agree(space: LabKubectl) -> None:
    path = space.cache.with_name("web.yaml")
    path.write_text(WEB)
    both = [space.start("apply", "-f", str(path)) for _ in range(2)]
    answers = [process.communicate(timeout=30) for process in both]
    again = space("apply", "-f", str(path))
    space("rollout", "status", "deployment/web", "--timeout=20s")

    # The slower one may be told that somebody created an object between its look and its own creation.
    trouble = [line for _, err in answers for line in err.splitlines() if "AlreadyExists" not in line]
    assert trouble == []
    assert {line.split()[-1] for line in again.splitlines()} <= {"unchanged", "configured"}
    assert len(space.follows("web", "app=web", 2)) == 2


# --- the end


def test_deleting_what_was_applied_leaves_nothing(web: LabKubectl) -> None:
    web("delete", "-f", "-", "--timeout=30s", stdin=WEB)
    everything = "pods,replicasets,deployments,services,endpoints,endpointslices"

    eventually(lambda: web("get", everything, "-o", "name") == "", "no objects")
    eventually(lambda: not web.pod_networks(), "no networks")
    for node in NODES:
        eventually(lambda node=node: f"{web.namespace}/" not in web.rules(node), f"no rules on {node}")  # type: ignore[misc]
    assert web.namespace not in web.exec("node/worker-1", "ip", "netns")


def test_deleting_a_namespace_takes_everything_in_it(web: LabKubectl) -> None:
    web("create", "configmap", "settings", "--from-literal=a=b")
    web("delete", "namespace", web.namespace, "--timeout=30s")

    gone = web.run("get", "namespace", web.namespace)
    left = web("get", "all,configmaps,endpointslices,events", "-o", "name")
    assert (gone.returncode, left) == (1, "")
    assert web.pod_networks() == []
    for node in NODES:
        eventually(lambda node=node: f"{web.namespace}/" not in web.rules(node), f"no rules on {node}")  # type: ignore[misc]


def test_deleting_without_grace_is_at_once(space: LabKubectl) -> None:
    space("apply", "-f", "-", stdin=STUBBORN)
    space("wait", "--for=condition=Ready", "pod/stubborn", "--timeout=20s")
    space("delete", "pod", "stubborn", "--grace-period=0", "--force", "--timeout=5s")

    assert space.run("get", "pod", "stubborn").returncode == 1
    eventually(lambda: not space.pod_networks(), "no network", within=5)

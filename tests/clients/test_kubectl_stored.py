"""kubectl on kinds that are stored without anybody acting on them, and its commands that ask for all of them."""

from __future__ import annotations

import json

import pytest

from tests.clients.apiserver import Kubectl, find_kubectl

SHOP = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: default, labels: {app: shop}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: default, labels: {app: shop}}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: keep, namespace: default, labels: {app: shop}}
"""


@pytest.mark.parametrize("minor", [27, 32, 33])
async def test_what_is_applied_no_more_is_pruned_of_whatever_kind(kubectl: Kubectl, minor: int) -> None:
    kubectl = kubectl.as_program(find_kubectl(minor))
    keep = SHOP.rpartition("---")[2]

    assert (await kubectl("apply", "-f", "-", stdin=SHOP)).out.count("created") == 3
    assert (await kubectl("apply", "-f", "-", stdin=SHOP)).out.count("unchanged") == 3
    pruned = await kubectl("apply", "--prune", "-l", "app=shop", "-f", "-", stdin=keep)

    assert sorted(pruned.out.splitlines()) == [
        "configmap/keep unchanged",
        "persistentvolumeclaim/data pruned",
        "statefulset.apps/db pruned",
    ]


@pytest.mark.parametrize("minor", [27, 32, 33])
async def test_a_dump_of_the_cluster_has_all_it_looks_for(kubectl: Kubectl, minor: int) -> None:
    dump = (await kubectl.as_program(find_kubectl(minor))("cluster-info", "dump")).out

    lists = [word for word in dump.split('"') if word.endswith("List")]
    assert set(lists) >= {"DaemonSetList", "DeploymentList", "EventList", "NodeList", "PodList", "ReplicaSetList",
                          "ReplicationControllerList", "ServiceList"}  # fmt: skip


@pytest.mark.parametrize("minor", [27, 32])
async def test_generators_make_jobs_and_quotas(kubectl: Kubectl, minor: int) -> None:
    """1.32 sends protobuf."""
    kubectl = kubectl.as_program(find_kubectl(minor))

    await kubectl("create", "job", "once", "--image=i")
    await kubectl("create", "cronjob", "often", "--image=i", "--schedule=*/5 * * * *")
    await kubectl("create", "job", "now", "--from=cronjob/often")
    await kubectl("create", "quota", "few", "--hard=pods=3,requests.cpu=1")
    await kubectl("create", "pdb", "none", "--selector=app=web", "--min-available=0")
    refused = await kubectl.run("create", "cronjob", "never", "--image=i", "--schedule=now")

    once = json.loads((await kubectl("get", "job", "once", "-o", "json")).out)
    assert once["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert once["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": once["metadata"]["uid"]}
    assert json.loads((await kubectl("get", "pdb", "none", "-o", "json")).out)["spec"]["minAvailable"] == 0
    assert (await kubectl("get", "cronjob", "often")).rows[1][:8] == [
        "often", "*/5", "*", "*", "*", "*", "<none>", "False",
    ]  # fmt: skip
    assert {row[0] for row in (await kubectl("get", "jobs")).rows[1:]} == {"now", "once"}
    assert "expected exactly 5 fields, found 1: [now]" in refused.err
    described = (await kubectl("describe", "namespace", "default")).out
    assert "few" in described
    assert "No LimitRange resource." in described
    assert (await kubectl("describe", "job", "once")).out.startswith("Name:")

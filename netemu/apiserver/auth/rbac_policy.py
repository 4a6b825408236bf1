"""The roles and bindings that every cluster has from the start, and those that kubeadm and cluster DNS add.

Upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go` of Kubernetes 1.32, for the users and components
that there are here. `admin`, `edit` and `view` collect their rules from labelled roles, as upstream's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netemu.apiserver.auth.rbac import GROUP
from netemu.client.base import Obj
from netemu.model.resources import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES, Resource

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_ALL = (*_READ, *_WRITE)
_CERTIFICATES, _REQUESTS = "certificates.k8s.io", "certificatesigningrequests"
_AGGREGATE = f"{GROUP}/aggregate-to-"
_GET_NODES = "kubeadm:get-nodes"
BOOTSTRAPPERS = "system:bootstrappers:kubeadm:default-node-token"
"""The group of the tokens that kubeadm makes for nodes to join with."""
_BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY_PATHS = (
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
    "/version/",
)  # fmt: skip


def _rule(
    verbs: Sequence[str], group: str | Sequence[str], resources: str, names: Sequence[str] = ()
) -> dict[str, Any]:
    groups = [group] if isinstance(group, str) else list(group)
    rule: dict[str, Any] = {"verbs": sorted(verbs), "apiGroups": groups, "resources": resources.split()}
    return rule | ({"resourceNames": list(names)} if names else {})


def _paths(verbs: Sequence[str], paths: Sequence[str]) -> dict[str, Any]:
    return {"verbs": list(verbs), "nonResourceURLs": list(paths)}


_EVENTS = _rule(("create", "patch", "update"), ("", "events.k8s.io"), "events")
_APPS = ("daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale"
         " replicasets/status statefulsets statefulsets/scale statefulsets/status controllerrevisions")  # fmt: skip
_APPS_EDITED = ("daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale"
                " statefulsets statefulsets/scale")  # fmt: skip

_VIEW = [
    _rule(_READ, "", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods"
          " replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status"),
    _rule(_READ, "", "bindings events limitranges namespaces/status pods/log pods/status"
          " replicationcontrollers/status resourcequotas resourcequotas/status"),
    _rule(_READ, "", "namespaces"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule(_READ, "apps", _APPS),
    _rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    _rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    _rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    _rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
]  # fmt: skip
_EDIT = [
    _rule(_READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    _rule(("impersonate",), "", "serviceaccounts"),
    _rule(_WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    _rule(("create",), "", "pods/eviction"),
    _rule(_WRITE, "", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale"
          " secrets serviceaccounts services services/proxy"),
    _rule(("create",), "", "serviceaccounts/token"),
    _rule(_WRITE, "apps", _APPS_EDITED),
    _rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    _rule(_WRITE, "batch", "cronjobs jobs"),
    _rule(_WRITE, "policy", "poddisruptionbudgets"),
    _rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    _rule(_ALL, "coordination.k8s.io", "leases"),
]  # fmt: skip
_ADMIN = [
    _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule(_ALL, GROUP, "rolebindings roles"),
]

_PROXIER = [
    _rule(("list", "watch"), "", "endpoints services"),
    _rule(_READ, "", "nodes"),
    _EVENTS,
    _rule(("list", "watch"), "discovery.k8s.io", "endpointslices"),
    _rule(("list", "watch"), "networking.k8s.io", "servicecidrs"),
]
_SCHEDULER = [
    _EVENTS,
    _rule(("create",), "coordination.k8s.io", "leases"),
    _rule(("get", "list", "update", "watch"), "coordination.k8s.io", "leases", ("kube-scheduler",)),
    _rule(_READ, "", "nodes"),
    _rule(("delete", "get", "list", "watch"), "", "pods"),
    _rule(("create",), "", "bindings pods/binding"),
    _rule(("patch", "update"), "", "pods/status"),
    _rule(_READ, "", "persistentvolumeclaims persistentvolumes replicationcontrollers services namespaces"),
    _rule(_READ, "apps", "replicasets statefulsets"),
    _rule(_READ, "policy", "poddisruptionbudgets"),
    _rule(_READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities"),
    _rule(("create",), "authentication.k8s.io", "tokenreviews"),
    _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
]
_CONTROLLER_MANAGER = [
    _EVENTS,
    _rule(("create",), "coordination.k8s.io", "leases"),
    _rule(("get", "update"), "coordination.k8s.io", "leases", ("kube-controller-manager",)),
    _rule(("create",), "", "secrets serviceaccounts serviceaccounts/token"),
    _rule(("delete",), "", "secrets"),
    _rule(("get",), "", "configmaps namespaces secrets serviceaccounts"),
    _rule(("update",), "", "secrets serviceaccounts"),
    _rule(("create",), "authentication.k8s.io", "tokenreviews"),
    _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
    _rule(("list", "watch"), "*", "*"),
]
_NODE = [
    _rule(("create",), "authentication.k8s.io", "tokenreviews"),
    _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    _rule(_READ, "", "services"),
    _rule(("create", "get", "list", "watch"), "", "nodes"),
    _rule(("patch", "update"), "", "nodes nodes/status"),
    _rule(("create", "delete", "get", "list", "watch"), "", "pods"),
    _rule(("patch", "update"), "", "pods/status"),
    _rule(("create",), "", "pods/eviction"),
    _rule(("create", "patch", "update"), "", "events"),
    _rule(_READ, "", "configmaps secrets"),
    _rule(("get",), "", "endpoints persistentvolumeclaims persistentvolumes"),
    _rule(("get", "patch", "update"), "", "persistentvolumeclaims/status"),
    _rule(("get",), "storage.k8s.io", "volumeattachments"),
    _rule(_READ, "storage.k8s.io", "csidrivers"),
    _rule(("create", "delete", "get", "patch", "update"), "storage.k8s.io", "csinodes"),
    _rule(("create",), "", "serviceaccounts/token"),
    _rule(("create", "delete", "get", "patch", "update"), "coordination.k8s.io", "leases"),
    _rule(_READ, "node.k8s.io", "runtimeclasses"),
    _rule(("create", "get", "list", "watch"), _CERTIFICATES, _REQUESTS),
]
_SELF_REVIEWS = "selfsubjectaccessreviews selfsubjectrulesreviews"

_NODE_CLIENT = f"system:{_CERTIFICATES}:{_REQUESTS}:"

_CLUSTER_ROLES: dict[str, list[dict[str, Any]]] = {
    "cluster-admin": [_rule("*", "*", "*"), _paths("*", "*")],
    "system:discovery": [_paths(("get",), _DISCOVERY_PATHS)],
    "system:monitoring": [_paths(("get",), ("/metrics", "/metrics/slis", "/livez", "/readyz", "/healthz", "/livez/*",
                                            "/readyz/*", "/healthz/*"))],
    "system:basic-user": [
        _rule(("create",), "authorization.k8s.io", _SELF_REVIEWS),
        _rule(("create",), "authentication.k8s.io", "selfsubjectreviews"),
    ],
    "system:public-info-viewer": [_paths(("get",), _PUBLIC_PATHS)],
    "system:aggregate-to-admin": _ADMIN,
    "system:aggregate-to-edit": _EDIT,
    "system:aggregate-to-view": _VIEW,
    "system:node": _NODE,
    "system:node-problem-detector": [
        _rule(("get",), "", "nodes"), _rule(("patch",), "", "nodes/status"), _EVENTS,
    ],
    "system:node-proxier": _PROXIER,
    "system:kubelet-api-admin": [
        _rule(_READ, "", "nodes"), _rule(("proxy",), "", "nodes"),
        _rule("*", "", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
    ],
    "system:auth-delegator": [
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:node-bootstrapper": [_rule(("create", "get", "list", "watch"), _CERTIFICATES, _REQUESTS)],
    f"{_NODE_CLIENT}nodeclient": [_rule(("create",), _CERTIFICATES, f"{_REQUESTS}/nodeclient")],
    f"{_NODE_CLIENT}selfnodeclient": [_rule(("create",), _CERTIFICATES, f"{_REQUESTS}/selfnodeclient")],
    **{
        f"system:{_CERTIFICATES}:{signer}-approver": [
            _rule(("approve",), _CERTIFICATES, "signers", (f"kubernetes.io/{signer}",))
        ]
        for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
    },
    "system:kube-scheduler": _SCHEDULER,
    "system:volume-scheduler": [
        _rule((*_READ, "patch", "update"), "", "persistentvolumeclaims persistentvolumes"),
        _rule(_READ, "storage.k8s.io", "storageclasses"),
    ],
    "system:persistent-volume-provisioner": [
        _rule(("create", "delete", *_READ), "", "persistentvolumes"),
        _rule((*_READ, "update"), "", "persistentvolumeclaims"),
        _rule(_READ, "storage.k8s.io", "storageclasses"),
        _rule(("watch",), "", "events"),
        _EVENTS,
    ],
    "system:kube-aggregator": [_rule(_READ, "", "endpoints services")],
    "system:kube-dns": [_rule(("list", "watch"), "", "endpoints services")],
    "system:heapster": [
        _rule(_READ, "", "events namespaces nodes pods"), _rule(_READ, "extensions", "deployments"),
    ],
    "system:kube-controller-manager": _CONTROLLER_MANAGER,
    "system:service-account-issuer-discovery": [
        _paths(("get",), ("/.well-known/openid-configuration", "/.well-known/openid-configuration/",
                          "/openid/v1/jwks", "/openid/v1/jwks/")),
    ],
}  # fmt: skip
_AGGREGATED = {"view": ("edit", _VIEW), "edit": ("admin", _EDIT + _VIEW), "admin": ("", _EDIT + _VIEW + _ADMIN)}
"""Each role made of others: the role that it is part of itself, and what it has collected, in the order of the names of
those that it collects from."""

_USER, _SERVICE_ACCOUNT = "User", "ServiceAccount"
_CLUSTER_BINDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "cluster-admin": (("Group", "system:masters"),),
    "system:monitoring": (("Group", "system:monitoring"),),
    "system:discovery": (("Group", "system:authenticated"),),
    "system:basic-user": (("Group", "system:authenticated"),),
    "system:public-info-viewer": (("Group", "system:authenticated"), ("Group", "system:unauthenticated")),
    "system:node-proxier": ((_USER, "system:kube-proxy"),),
    "system:kube-controller-manager": ((_USER, "system:kube-controller-manager"),),
    "system:kube-scheduler": ((_USER, "system:kube-scheduler"),),
    "system:volume-scheduler": ((_USER, "system:kube-scheduler"),),
    "system:node": (),
    "system:service-account-issuer-discovery": (("Group", "system:serviceaccounts"),),
}


def default_policy() -> list[tuple[Resource, Obj]]:
    """The roles and bindings of every cluster."""
    roles = [_cluster_role(name, rules) for name, rules in _CLUSTER_ROLES.items()]
    roles += [_aggregated(name) for name in _AGGREGATED]
    bindings = [
        _cluster_binding(name, [_subject(kind, who) for kind, who in subjects], _BOOTSTRAPPING)
        for name, subjects in _CLUSTER_BINDINGS.items()
    ]
    return [
        *((CLUSTERROLES, role) for role in roles),
        *((CLUSTERROLEBINDINGS, binding) for binding in bindings),
        *_leader_locking("kube-controller-manager"),
        *_leader_locking("kube-scheduler"),
    ]


def _leader_locking(component: str) -> list[tuple[Resource, Obj]]:
    """The Leases by which members of a control plane agree on one, and who may write them."""
    name = f"system::leader-locking-{component}"
    metadata = {**_default_metadata(name, _BOOTSTRAPPING), "namespace": "kube-system"}
    verbs = ("create", "get", "list", "update", "watch")
    subjects = [
        _subject(_USER, f"system:{component}"),
        {"kind": _SERVICE_ACCOUNT, "name": component, "namespace": "kube-system"},
    ]
    ref = {"apiGroup": GROUP, "kind": "Role", "name": name}
    rule = _rule(verbs, "coordination.k8s.io", "leasecandidates leases")
    return [
        (ROLES, {"metadata": metadata, "rules": [rule]}),
        (ROLEBINDINGS, {"metadata": metadata, "roleRef": ref, "subjects": subjects}),
    ]


def kubeadm_policy() -> list[tuple[Resource, Obj]]:
    """Who may have certificates of kubelets approved without asking: those that join with a token of kubeadm's, and
    kubelets for themselves; and everybody finds the cluster. Upstream: `cmd/kubeadm/app/phases/bootstraptoken`."""
    joining, nodes = _subject("Group", BOOTSTRAPPERS), _subject("Group", "system:nodes")
    role = {"metadata": {"name": _GET_NODES}, "rules": [_rule(("get",), "", "nodes")]}
    info = _rule(("get",), "", "configmaps", ("cluster-info",))
    bindings = [
        (CLUSTERROLEBINDINGS, {**_cluster_binding(ref, [subject], {}), "metadata": {"name": f"kubeadm:{name}"}})
        for name, ref, subject in (
            ("kubelet-bootstrap", "system:node-bootstrapper", joining),
            ("get-nodes", _GET_NODES, joining),
            ("node-autoapprove-bootstrap", f"{_NODE_CLIENT}nodeclient", joining),
            ("node-autoapprove-certificate-rotation", f"{_NODE_CLIENT}selfnodeclient", nodes),
        )
    ]
    anybody = _subject(_USER, "system:anonymous")
    found = _local_policy("kubeadm:bootstrap-signer-clusterinfo", "kube-public", [info], anybody)
    return [(CLUSTERROLES, role), *bindings, *found]


def dns_policy(namespace: str, faults: str) -> list[tuple[Resource, Obj]]:
    """What cluster DNS may do: kubeadm's role for CoreDNS, and to follow the ConfigMap of its faults and tell of them.

    Upstream: `cmd/kubeadm/app/phases/addons/dns/manifests.go`.
    """
    name = "system:coredns"
    rules = [
        _rule(("list", "watch"), "", "endpoints namespaces pods services"),
        _rule(("list", "watch"), "discovery.k8s.io", "endpointslices"),
    ]
    subject = {"kind": _SERVICE_ACCOUNT, "name": "coredns", "namespace": namespace}
    return [
        (CLUSTERROLES, {"metadata": {"name": name}, "rules": rules}),
        (CLUSTERROLEBINDINGS, _cluster_binding(name, [subject], {})),
        *_faults_policy("netemu:coredns", namespace, faults, subject),
    ]


def agent_policy(user: str, namespace: str, faults: str) -> list[tuple[Resource, Obj]]:
    """What a node agent may do beside its kubelets and proxies: follow Services, and faults of the resolver outside."""
    rules = [
        _rule(("list", "watch"), "", "pods services"),
        _rule(("list", "watch"), "discovery.k8s.io", "endpointslices"),
    ]
    subject = _subject(_USER, user)
    return [
        (CLUSTERROLES, {"metadata": {"name": user}, "rules": rules}),
        (CLUSTERROLEBINDINGS, _cluster_binding(user, [subject], {})),
        *_faults_policy(user, namespace, faults, subject),
    ]


def _faults_policy(name: str, namespace: str, faults: str, subject: dict[str, str]) -> list[tuple[Resource, Obj]]:
    """To follow the ConfigMap of the faults of a DNS server, and to tell of them."""
    return _local_policy(name, namespace, [_rule(_READ, "", "configmaps", (faults,)), _EVENTS], subject)


def _local_policy(
    name: str, namespace: str, rules: list[dict[str, Any]], subject: dict[str, str]
) -> list[tuple[Resource, Obj]]:
    """A Role and its binding to one subject."""
    local = {"name": name, "namespace": namespace}
    ref = {"apiGroup": GROUP, "kind": "Role", "name": name}
    return [
        (ROLES, {"metadata": local, "rules": rules}),
        (ROLEBINDINGS, {"metadata": local, "roleRef": ref, "subjects": [subject]}),
    ]


def _cluster_role(name: str, rules: list[dict[str, Any]]) -> Obj:
    labels = dict(_BOOTSTRAPPING)
    if (part := name.removeprefix("system:aggregate-to-")) != name:
        labels[f"{_AGGREGATE}{part}"] = "true"
    return {"metadata": _default_metadata(name, labels), "rules": rules}


def _aggregated(name: str) -> Obj:
    wider, rules = _AGGREGATED[name]
    labels = _BOOTSTRAPPING | ({f"{_AGGREGATE}{wider}": "true"} if wider else {})
    selector = {"matchLabels": {f"{_AGGREGATE}{name}": "true"}}
    return {
        "metadata": _default_metadata(name, labels),
        "aggregationRule": {"clusterRoleSelectors": [selector]},
        "rules": rules,
    }


def _cluster_binding(name: str, subjects: list[dict[str, str]], labels: dict[str, str]) -> Obj:
    return {
        "metadata": _default_metadata(name, labels) if labels else {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": subjects,
    }


def _subject(kind: str, name: str) -> dict[str, str]:
    return {"kind": kind, "apiGroup": GROUP, "name": name}


def _default_metadata(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "labels": dict(labels), "annotations": {f"{GROUP}/autoupdate": "true"}}

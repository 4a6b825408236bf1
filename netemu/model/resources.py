"""The resources that are built in: where each lives in the URL tree and what clients may call it.

One table. The command line and the store's keys are read off it; what an API server serves at the moment, which may be
more, is `served.Served`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netemu.model.custom import Custom

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of one API group and version."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    """Names as in the URL: `status`, `scale`, `binding` ..."""
    verbs: tuple[str, ...] = ALL_VERBS
    custom: Custom | None = field(default=None, compare=False, repr=False)
    """What its CustomResourceDefinition says of it; None for what is built in."""

    @property
    def singular(self) -> str:
        """`pod`."""
        return self.custom.names.singular if self.custom else self.kind.lower()

    @property
    def list_kind(self) -> str:
        """`PodList`."""
        return self.custom.names.list_kind if self.custom else f"{self.kind}List"

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """`/api/v1`, `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the collection, of one object, or of one of its subresources."""
        parts = [self.root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource(
    "", "v1", "Namespace", "namespaces", False, ("ns",), (), ("status", "finalize"),
    tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
)  # fmt: skip
NODES = Resource("", "v1", "Node", "nodes", False, ("no",), (), ("proxy", "status"))
PODS = Resource(
    "", "v1", "Pod", "pods", True, ("po",), ("all",),
    ("attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "status"),
)  # fmt: skip
SERVICES = Resource("", "v1", "Service", "services", True, ("svc",), ("all",), ("proxy", "status"))
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", True, ("ep",))
CONFIGMAPS = Resource("", "v1", "ConfigMap", "configmaps", True, ("cm",))
SECRETS = Resource("", "v1", "Secret", "secrets", True)
SERVICEACCOUNTS = Resource("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",), (), ("token",))
REPLICATIONCONTROLLERS = Resource(
    "", "v1", "ReplicationController", "replicationcontrollers", True, ("rc",), ("all",), ("status", "scale")
)
PERSISTENTVOLUMECLAIMS = Resource(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), (), ("status",)
)
PERSISTENTVOLUMES = Resource("", "v1", "PersistentVolume", "persistentvolumes", False, ("pv",), (), ("status",))
RESOURCEQUOTAS = Resource("", "v1", "ResourceQuota", "resourcequotas", True, ("quota",), (), ("status",))
LIMITRANGES = Resource("", "v1", "LimitRange", "limitranges", True, ("limits",))
EVENTS = Resource("", "v1", "Event", "events", True, ("ev",))
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", True, ("deploy",), ("all",), ("status", "scale"))
REPLICASETS = Resource("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",), ("all",), ("status", "scale"))
DAEMONSETS = Resource("apps", "v1", "DaemonSet", "daemonsets", True, ("ds",), ("all",), ("status",))
STATEFULSETS = Resource("apps", "v1", "StatefulSet", "statefulsets", True, ("sts",), ("all",), ("status", "scale"))
CONTROLLERREVISIONS = Resource("apps", "v1", "ControllerRevision", "controllerrevisions")
JOBS = Resource("batch", "v1", "Job", "jobs", True, (), ("all",), ("status",))
CRONJOBS = Resource("batch", "v1", "CronJob", "cronjobs", True, ("cj",), ("all",), ("status",))
CERTIFICATESIGNINGREQUESTS = Resource(
    "certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", False, ("csr",), (),
    ("approval", "status"),
)  # fmt: skip
CUSTOMRESOURCEDEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False, ("crd", "crds"),
    ("api-extensions",), ("status",),
)  # fmt: skip
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", True)
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True)
EVENTS_V1 = Resource("events.k8s.io", "v1", "Event", "events", True, ("ev",))
"""The same objects as `EVENTS`, in the newer shape. One store behind both."""
INGRESSCLASSES = Resource("networking.k8s.io", "v1", "IngressClass", "ingressclasses", False)
INGRESSES = Resource("networking.k8s.io", "v1", "Ingress", "ingresses", True, ("ing",), (), ("status",))
IPADDRESSES = Resource("networking.k8s.io", "v1", "IPAddress", "ipaddresses", False, ("ip",))
NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, ("netpol",))
SERVICECIDRS = Resource("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", False, (), (), ("status",))
RUNTIMECLASSES = Resource("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", False)
PODDISRUPTIONBUDGETS = Resource(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, ("pdb",), (), ("status",)
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False)
CLUSTERROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False)
SUBJECTACCESSREVIEWS = Resource(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False, verbs=("create",)
)
"""A question, answered at once and not among the resources that are stored."""

RESOURCES: tuple[Resource, ...] = (
    NAMESPACES, NODES, PODS, SERVICES, ENDPOINTS, CONFIGMAPS, SECRETS, SERVICEACCOUNTS,
    REPLICATIONCONTROLLERS, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, RESOURCEQUOTAS, LIMITRANGES, EVENTS,
    DEPLOYMENTS, REPLICASETS, DAEMONSETS, STATEFULSETS, CONTROLLERREVISIONS, JOBS, CRONJOBS,
    CERTIFICATESIGNINGREQUESTS, LEASES, ENDPOINTSLICES, EVENTS_V1,
    INGRESSCLASSES, INGRESSES, IPADDRESSES, NETWORKPOLICIES, SERVICECIDRS, RUNTIMECLASSES, PODDISRUPTIONBUDGETS,
    CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES,
    CUSTOMRESOURCEDEFINITIONS,
)  # fmt: skip

_BY_PATH = {(r.group, r.version, r.plural): r for r in RESOURCES}
_BY_KIND = {(r.api_version, r.kind): r for r in RESOURCES}


def by_path(group: str, version: str, plural: str) -> Resource | None:
    """The resource at `/apis/GROUP/VERSION/PLURAL` (group `""` for `/api/v1`)."""
    return _BY_PATH.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource that an object's `apiVersion` and `kind` name."""
    return _BY_KIND.get((api_version, kind))


def by_name(word: str) -> Resource | None:
    """The resource that a person means by `pods`, `pod`, `po` or `deployments.apps`."""
    word = word.lower()
    for resource in RESOURCES:
        if word in (resource.plural, resource.singular, str(resource), *resource.short_names):
            return resource
    return None

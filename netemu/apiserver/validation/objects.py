"""What is wrong with an object, field by field, in upstream's words.

`validate` is given objects *after* defaulting. With `old`, the stored object, it also checks what an update may not
change. The rules of each kind live in a module of their own; this one knows which applies. Wrong types are not found
here: `Schema.type_errors` finds them before, as upstream's decoder does, and validation relies on it.
"""

from __future__ import annotations

from collections.abc import Callable

from netemu.apiserver.validation.batch import validate_cronjob, validate_job
from netemu.apiserver.validation.certificates import validate_csr
from netemu.apiserver.validation.cluster import (
    validate_configmap,
    validate_event,
    validate_lease,
    validate_namespace,
    validate_node,
    validate_runtimeclass,
    validate_secret,
)
from netemu.apiserver.validation.crd import validate_definition
from netemu.apiserver.validation.custom import validate_custom
from netemu.apiserver.validation.discovery import validate_endpoints, validate_endpointslice
from netemu.apiserver.validation.meta import validate_meta, validate_meta_update
from netemu.apiserver.validation.networking import (
    validate_ingress,
    validate_ingressclass,
    validate_ipaddress,
    validate_networkpolicy,
    validate_servicecidr,
)
from netemu.apiserver.validation.pod import validate_pod
from netemu.apiserver.validation.policy import validate_poddisruptionbudget
from netemu.apiserver.validation.rbac import validate_binding, validate_role
from netemu.apiserver.validation.service import validate_service
from netemu.apiserver.validation.storage import (
    validate_claim,
    validate_limitrange,
    validate_persistentvolume,
    validate_resourcequota,
)
from netemu.apiserver.validation.workloads import (
    validate_daemonset,
    validate_deployment,
    validate_replicaset,
    validate_replicationcontroller,
    validate_statefulset,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError
from netemu.model.resources import Resource

_Rule = Callable[[Obj, Obj | None], list[FieldError]]

_RULES: dict[tuple[str, str], _Rule] = {
    ("", "Namespace"): validate_namespace,
    ("", "Node"): validate_node,
    ("", "Pod"): validate_pod,
    ("", "Service"): validate_service,
    ("", "Endpoints"): validate_endpoints,
    ("", "ConfigMap"): validate_configmap,
    ("", "Secret"): validate_secret,
    ("", "Event"): validate_event,
    ("", "LimitRange"): validate_limitrange,
    ("", "PersistentVolume"): validate_persistentvolume,
    ("", "PersistentVolumeClaim"): validate_claim,
    ("", "ReplicationController"): validate_replicationcontroller,
    ("", "ResourceQuota"): validate_resourcequota,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): validate_definition,
    ("apps", "DaemonSet"): validate_daemonset,
    ("apps", "Deployment"): validate_deployment,
    ("apps", "ReplicaSet"): validate_replicaset,
    ("apps", "StatefulSet"): validate_statefulset,
    ("batch", "CronJob"): validate_cronjob,
    ("batch", "Job"): validate_job,
    ("certificates.k8s.io", "CertificateSigningRequest"): validate_csr,
    ("coordination.k8s.io", "Lease"): validate_lease,
    ("discovery.k8s.io", "EndpointSlice"): validate_endpointslice,
    ("events.k8s.io", "Event"): validate_event,
    ("networking.k8s.io", "Ingress"): validate_ingress,
    ("networking.k8s.io", "IngressClass"): validate_ingressclass,
    ("networking.k8s.io", "IPAddress"): validate_ipaddress,
    ("networking.k8s.io", "NetworkPolicy"): validate_networkpolicy,
    ("networking.k8s.io", "ServiceCIDR"): validate_servicecidr,
    ("node.k8s.io", "RuntimeClass"): validate_runtimeclass,
    ("policy", "PodDisruptionBudget"): validate_poddisruptionbudget,
    ("rbac.authorization.k8s.io", "ClusterRole"): validate_role,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): validate_binding,
    ("rbac.authorization.k8s.io", "Role"): validate_role,
    ("rbac.authorization.k8s.io", "RoleBinding"): validate_binding,
}


def validate(resource: Resource, obj: Obj, old: Obj | None = None) -> list[FieldError]:
    """Everything wrong with `obj`, empty when it may be stored. With `old`, `obj` is about to replace it."""
    errors = validate_meta(resource, obj)
    if old is not None:
        errors += validate_meta_update(obj, old)
    if resource.custom:
        errors += validate_custom(resource.custom, obj, old)
    elif rule := _RULES.get((resource.group, resource.kind)):
        errors += rule(obj, old)
    return errors

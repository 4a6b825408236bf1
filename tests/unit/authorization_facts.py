"""Who may do what in a new cluster: upstream's default roles as facts, to hold those of the code against.

Taken down from the files that upstream compares its own policy with
(`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata/*.yaml`), and kubeadm's manifest of CoreDNS. A line is verbs
and what they are allowed on, as kubectl names it: `RESOURCE.GROUP/SUBRESOURCE`; `r` and `w` are the verbs of reading
and writing. Resources that are not served here stand too: nobody may get more by a kind that comes later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

ALIASES = {"r": "get list watch", "w": "create delete deletecollection patch update", "rw": "get list watch create "
           "delete deletecollection patch update", "events": "create patch update"}  # fmt: skip

ROLES = {
    "authenticated": """
        create   selfsubjectaccessreviews.authorization.k8s.io selfsubjectrulesreviews.authorization.k8s.io
        create   selfsubjectreviews.authentication.k8s.io
    """,
    "view": """
        r   configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers
        r   replicationcontrollers/scale serviceaccounts services services/status
        r   bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status
        r   resourcequotas resourcequotas/status namespaces endpointslices.discovery.k8s.io controllerrevisions.apps
        r   daemonsets.apps daemonsets.apps/status deployments.apps deployments.apps/scale deployments.apps/status
        r   replicasets.apps replicasets.apps/scale replicasets.apps/status
        r   statefulsets.apps statefulsets.apps/scale statefulsets.apps/status
        r   horizontalpodautoscalers.autoscaling horizontalpodautoscalers.autoscaling/status
        r   cronjobs.batch cronjobs.batch/status jobs.batch jobs.batch/status
        r   poddisruptionbudgets.policy poddisruptionbudgets.policy/status
        r   ingresses.networking.k8s.io ingresses.networking.k8s.io/status networkpolicies.networking.k8s.io
    """,
    "edit": """
        r             pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy
        impersonate   serviceaccounts
        w             pods pods/attach pods/exec pods/portforward pods/proxy
        create        pods/eviction serviceaccounts/token
        w             configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale
        w             secrets serviceaccounts services services/proxy
        w             daemonsets.apps deployments.apps deployments.apps/rollback deployments.apps/scale
        w             replicasets.apps replicasets.apps/scale statefulsets.apps statefulsets.apps/scale
        w             horizontalpodautoscalers.autoscaling cronjobs.batch jobs.batch poddisruptionbudgets.policy
        w             ingresses.networking.k8s.io networkpolicies.networking.k8s.io
        rw            leases.coordination.k8s.io
    """,
    "admin": """
        create   localsubjectaccessreviews.authorization.k8s.io
        rw       roles.rbac.authorization.k8s.io rolebindings.rbac.authorization.k8s.io
    """,
    "cluster-admin": "*   *",
    "system:kube-proxy": """
        list watch   endpoints services endpointslices.discovery.k8s.io servicecidrs.networking.k8s.io
        r            nodes
        events       events events.events.k8s.io
    """,
    "system:kube-scheduler": """
        events              events events.events.k8s.io
        create              leases.coordination.k8s.io bindings pods/binding
        r                   nodes replicationcontrollers services namespaces persistentvolumeclaims persistentvolumes
        r                   replicasets.apps statefulsets.apps poddisruptionbudgets.policy
        r                   csinodes.storage.k8s.io csidrivers.storage.k8s.io csistoragecapacities.storage.k8s.io
        r                   storageclasses.storage.k8s.io
        patch update        persistentvolumeclaims persistentvolumes
        get list watch      pods
        delete              pods
        patch update        pods/status
        create              tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io
    """,
    "system:kube-controller-manager": """
        events              events events.events.k8s.io
        create              leases.coordination.k8s.io secrets serviceaccounts serviceaccounts/token
        delete              secrets
        get                 configmaps namespaces secrets serviceaccounts
        update              secrets serviceaccounts
        create              tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io
        list watch          *
    """,
    "leader-locking": """
        create get list update watch   leases.coordination.k8s.io leasecandidates.coordination.k8s.io
    """,
    "system:node": """
        create              tokenreviews.authentication.k8s.io
        create              subjectaccessreviews.authorization.k8s.io localsubjectaccessreviews.authorization.k8s.io
        r                   services configmaps secrets runtimeclasses.node.k8s.io csidrivers.storage.k8s.io pods nodes
        create patch update nodes
        patch update        nodes/status pods/status
        create delete       pods
        create              pods/eviction serviceaccounts/token
        events              events
        get                 endpoints persistentvolumeclaims persistentvolumes volumeattachments.storage.k8s.io
        get patch update    persistentvolumeclaims/status
        create get list watch         certificatesigningrequests.certificates.k8s.io
        create delete get patch update leases.coordination.k8s.io csinodes.storage.k8s.io
    """,
    "system:auth-delegator": """
        create   tokenreviews.authentication.k8s.io subjectaccessreviews.authorization.k8s.io
    """,
    "system:kubelet-api-admin": """
        r       nodes
        proxy   nodes
        *       nodes/log nodes/metrics nodes/proxy nodes/stats
    """,
    "system:node-problem-detector": """
        get      nodes
        patch    nodes/status
        events   events events.events.k8s.io
    """,
    "system:node-bootstrapper": """
        create get list watch   certificatesigningrequests.certificates.k8s.io
    """,
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": """
        create   certificatesigningrequests.certificates.k8s.io/nodeclient
    """,
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": """
        create   certificatesigningrequests.certificates.k8s.io/selfnodeclient
    """,
    "system:coredns": """
        list watch   endpoints services pods namespaces endpointslices.discovery.k8s.io
    """,
    "nothing": "",
}
"""`view` is part of `edit`, and `edit` of `admin`; what everybody has who is known, of all."""

PARTS = {"admin": ("edit",), "edit": ("view",)}

PATHS = {
    "anonymous": "/healthz /livez /readyz /version /version/",
    "authenticated": "/api /api/v1 /apis /apis/apps/v1 /healthz /livez /openapi /openapi/v2 /readyz /version /version/",
    "serviceaccount": "/.well-known/openid-configuration /openid/v1/jwks",
    "system:monitoring": "/healthz /livez /readyz /metrics /metrics/slis /livez/ping /readyz/ping /healthz/ping",
}


class Fact(NamedTuple):
    """A verb on a resource."""

    verb: str
    what: str


def facts(role: str) -> Iterator[Fact]:
    """What a role allows, parts included."""
    for line in filter(None, map(str.strip, ROLES[role].splitlines())):
        words = line.split()
        verbs = [word for word in words if word in _VERBS]
        for verb in " ".join(ALIASES.get(verb, verb) for verb in verbs[: _leading(words)]).split():
            for what in words[_leading(words) :]:
                yield Fact(verb, what)
    for part in PARTS.get(role, ()):
        yield from facts(part)


_VERBS = {*ALIASES, "get", "list", "watch", "create", "update", "patch", "delete", "impersonate", "proxy", "*"}


def _leading(words: list[str]) -> int:
    """How many words at the beginning of a line are verbs: `events` and `*` are also what verbs are allowed on."""
    count = 1
    while count < len(words) - 1 and words[count] in _VERBS - {"events", "*"}:
        count += 1
    return count

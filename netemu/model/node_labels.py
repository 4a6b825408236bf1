"""Which labels of its Node a kubelet may set itself.

Labels outside of Kubernetes' own domains are free; of those inside, a kubelet has the well-known ones and two domains.
Whatever lies in `node-restriction.kubernetes.io` is for administrators only, so that a node cannot draw to itself what
was meant for others. Upstream: `pkg/kubelet/apis/well_known_labels.go`, `plugin/pkg/admission/noderestriction`.
"""

from __future__ import annotations

_RESTRICTED = "node-restriction.kubernetes.io"
_KUBERNETES = ("kubernetes.io", "k8s.io")
_KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBELET_LABELS = frozenset(
    {
        "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch",
        "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type", "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
    }
)  # fmt: skip


def kubelet_may_set(label: str) -> bool:
    """Whether a kubelet may set, change or remove the label of that key."""
    domain = label.rpartition("/")[0]
    if _within(domain, _RESTRICTED):
        return False
    kubernetes = any(_within(domain, one) for one in _KUBERNETES)
    return not kubernetes or label in _KUBELET_LABELS or any(_within(domain, one) for one in _KUBELET_DOMAINS)


def _within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")

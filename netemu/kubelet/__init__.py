"""The kubelet: what is bound to a node runs there, and the API hears how it goes.

`kubelet.Kubelet` watches the Pods of its node and gives each a `worker.PodWorker`, which drives a container runtime;
`node` registers the Node and renews its Lease; `probes` asks containers whether they are well. What is decided on the
way is pure: `dns`, `hosts`, `env`, `volumes`, `status`, `backoff`.
"""

from netemu.kubelet.kubelet import Kubelet
from netemu.kubelet.settings import KubeletSettings, NodeFacts

__all__ = ["Kubelet", "KubeletSettings", "NodeFacts"]

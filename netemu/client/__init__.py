"""How every component sees an API server: requests, watches and informers.

`Client` is the interface; `HttpClient` speaks to any Kubernetes API server, the registry of ours implements the same
interface in process. `Informer` keeps a typed copy of a collection and tells its handlers what changed.
"""

from netemu.client.base import MERGE_PATCH, Client, Obj, ObjectList, WatchEvent
from netemu.client.http import HttpClient
from netemu.client.informer import Informer
from netemu.client.kubeconfig import Credentials, in_cluster, load_kubeconfig

__all__ = [
    "MERGE_PATCH",
    "Client",
    "Credentials",
    "HttpClient",
    "Informer",
    "Obj",
    "ObjectList",
    "WatchEvent",
    "in_cluster",
    "load_kubeconfig",
]

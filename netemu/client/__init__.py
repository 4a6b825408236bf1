"""How every component sees an API server: requests, watches and informers.

`Client` is the interface; `HttpClient` speaks to any Kubernetes API server, the registry of ours implements the same
interface in process. `Informer` keeps a typed copy of a collection and tells its handlers what changed.
"""

from typing import TYPE_CHECKING, Any

from netemu.client.base import MERGE_PATCH, Client, Obj, ObjectList, WatchEvent
from netemu.client.informer import Informer
from netemu.client.kubeconfig import Credentials, in_cluster, load_kubeconfig

if TYPE_CHECKING:
    from netemu.client.http import HttpClient

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


def __getattr__(name: str) -> Any:
    # aiohttp takes a third of a second to import, which short commands and in-process clients need not pay.
    if name == "HttpClient":
        from netemu.client.http import HttpClient

        return HttpClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The columns and cells of most kinds, as upstream's server prints them.

Upstream: `pkg/printers/internalversion/printers.go`. A kind is one line of `COLUMNS` and one function from the object
to its cells, in the order of the columns. `|` begins the columns that only `-o wide` shows, `:i` marks integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from netemu.apiserver.tables import storage, workloads
from netemu.apiserver.tables.format import (
    NONE,
    UNKNOWN,
    UNSET,
    age,
    human_duration,
    label_selector_text,
    label_text,
    some_of,
)
from netemu.apiserver.tables.pods import pod_cells

Json = Mapping[str, Any]
Cells = Callable[[Json, datetime], list[Any]]

COLUMNS: dict[str, str] = {
    "Pod": "Name,Ready,Status,Restarts,Age|IP,Node,Nominated Node,Readiness Gates",
    "Service": "Name,Type,Cluster-IP,External-IP,Port(s),Age|Selector",
    "Ingress": "Name,Class,Hosts,Address,Ports,Age",
    "IPAddress": "Name,ParentRef,Age",
    "IngressClass": "Name,Controller,Parameters,Age",
    "NetworkPolicy": "Name,Pod-Selector,Age",
    "ServiceCIDR": "Name,CIDRs,Age",
    "Node": "Name,Status,Roles,Age,Version|Internal-IP,External-IP,OS-Image,Kernel-Version,Container-Runtime",
    "Namespace": "Name,Status,Age",
    "Deployment": "Name,Ready,Up-to-date,Available,Age|Containers,Images,Selector",
    "ReplicaSet": "Name,Desired:i,Current:i,Ready:i,Age|Containers,Images,Selector",
    "ReplicationController": "Name,Desired:i,Current:i,Ready:i,Age|Containers,Images,Selector",
    "DaemonSet": "Name,Desired:i,Current:i,Ready:i,Up-to-date:i,Available:i,Node Selector,Age"
    "|Containers,Images,Selector",
    "StatefulSet": "Name,Ready,Age|Containers,Images",
    "ControllerRevision": "Name,Controller,Revision,Age",
    "Job": "Name,Status,Completions,Duration,Age|Containers,Images,Selector",
    "CronJob": "Name,Schedule,Timezone,Suspend:b,Active:i,Last Schedule,Age|Containers,Images,Selector",
    "PersistentVolumeClaim": "Name,Status,Volume,Capacity,Access Modes,StorageClass,VolumeAttributesClass,Age"
    "|VolumeMode",
    "PersistentVolume": "Name,Capacity,Access Modes,Reclaim Policy,Status,Claim,StorageClass,VolumeAttributesClass,"
    "Reason,Age|VolumeMode",
    "ResourceQuota": "Name,Age,Request,Limit",
    "LimitRange": "Name,Created At",
    "EndpointSlice": "Name,AddressType,Ports,Endpoints,Age",
    "Endpoints": "Name,Endpoints,Age",
    "ConfigMap": "Name,Data,Age",
    "Secret": "Name,Type,Data,Age",
    "ServiceAccount": "Name,Secrets,Age",
    "Lease": "Name,Holder,Age",
    "CertificateSigningRequest": "Name,Age,SignerName,Requestor,RequestedDuration,Condition",
    "RuntimeClass": "Name,Handler,Age",
    "PodDisruptionBudget": "Name,Min Available,Max Unavailable,Allowed Disruptions:i,Age",
    "CustomResourceDefinition": "Name,Created At",
    "Role": "Name,Created At",
    "ClusterRole": "Name,Created At",
    "RoleBinding": "Name,Role,Age|Users,Groups,ServiceAccounts",
    "ClusterRoleBinding": "Name,Role,Age|Users,Groups,ServiceAccounts",
    # The wide columns of an event stand in the middle.
    "Event": "Last Seen,Type,Reason,Object|Subobject,Source|Message|First Seen,Count,Name",
    "Scale": "Name,Desired:i,Available:i,Age",
}
_DEFAULT = "Name,Age"
_TYPES = {"": "string", "i": "integer", "b": "boolean"}
"""What the marks behind columns say; upstream calls many a number a string."""
_HOSTS = 3
"""Most hosts of an Ingress that are printed."""


def column_definitions(kind: str) -> list[dict[str, Any]]:
    """The `columnDefinitions` of a kind's table."""
    definitions = []
    for group, columns in enumerate(COLUMNS.get(kind, _DEFAULT).split("|")):
        for column in columns.split(","):
            name, _, mark = column.partition(":")
            definitions.append(
                {
                    "name": name,
                    "type": _TYPES[mark],
                    "format": "name" if name == "Name" else "",
                    "description": "",
                    "priority": group % 2,
                }
            )
    return definitions


def cells(kind: str) -> Cells:
    """What makes the cells of one object of that kind."""
    return _CELLS.get(kind, _named)


def _named(obj: Json, now: datetime) -> list[Any]:
    meta = obj["metadata"]
    return [meta["name"], age(meta.get("creationTimestamp"), now)]


def _around_age(*middle: Callable[[Json], Any]) -> Cells:
    """Name, then one value for each function, then the age."""

    def row(obj: Json, now: datetime) -> list[Any]:
        meta = obj["metadata"]
        return [meta["name"], *(value(obj) for value in middle), age(meta.get("creationTimestamp"), now)]

    return row


# --- Service -----------------------------------------------------------------------------------------------------


def _service(service: Json, now: datetime) -> list[Any]:
    meta, spec = service["metadata"], service.get("spec") or {}
    return [
        meta["name"],
        spec.get("type", ""),
        spec.get("clusterIP") or NONE,
        _external_addresses(spec, service.get("status") or {}),
        ",".join(_service_port(port) for port in spec.get("ports") or ()) or NONE,
        age(meta.get("creationTimestamp"), now),
        label_text(spec.get("selector")),
    ]


def _service_port(port: Json) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{node_port}/{port.get('protocol', 'TCP')}"


def _external_addresses(spec: Json, status: Json) -> str:
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", ""))
    external = list(spec.get("externalIPs") or ())
    if spec.get("type") != "LoadBalancer":
        return ",".join(external) or NONE
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    assigned = sorted({item.get("ip") or item.get("hostname") or "" for item in ingress} - {""})
    return ",".join([*assigned, *external]) or "<pending>"


# --- Ingress, IPAddress ------------------------------------------------------------------------------------------


def _ingress_hosts(ingress: Json) -> str:
    """The hosts of the first rules that have one; `*` where none does."""
    rules = (ingress.get("spec") or {}).get("rules") or ()
    hosts: list[str] = []
    for rule in rules:
        if len(hosts) == _HOSTS:
            return f"{','.join(hosts)} + {len(rules) - _HOSTS} more..."
        if rule.get("host"):
            hosts.append(rule["host"])
    return ",".join(hosts) or "*"


def _ingress_address(ingress: Json) -> str:
    points = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ",".join(sorted({point.get("ip") or point.get("hostname") or "" for point in points} - {""}))


def _parent(address: Json) -> str:
    parent = (address.get("spec") or {}).get("parentRef")
    if parent is None:
        return NONE
    kind = ".".join(filter(None, (parent.get("resource", ""), parent.get("group", "")))).lower()
    return "/".join(filter(None, (kind, parent.get("namespace", ""), parent.get("name", ""))))


def _class_parameters(ingress_class: Json) -> str:
    parameters = (ingress_class.get("spec") or {}).get("parameters")
    if parameters is None:
        return NONE
    group = f".{parameters['apiGroup']}" if "apiGroup" in parameters else ""
    return f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"


# --- Node --------------------------------------------------------------------------------------------------------

_ROLE = "node-role.kubernetes.io/"


def _node(node: Json, now: datetime) -> list[Any]:
    meta, status = node["metadata"], node.get("status") or {}
    info = status.get("nodeInfo") or {}
    addresses: dict[str, str] = {}
    for address in status.get("addresses") or ():
        addresses.setdefault(address.get("type", ""), address.get("address", ""))
    return [
        meta["name"],
        _node_status(node.get("spec") or {}, status),
        _node_roles(meta.get("labels") or {}),
        age(meta.get("creationTimestamp"), now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _node_status(spec: Json, status: Json) -> str:
    ready = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if spec.get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(labels: Mapping[str, str]) -> str:
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE)} - {""}
    if role := labels.get("kubernetes.io/role"):
        roles.add(role)
    return ",".join(sorted(roles)) or NONE


# --- endpoints ---------------------------------------------------------------------------------------------------


def _slice_ports(endpoint_slice: Json) -> str:
    numbers = [
        str(port["port"]) if port.get("port") is not None else port.get("name") or "*"
        for port in endpoint_slice.get("ports") or ()
    ]
    return some_of(numbers) or UNSET


def _slice_endpoints(endpoint_slice: Json) -> str:
    endpoints = endpoint_slice.get("endpoints") or ()
    return some_of(address for endpoint in endpoints for address in endpoint.get("addresses") or ()) or UNSET


def _endpoints(endpoints: Json) -> str:
    texts: list[str] = []
    for subset in endpoints.get("subsets") or ():
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        texts += [_host_port(ip, port.get("port", 0)) for port in ports for ip in addresses] if ports else addresses
    return some_of(texts) if endpoints.get("subsets") else NONE


def _host_port(ip: str, port: int) -> str:
    try:
        six = ip_address(ip).version == 6
    except ValueError:
        six = False
    return f"[{ip}]:{port}" if six else f"{ip}:{port}"


# --- events ------------------------------------------------------------------------------------------------------


def _event(event: Json, now: datetime) -> list[Any]:
    """One row for both shapes of an event, core/v1 and events.k8s.io/v1."""
    about = event.get("involvedObject") or event.get("regarding") or {}
    first_time = event.get("firstTimestamp") or event.get("deprecatedFirstTimestamp") or event.get("eventTime")
    last_time = event.get("lastTimestamp") or event.get("deprecatedLastTimestamp") or first_time
    count = event.get("count") or event.get("deprecatedCount") or 1
    if (series := event.get("series")) is not None:
        last_time, count = series.get("lastObservedTime"), series.get("count", count)
    kind, name = str(about.get("kind", "")).lower(), about.get("name", "")
    return [
        age(last_time, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind}/{name}" if name else kind,
        about.get("fieldPath", ""),
        _event_source(event),
        str(event.get("message") or event.get("note") or "").strip(),
        age(first_time, now),
        count,
        event["metadata"]["name"],
    ]


def _event_source(event: Json) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    component = event.get("reportingComponent") or event.get("reportingController")
    words = (source.get("component") or component, source.get("host") or event.get("reportingInstance"))
    return ", ".join(word for word in words if word)


# --- roles -------------------------------------------------------------------------------------------------------


def _role(role: Json, now: datetime) -> list[Any]:
    return [role["metadata"]["name"], role["metadata"].get("creationTimestamp", "")]


def _binding(binding: Json, now: datetime) -> list[Any]:
    meta, ref = binding["metadata"], binding["roleRef"]
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in binding.get("subjects") or ():
        prefix = f"{subject.get('namespace', '')}/" if subject["kind"] == "ServiceAccount" else ""
        subjects.setdefault(subject["kind"], []).append(f"{prefix}{subject['name']}")
    who = [", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [meta["name"], f"{ref['kind']}/{ref['name']}", age(meta.get("creationTimestamp"), now), *who]


def _data_size(obj: Json) -> int:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


def _signing_request(obj: Json, now: datetime) -> list[Any]:
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    conditions = {one.get("type") for one in status.get("conditions") or ()}
    condition = next((word for word in ("Denied", "Approved") if word in conditions), "Pending")
    condition += ",Failed" if "Failed" in conditions else ""
    condition += ",Issued" if status.get("certificate") else ""
    seconds = spec.get("expirationSeconds")
    asked = NONE if seconds is None else human_duration(seconds)
    return [
        meta["name"], age(meta.get("creationTimestamp"), now), spec.get("signerName") or NONE,
        spec.get("username", ""), asked, condition,
    ]  # fmt: skip


_CELLS: dict[str, Cells] = {
    "Pod": pod_cells,
    "Service": _service,
    "Ingress": _around_age(
        lambda obj: (obj.get("spec") or {}).get("ingressClassName") or NONE,
        _ingress_hosts,
        _ingress_address,
        lambda obj: "80, 443" if (obj.get("spec") or {}).get("tls") else "80",
    ),
    "IPAddress": _around_age(_parent),
    "IngressClass": _around_age(lambda obj: (obj.get("spec") or {}).get("controller", ""), _class_parameters),
    "NetworkPolicy": _around_age(lambda obj: label_selector_text((obj.get("spec") or {}).get("podSelector"))),
    "ServiceCIDR": _around_age(lambda obj: ",".join((obj.get("spec") or {}).get("cidrs") or ())),
    "Node": _node,
    "Namespace": _around_age(lambda obj: (obj.get("status") or {}).get("phase", "")),
    "Deployment": workloads.deployment,
    "ReplicaSet": workloads.replica_set,
    "ReplicationController": workloads.replica_set,
    "DaemonSet": workloads.daemon_set,
    "StatefulSet": workloads.stateful_set,
    "ControllerRevision": _around_age(workloads.revision_owner, lambda obj: obj.get("revision", 0)),
    "Job": workloads.job,
    "CronJob": workloads.cron_job,
    "PersistentVolumeClaim": storage.claim,
    "PersistentVolume": storage.volume,
    "ResourceQuota": storage.quota,
    "LimitRange": _role,
    "EndpointSlice": _around_age(lambda obj: obj.get("addressType", ""), _slice_ports, _slice_endpoints),
    "Endpoints": _around_age(_endpoints),
    "ConfigMap": _around_age(_data_size),
    "Secret": _around_age(lambda obj: obj.get("type", ""), lambda obj: len(obj.get("data") or ())),
    "ServiceAccount": _around_age(lambda obj: len(obj.get("secrets") or ())),
    "Lease": _around_age(lambda obj: (obj.get("spec") or {}).get("holderIdentity") or ""),
    "CertificateSigningRequest": _signing_request,
    "RuntimeClass": _around_age(lambda obj: obj.get("handler", "")),
    "PodDisruptionBudget": _around_age(
        lambda obj: str((obj.get("spec") or {}).get("minAvailable", "N/A")),
        lambda obj: str((obj.get("spec") or {}).get("maxUnavailable", "N/A")),
        lambda obj: (obj.get("status") or {}).get("disruptionsAllowed", 0),
    ),
    "CustomResourceDefinition": _role,
    "Role": _role,
    "ClusterRole": _role,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "Event": _event,
    "Scale": workloads.scale,
}

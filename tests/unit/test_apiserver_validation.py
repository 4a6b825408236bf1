"""What is refused, where, and in which words.

Each case takes a valid object of its kind, sets fields by path (`spec.ports.0.port`; DROP removes one), applies the
defaults and expects exactly the errors listed, as `PATH: MESSAGE`.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from netemu.apiserver.defaults import apply_defaults
from netemu.apiserver.quantities import quantity
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.validation.objects import validate
from netemu.client.base import Obj
from netemu.model import resources as r
from netemu.model.errors import Invalid

DROP = object()
LABEL = "a-label-that-is-longer-than-sixty-three-characters-is-no-label-at-all"

VALID: dict[str, Obj] = yaml.safe_load("""
Namespace: {metadata: {name: shop}}
Node:
  metadata: {name: n1}
  spec: {podCIDR: 10.244.1.0/24, taints: [{key: a, effect: NoSchedule}]}
  status: {capacity: {cpu: "2"}, addresses: [{type: InternalIP, address: 172.18.0.2}]}
Pod:
  metadata: {name: p, namespace: shop, labels: {app: web}}
  spec:
    volumes: [{name: conf, configMap: {name: c}}]
    containers:
    - name: c
      image: web:1
      ports: [{name: http, containerPort: 80}]
      env: [{name: A, value: b}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
      volumeMounts: [{name: conf, mountPath: /etc/c}]
      readinessProbe: {httpGet: {port: http}}
      resources: {requests: {cpu: 100m}, limits: {cpu: "0.2", memory: 64Mi}}
Service:
  metadata: {name: web, namespace: shop}
  spec: {selector: {app: web}, clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], ports: [{name: http, port: 80}]}
Endpoints:
  metadata: {name: web, namespace: shop}
  subsets: [{addresses: [{ip: 10.244.1.2}], ports: [{port: 80}]}]
EndpointSlice:
  metadata: {name: web-x, namespace: shop}
  addressType: IPv4
  endpoints: [{addresses: [10.244.1.2]}]
  ports: [{name: http, port: 80}]
ConfigMap: {metadata: {name: c, namespace: shop}, data: {a: b}}
Secret: {metadata: {name: s, namespace: shop}, data: {a: Yg==}}
Event: {metadata: {name: e, namespace: shop}, involvedObject: {namespace: shop}}
Lease: {metadata: {name: l, namespace: shop}, spec: {holderIdentity: me, leaseDurationSeconds: 40}}
RuntimeClass: {metadata: {name: process}, handler: process}
ServiceCIDR: {metadata: {name: kubernetes}, spec: {cidrs: [10.96.0.0/16]}}
Ingress:
  metadata: {name: web, namespace: shop}
  spec:
    rules:
    - host: web.example.com
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
IPAddress:
  metadata: {name: 10.96.0.9}
  spec: {parentRef: {resource: services, namespace: shop, name: web}}
IngressClass: {metadata: {name: outer}, spec: {controller: acme.io/ingress}}
NetworkPolicy:
  metadata: {name: only-web, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: db}}
    ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
    egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]
PodDisruptionBudget: {metadata: {name: web, namespace: shop}, spec: {selector: {matchLabels: {app: web}}}}
ServiceAccount: {metadata: {name: default, namespace: shop}}
Deployment:
  metadata: {name: web, namespace: shop}
  spec:
    selector: {matchLabels: {app: web}}
    template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}
ReplicaSet:
  metadata: {name: web-1, namespace: shop}
  spec:
    selector: {matchLabels: {app: web}}
    template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}
""")
RESOURCES = {resource.kind: resource for resource in reversed(r.RESOURCES)}

DNS_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
SEARCH = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
)
DOTS = "must not contain dots"
LONG = "s" * 249
DNS_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
PORT = "must be between 1 and 65535, inclusive"
PROTOCOLS = 'supported values: "SCTP", "TCP", "UDP"'
IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def changed(obj: Obj, **fields: Any) -> Obj:
    """A copy of `obj` with fields, given as `a__0__b`, set."""
    obj = copy.deepcopy(obj)
    for path, value in fields.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        holder: Any = obj
        for part in parents:
            holder = holder[part] if isinstance(part, int) else holder.setdefault(part, {})
        if value is DROP:
            del holder[last]
        else:
            holder[last] = value
    return obj


def problems(kind: str, obj: Obj, old: Obj | None = None) -> list[str]:
    apply_defaults(RESOURCES[kind], obj)
    before = copy.deepcopy((obj, old))
    errors = validate(RESOURCES[kind], obj, old)
    assert (obj, old) == before, "validation changed its input"
    return [str(error) for error in errors]


def valid(kind: str) -> Obj:
    obj = copy.deepcopy(VALID[kind])
    apply_defaults(RESOURCES[kind], obj)
    return obj


@pytest.mark.parametrize("kind", VALID)
def test_the_objects_that_these_tests_start_from_are_valid(kind: str) -> None:
    assert problems(kind, valid(kind)) == []
    assert problems(kind, valid(kind), valid(kind)) == []


def case(kind: str, *errors: str, **fields: Any) -> Any:
    shown = ", ".join(f"{path.replace('__', '.')}={'-' if value is DROP else value}" for path, value in fields.items())
    return pytest.param(kind, fields, list(errors), id=f"{kind} {shown}"[:80])


def check(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    assert problems(kind, changed(VALID[kind], **fields)) == errors


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Namespace", f'metadata.name: Invalid value: "A_b": {DNS_LABEL}', metadata__name="A_b"),
    case("Namespace", 'metadata.name: Invalid value: "a.b": must not contain dots', metadata__name="a.b"),
    case("Service", f'metadata.name: Invalid value: "{LABEL}": must be no more than 63 characters',
         metadata__name=LABEL),
    case("ConfigMap", f'metadata.name: Invalid value: "Conf": {SUBDOMAIN}', metadata__name="Conf"),
    case("ConfigMap", metadata__name="dotted.name.1"),
    case("Service", f'metadata.name: Invalid value: "1web": {DNS_1035}', metadata__name="1web"),
    case("ConfigMap", "metadata.name: Required value: name or generateName is required", metadata__name=""),
    case("ConfigMap", "metadata.namespace: Required value", metadata__namespace=""),
    case("Node", "metadata.namespace: Forbidden: not allowed on this type", metadata__namespace="shop"),
    case("Pod", 'metadata.labels: Invalid value: "-x": '
         'name part must consist of alphanumeric characters, \'-\', \'_\' or '
         "'.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', "
         "regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')", metadata__labels={"-x": "y"}),
    case("Pod", 'metadata.labels: Invalid value: "a b": '
         'a valid label must be an empty string or consist of alphanumeric '
         "characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or "
         "'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
         metadata__labels={"app": "a b"}),
    case("Pod", 'metadata.labels: Invalid value: "/x": prefix part must be non-empty', metadata__labels={"/x": "y"}),
    case("Pod", metadata__labels={"example.com/My_Name.1": ""}, metadata__annotations={"Any.Thing/x": "any ✓ text"}),
    case("Pod", "metadata.annotations: Too long: may not be more than 262144 bytes",
         metadata__annotations={"a": "x" * 262144}),
    case("Pod", 'metadata.finalizers[0]: Invalid value: "mine": '
         "name is neither a standard finalizer name nor is it fully qualified", metadata__finalizers=["mine"]),
    case("Pod", 'metadata.ownerReferences[0].uid: Invalid value: "": must not be empty',
         metadata__ownerReferences=[{"apiVersion": "v1", "kind": "X", "name": "x"}]),
])  # fmt: skip
def test_metadata(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Service", "spec.ports: Required value", spec__ports=[]),
    case("Service", spec__ports=[], spec__clusterIP="None", spec__clusterIPs=["None"]),
    case("Service", f"spec.ports[0].port: Invalid value: 0: {PORT}",
         f"spec.ports[0].targetPort: Invalid value: 0: {PORT}", spec__ports=[{"port": 0}]),
    case("Service", f"spec.ports[0].port: Invalid value: 65536: {PORT}",
         spec__ports=[{"port": 65536, "targetPort": 1}]),
    case("Service", f'spec.ports[0].protocol: Unsupported value: "XX": {PROTOCOLS}', spec__ports__0__protocol="XX"),
    case("Service", f"spec.ports[0].targetPort: Invalid value: 70000: {PORT}", spec__ports__0__targetPort=70000),
    case("Service", 'spec.ports[0].targetPort: Invalid value: "much-too-long-name": must be no more than 15 characters',
         spec__ports__0__targetPort="much-too-long-name"),
    case("Service", "spec.ports[1].name: Required value", spec__ports=[{"name": "a", "port": 1}, {"port": 2}]),
    case("Service", 'spec.ports[1].name: Duplicate value: "a"',
         spec__ports=[{"name": "a", "port": 1}, {"name": "a", "port": 2}]),
    case("Service", 'spec.ports[1]: Duplicate value: {"port":1,"protocol":"TCP"}',
         spec__ports=[{"name": "a", "port": 1}, {"name": "b", "port": 1}]),
    case("Service", spec__ports=[{"name": "a", "port": 1}, {"name": "b", "port": 1, "protocol": "UDP"}]),
    case("Service", "spec.ports[1].nodePort: Duplicate value: 30001", spec__type="NodePort",
         spec__ports=[{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30001}]),
    case("Service", "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
         spec__ports__0__nodePort=30001),
    case("Service", 'spec.type: Unsupported value: "Cluster": '
         'supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"', spec__type="Cluster"),
    case("Service", f'spec.clusterIPs[0]: Invalid value: "10.96.0": {IP}',
         spec__clusterIP="10.96.0", spec__clusterIPs=["10.96.0"]),
    case("Service", 'spec.clusterIPs: Invalid value: []string{"10.96.0.7"}: first value must match `clusterIP`',
         spec__clusterIP="10.96.0.8"),
    case("Service", 'spec.clusterIPs: Invalid value: []string{"10.96.0.7", "10.96.0.8"}: '
         "may specify no more than one IP for each IP family", spec__clusterIPs=["10.96.0.7", "10.96.0.8"]),
    case("Service", 'spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"',
         spec__ipFamilies=["IPv5"]),
    case("Service", 'spec.clusterIPs[0]: Invalid value: "10.96.0.7": '
         "expected an IPv6 value as indicated by `ipFamilies[0]`", spec__ipFamilies=["IPv6"]),
    case("Service", 'spec.ipFamilyPolicy: Unsupported value: "Any": '
         'supported values: "PreferDualStack", "RequireDualStack", "SingleStack"', spec__ipFamilyPolicy="Any"),
    case("Service", "spec.clusterIP: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services",
         spec__type="LoadBalancer", spec__clusterIP="None", spec__clusterIPs=["None"]),
    case("Service", 'spec.sessionAffinity: Unsupported value: "Client": supported values: "ClientIP", "None"',
         spec__sessionAffinity="Client"),
    case("Service", "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: "
         "must be greater than 0 and less than 86400", spec__sessionAffinity="ClientIP",
         spec__sessionAffinityConfig={"clientIP": {"timeoutSeconds": 86401}}),
    case("Service", f'spec.externalIPs[0]: Invalid value: "1.2.3": {IP}', spec__externalIPs=["1.2.3"]),
    case("Service", 'spec.externalIPs[0]: Invalid value: "127.0.0.1": '
         "may not be in the loopback range (127.0.0.0/8, ::1/128)", spec__externalIPs=["127.0.0.1"]),
    case("Service", 'spec.externalTrafficPolicy: Invalid value: "Local": '
         "may only be set for externally-accessible services", spec__externalTrafficPolicy="Local"),
    case("Service", 'spec.externalTrafficPolicy: Unsupported value: "Node": supported values: "Cluster", "Local"',
         spec__type="NodePort", spec__externalTrafficPolicy="Node"),
    case("Service", 'spec.internalTrafficPolicy: Unsupported value: "Node": supported values: "Cluster", "Local"',
         spec__internalTrafficPolicy="Node"),
    case("Service", "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
         spec__loadBalancerSourceRanges=["10.0.0.0/8"]),
    case("Service", 'spec.loadBalancerSourceRanges[1]: Invalid value: "10.0.0.0": '
         "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)", spec__type="LoadBalancer",
         spec__loadBalancerSourceRanges=[" 10.0.0.0/8 ", "10.0.0.0"]),
    case("Service", "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and "
         "`externalTrafficPolicy` is 'Local'", spec__type="LoadBalancer", spec__healthCheckNodePort=30000),
    case("Service", "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
         spec__loadBalancerClass="example.com/x"),
    case("Service", "spec.externalName: Required value", spec={"type": "ExternalName"}),
    case("Service", f'spec.externalName: Invalid value: "a_b": {SUBDOMAIN}',
         spec={"type": "ExternalName", "externalName": "a_b"}),
    case("Service", spec={"type": "ExternalName", "externalName": "db.example.com."}),
    case("Service", "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
         spec={"type": "ExternalName", "externalName": "x.y", "clusterIP": "10.96.0.1"}),
    case("Service", f'status.loadBalancer.ingress[0].ip: Invalid value: "x": {IP}',
         spec__type="LoadBalancer", status={"loadBalancer": {"ingress": [{"ip": "x"}]}}),
    case("Service", 'status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is "LoadBalancer"',
         status={"loadBalancer": {"ingress": [{"ip": "172.18.255.1"}]}}),
])  # fmt: skip
def test_services(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


C = "spec.containers[0]"
NODE = "spec.affinity.nodeAffinity"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Pod", "spec.containers: Required value", spec={}),
    case("Pod", f"{C}.name: Required value", spec__containers__0__name=""),
    case("Pod", f'{C}.name: Invalid value: "C": {DNS_LABEL}', spec__containers__0__name="C"),
    case("Pod", f"{C}.image: Required value", spec__containers__0__image=DROP),
    case("Pod", 'spec.containers[1].name: Duplicate value: "a"',
         spec__containers=[{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]),
    case("Pod", 'spec.initContainers[0].name: Duplicate value: "c"',
         spec__initContainers=[{"name": "c", "image": "i"}]),
    case("Pod", "spec.initContainers[0].readinessProbe: Forbidden: "
         "may not be set for init containers without restartPolicy=Always",
         spec__initContainers=[{"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]),
    case("Pod", spec__initContainers=[{"name": "i", "image": "i", "restartPolicy": "Always",
                                       "readinessProbe": {"tcpSocket": {"port": 1}}}]),
    case("Pod", f"{C}.restartPolicy: Forbidden: may not be set for non-init containers",
         spec__containers__0__restartPolicy="Always"),
    case("Pod", f'{C}.imagePullPolicy: Unsupported value: "Maybe": '
         'supported values: "Always", "IfNotPresent", "Never"', spec__containers__0__imagePullPolicy="Maybe"),
    case("Pod", f"{C}.ports[0].containerPort: Required value", spec__containers__0__ports=[{}]),
    case("Pod", f"{C}.ports[0].containerPort: Invalid value: 65536: {PORT}",
         spec__containers__0__ports=[{"containerPort": 65536}]),
    case("Pod", f'{C}.ports[1].name: Duplicate value: "http"',
         spec__containers__0__ports=[{"name": "http", "containerPort": 1}, {"name": "http", "containerPort": 2}]),
    case("Pod", f'{C}.ports[0].name: Invalid value: "80": must contain at least one letter (a-z)',
         spec__containers__0__ports=[{"name": "80", "containerPort": 1}]),
    case("Pod", f'{C}.ports[0].protocol: Unsupported value: "tcp": {PROTOCOLS}',
         spec__containers__0__ports=[{"containerPort": 1, "protocol": "tcp"}]),
    case("Pod", f'{C}.ports[1].hostPort: Duplicate value: "TCP//80"',
         spec__containers__0__ports=[{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}]),
    case("Pod", f"{C}.ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true",
         spec__hostNetwork=True, spec__containers__0__ports__0__hostPort=81),
    case("Pod", f"{C}.env[0].name: Required value", spec__containers__0__env=[{"value": "x"}]),
    case("Pod", f'{C}.env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of '
         "printable ASCII characters other than '='", spec__containers__0__env=[{"name": "A=B"}]),
    case("Pod", spec__containers__0__env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
    case("Pod", f'{C}.env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
         spec__containers__0__env=[
             {"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]),
    case("Pod", f"{C}.env[0].valueFrom.configMapKeyRef.key: Required value",
         spec__containers__0__env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c"}}}]),
    case("Pod", f"{C}.readinessProbe: Required value: must specify a handler type",
         spec__containers__0__readinessProbe={"periodSeconds": 1}),
    case("Pod", f"{C}.readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
         spec__containers__0__readinessProbe={"httpGet": {"port": 1}, "tcpSocket": {"port": 1}}),
    case("Pod", f"{C}.readinessProbe.httpGet.port: Invalid value: 0: {PORT}",
         spec__containers__0__readinessProbe={"httpGet": {}}),
    case("Pod", f"{C}.livenessProbe.successThreshold: Invalid value: 2: must be 1",
         spec__containers__0__livenessProbe={"exec": {"command": ["x"]}, "successThreshold": 2}),
    case("Pod", f"{C}.startupProbe.exec.command: Required value", spec__containers__0__startupProbe={"exec": {}}),
    case("Pod", f"{C}.readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
         spec__containers__0__readinessProbe={"grpc": {"port": 1}, "periodSeconds": -1}),
    case("Pod", f"{C}.lifecycle.preStop: Required value: must specify a handler type",
         spec__containers__0__lifecycle={"preStop": {"grpc": {"port": 1}}}),
    case("Pod", f'{C}.volumeMounts[0].name: Not found: "data"',
         spec__containers__0__volumeMounts=[{"name": "data", "mountPath": "/x"}]),
    case("Pod", f"{C}.volumeMounts[0].mountPath: Required value",
         spec__containers__0__volumeMounts=[{"name": "conf"}]),
    case("Pod", f'{C}.volumeMounts[1].mountPath: Invalid value: "/x": must be unique',
         spec__containers__0__volumeMounts=[{"name": "conf", "mountPath": "/x"}, {"name": "conf", "mountPath": "/x"}]),
    case("Pod", f'{C}.volumeMounts[0].subPath: Invalid value: "../x": must not contain \'..\'',
         spec__containers__0__volumeMounts=[{"name": "conf", "mountPath": "/x", "subPath": "../x"}]),
    case("Pod", 'spec.volumes[1].name: Duplicate value: "conf"',
         spec__volumes=[{"name": "conf"}, {"name": "conf"}]),
    case("Pod", "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
         spec__volumes=[{"name": "conf", "emptyDir": {}, "configMap": {"name": "c"}}]),
    case("Pod", "spec.volumes[0].secret.secretName: Required value", spec__volumes=[{"name": "conf", "secret": {}}]),
    case("Pod", "spec.volumes[0].configMap.defaultMode: Invalid value: 512: "
         "must be a number between 0 and 0777 (octal), both inclusive",
         spec__volumes=[{"name": "conf", "configMap": {"name": "c", "defaultMode": 512}}]),
    case("Pod", f'{C}.resources.requests: Invalid value: "1": must be less than or equal to cpu limit of 500m',
         spec__containers__0__resources={"requests": {"cpu": "1"}, "limits": {"cpu": "500m"}}),
    case("Pod", f'{C}.resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers',
         spec__containers__0__resources={"requests": {"gpu": "1"}}),
    case("Pod", spec__containers__0__resources={"requests": {"cpu": 0.1, "memory": "1e3"}, "limits": {"cpu": 1}}),
])  # fmt: skip
def test_containers(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


def go_list(words: list[str]) -> str:
    """As Go prints a slice of strings."""
    return "[]string{" + ", ".join(f'"{word}"' for word in words) + "}"


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Pod", 'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"',
         spec__restartPolicy="Sometimes"),
    case("Pod", 'spec.dnsPolicy: Unsupported value: "First": '
         'supported values: "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"', spec__dnsPolicy="First"),
    case("Pod", "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
         spec__dnsPolicy="None"),
    case("Pod", "spec.dnsConfig.nameservers: Required value: "
         "must provide at least one DNS nameserver when `dnsPolicy` is None", spec__dnsPolicy="None",
         spec__dnsConfig={}),
    case("Pod", f'spec.dnsConfig.nameservers[0]: Invalid value: "dns": {IP}', spec__dnsConfig={"nameservers": ["dns"]}),
    case("Pod", 'spec.dnsConfig.nameservers: Invalid value: []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"}: '
         "must not have more than 3 nameservers",
         spec__dnsConfig={"nameservers": [f"1.1.1.{n}" for n in range(1, 5)]}),
    case("Pod", f'spec.dnsConfig.searches[0]: Invalid value: "a b": {SEARCH}',
         f'spec.dnsConfig.searches[2]: Invalid value: "a_.b": {SEARCH}',
         spec__dnsConfig={"searches": ["a b", ".", "a_.b.", "_tcp.a_b.c."]}),
    case("Pod", f"spec.dnsConfig.searches: Invalid value: {go_list([f's{n}' for n in range(33)])}: "
         "must not have more than 32 search paths", spec__dnsConfig={"searches": [f"s{n}" for n in range(33)]}),
    case("Pod", f"spec.dnsConfig.searches: Invalid value: {go_list([LONG] * 9)}: "
         "must not have more than 2048 characters (including spaces) in the search list",
         spec__dnsConfig={"searches": [LONG] * 9}),
    case("Pod", "spec.dnsConfig.options[1]: Required value: must not be empty",
         spec__dnsConfig={"options": [{"name": "ndots", "value": "2"}, {"value": "x"}]}),
    case("Pod", spec__dnsPolicy="None", spec__dnsConfig={"nameservers": ["192.0.2.1", "2001:db8::1"]}),
    case("Pod", spec__dnsPolicy="Default", spec__dnsConfig={}),
    case("Pod", spec__dnsPolicy="ClusterFirstWithHostNet", spec__hostNetwork=True),
    case("Pod", "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
         spec__terminationGracePeriodSeconds=-1),
    case("Pod", "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
         spec__activeDeadlineSeconds=0),
    case("Pod", f'spec.hostname: Invalid value: "My_Host": {DNS_LABEL}', spec__hostname="My_Host"),
    case("Pod", f'spec.nodeName: Invalid value: "N 1": {SUBDOMAIN}', spec__nodeName="N 1"),
    case("Pod", 'spec.tolerations[0].operator: Unsupported value: "Like": supported values: "Equal", "Exists"',
         spec__tolerations=[{"key": "a", "operator": "Like"}]),
    case("Pod", 'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, '
         'which means "match all values and all keys"', spec__tolerations=[{"operator": "Equal"}]),
    case("Pod", 'spec.tolerations[0].effect: Unsupported value: "No": '
         'supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"',
         spec__tolerations=[{"key": "a", "operator": "Exists", "effect": "No"}]),
    case("Pod", "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": "
         "effect must be 'NoExecute' when `tolerationSeconds` is set",
         spec__tolerations=[{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]),
    case("Pod", f'spec.hostAliases[0].ip: Invalid value: "x": {IP}',
         spec__hostAliases=[{"ip": "x", "hostnames": ["a"]}]),
    case("Pod", f'spec.hostAliases[1].hostnames[1]: Invalid value: "a_b": {SUBDOMAIN}', spec__hostNetwork=True,
         spec__hostAliases=[{"ip": "::1"}, {"ip": "192.0.2.1", "hostnames": ["a.b", "a_b"]}]),
    case("Pod", f'spec.hostname: Invalid value: "a.b": {DOTS}', f'spec.subdomain: Invalid value: "c.d": {DOTS}',
         spec__hostname="a.b", spec__subdomain="c.d"),
    case("Pod", "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
         spec__topologySpreadConstraints=[{"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
    case("Pod", f"{NODE}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: "
         "must have at least one node selector term",
         spec__affinity__nodeAffinity={"requiredDuringSchedulingIgnoredDuringExecution": {}}),
    case("Pod", f"{NODE}.{PREFERRED}[0].weight: Invalid value: 101: must be in the range 1-100",
         f'{NODE}.{PREFERRED}[0].preference.matchExpressions[0].operator: Invalid value: "=": '
         "not a valid selector operator",
         spec__affinity__nodeAffinity={PREFERRED: [
             {"weight": 101, "preference": {"matchExpressions": [{"key": "a", "operator": "="}]}}]}),
    case("Pod", "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: "
         "Required value: can not be empty",
         spec__affinity__podAntiAffinity={"requiredDuringSchedulingIgnoredDuringExecution": [{}]}),
    case("Pod", spec__affinity__podAffinity={PREFERRED: [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}}]}),
    case("Pod", "spec.ephemeralContainers: Forbidden: cannot be set on create",
         spec__ephemeralContainers=[{"name": "d", "image": "i"}]),
    case("Pod", f'status.podIPs[0]: Invalid value: "here": {IP}', status__podIP="here"),
    case("Pod", 'status.podIPs: Invalid value: [{"ip":"10.1.1.1"},{"ip":"10.1.1.2"}]: '
         "may specify no more than one IP for each IP family", status__podIPs=[{"ip": "10.1.1.1"}, {"ip": "10.1.1.2"}]),
    case("Pod", 'status.hostIPs[0].ip: Invalid value: "10.1.1.2": must be equal to `hostIP`', status__hostIP="10.1.1.1",
         status__hostIPs=[{"ip": "10.1.1.2"}]),
])  # fmt: skip
def test_pods(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


V = "spec.volumes[0]"


def volume(*errors: str, **source: Any) -> Any:
    return case("Pod", *errors, spec__volumes=[{"name": "conf", **source}])


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Pod", "spec.volumes[1].name: Required value", spec__volumes=[{"name": "conf"}, {"emptyDir": {}}]),
    volume(f"{V}.configMap.items[0].key: Required value", f"{V}.configMap.items[0].path: Required value",
           configMap={"name": "c", "items": [{}]}),
    volume(f'{V}.configMap.items[0].path: Invalid value: "/x": must be a relative path',
           configMap={"name": "c", "items": [{"key": "k", "path": "/x"}]}),
    volume(f'{V}.configMap.items[0].path: Invalid value: "..x": must not start with \'..\'',
           configMap={"name": "c", "items": [{"key": "k", "path": "..x"}]}),
    volume(f"{V}.hostPath.path: Required value", hostPath={}),
    volume(f'{V}.hostPath.path: Invalid value: "/a/../b": must not contain \'..\'', hostPath={"path": "/a/../b"}),
    volume(f"{V}.persistentVolumeClaim.claimName: Required value", persistentVolumeClaim={}),
    volume(f"{V}.emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
           emptyDir={"sizeLimit": "-1Mi"}),
    volume(emptyDir={"sizeLimit": "1Mi", "medium": "Memory"}),
    volume(f"{V}.downwardAPI[0]: Required value: one of fieldRef and resourceFieldRef is required",
           downwardAPI={"items": [{"path": "a"}]}),
    volume(f"{V}.projected.sources[0]: Required value: must specify a projected volume type",
           projected={"sources": [{}]}),
    volume(f"{V}.projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: "
           "may not specify a duration less than 10 minutes",
           f"{V}.projected.sources[0].serviceAccountToken.path: Required value",
           projected={"sources": [{"serviceAccountToken": {"expirationSeconds": 60}}]}),
    volume(f"{V}.projected.sources[0].configMap.name: Required value", projected={"sources": [{"configMap": {}}]}),
    volume(projected={"sources": [
        {"serviceAccountToken": {"path": "token"}}, {"secret": {"name": "s"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}),
    case("Pod", f'{C}.volumeMounts[0].mountPropagation: Unsupported value: "All": '
         'supported values: "Bidirectional", "HostToContainer", "None"',
         spec__containers__0__volumeMounts__0__mountPropagation="All"),
    case("Pod", f"{C}.envFrom[0].configMapRef.name: Required value",
         spec__containers__0__envFrom=[{"configMapRef": {}}]),
    case("Pod", f'{C}.envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`',
         spec__containers__0__envFrom=[{"prefix": "A_"}]),
    case("Pod", f"{C}.env[0].valueFrom: Invalid value: \"\": "
         "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
         spec__containers__0__env=[{"name": "A", "valueFrom": {}}]),
    case("Pod", spec__containers__0__env=[
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]),
    case("Pod", f'{C}.readinessProbe.httpGet.scheme: Unsupported value: "http": supported values: "HTTP", "HTTPS"',
         spec__containers__0__readinessProbe={"httpGet": {"port": 1, "scheme": "http"}}),
    case("Pod", f"{C}.livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
         spec__containers__0__livenessProbe={"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 0}),
    case("Pod", f"{C}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 9: "
         "must not be set for readinessProbes",
         spec__containers__0__readinessProbe={"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 9}),
])  # fmt: skip
def test_volumes_environment_and_probes(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


TERM = f"{NODE}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"


@pytest.mark.parametrize(
    ("term", "errors"),
    [
        ({"matchExpressions": [{"key": "a", "operator": "In"}]},
         ["matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"]),
        ({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
         ["matchExpressions[0].values: Forbidden: "
          "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"]),
        ({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1", "2"]}]},
         ["matchExpressions[0].values: Required value: "
          "must be specified single value when `operator` is 'Lt' or 'Gt'"]),
        ({"matchFields": [{"key": "spec.x", "operator": "In", "values": ["n"]}]},
         ['matchFields[0].key: Invalid value: "spec.x": not a valid field selector key']),
        ({"matchFields": [{"key": "metadata.name", "operator": "Exists"}]},
         ['matchFields[0].operator: Invalid value: "Exists": not a valid selector operator']),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}],
          "matchExpressions": [{"key": "zone", "operator": "Lt", "values": ["3"]}]}, []),
    ],
)  # fmt: skip
def test_node_selector_terms(term: Obj, errors: list[str]) -> None:
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}

    pod = changed(VALID["Pod"], spec__affinity__nodeAffinity=affinity)

    assert problems("Pod", pod) == [f"{TERM}.{error}" for error in errors]


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Deployment", "spec.selector: Required value", spec__selector=DROP),
    case("Deployment", "spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string(nil), "
         "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: empty selector is invalid for deployment",
         spec__selector={}),
    case("Deployment", 'spec.template.metadata.labels: Invalid value: map[string]string{"app":"other"}: '
         "`selector` does not match template `labels`", spec__template__metadata__labels={"app": "other"}),
    case("Deployment", "spec.replicas: Invalid value: -1: must be greater than or equal to 0", spec__replicas=-1),
    case("Deployment", 'spec.strategy.type: Unsupported value: "Rolling": '
         'supported values: "Recreate", "RollingUpdate"',
         spec__strategy={"type": "Rolling"}),
    case("Deployment", "spec.strategy.rollingUpdate: Forbidden: "
         "may not be specified when strategy `type` is 'Recreate'",
         spec__strategy={"type": "Recreate", "rollingUpdate": {}}),
    case("Deployment", "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: "
         "may not be 0 when `maxSurge` is 0",
         spec__strategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}),
    case("Deployment", 'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": '
         'must not be greater than 100%',
         spec__strategy={"rollingUpdate": {"maxUnavailable": "101%"}}),
    case("Deployment", 'spec.strategy.rollingUpdate.maxSurge: Invalid value: "some": a valid percent string must be a '
         "numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
         spec__strategy={"rollingUpdate": {"maxSurge": "some"}}),
    case("Deployment", "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
         spec__progressDeadlineSeconds=5, spec__minReadySeconds=5),
    case("Deployment", 'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
         spec__template__spec__restartPolicy="Never"),
    case("Deployment", "spec.template.spec.containers: Required value", spec__template__spec__containers=[]),
    case("Deployment", 'spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator',
         spec__selector__matchExpressions=[{"key": "a", "operator": "Is"}]),
    case("Deployment", "spec.selector.matchExpressions[0].values: Required value: "
         "must be specified when `operator` is 'In' or 'NotIn'",
         spec__selector__matchExpressions=[{"key": "a", "operator": "In"}]),
    case("ReplicaSet", 'spec.template.metadata.labels: Invalid value: map[string]string{}: '
         "`selector` does not match template `labels`", spec__template__metadata__labels={}),
    case("ReplicaSet", "spec.template.spec.containers[0].image: Required value",
         spec__template__spec__containers=[{"name": "a"}]),
])  # fmt: skip
def test_workloads(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("EndpointSlice", "addressType: Required value", addressType=""),
    case("EndpointSlice", 'addressType: Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6"',
         addressType="IP"),
    case("EndpointSlice", "endpoints[0].addresses: Required value: must contain at least 1 address",
         endpoints=[{"addresses": []}]),
    case("EndpointSlice", "endpoints[0].addresses: Too many: 101: must have at most 100 items",
         endpoints=[{"addresses": ["10.0.0.1"] * 101}], addressType="IPv4"),
    case("EndpointSlice", "endpoints: Too many: 1001: must have at most 1000 items",
         endpoints=[{"addresses": ["10.0.0.1"]}] * 1001),
    case("EndpointSlice", 'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address',
         endpoints=[{"addresses": ["fd00::1"]}]),
    case("EndpointSlice", 'endpoints[0].addresses[0]: Invalid value: "10.244.1.2": must be a valid IPv6 address',
         addressType="IPv6"),
    case("EndpointSlice", 'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": '
         "may not be in the loopback range (127.0.0.0/8, ::1/128)", endpoints=[{"addresses": ["127.0.0.1"]}]),
    case("EndpointSlice", addressType="FQDN", endpoints=[{"addresses": ["web.example.com"]}]),
    case("EndpointSlice", 'ports[1].name: Duplicate value: "http"', ports=[{"name": "http"}, {"name": "http"}]),
    case("EndpointSlice", 'ports[1].name: Duplicate value: ""', ports=[{"port": 1}, {"port": 2}]),
    case("EndpointSlice", f'ports[0].protocol: Unsupported value: "x": {PROTOCOLS}', ports=[{"protocol": "x"}]),
    case("EndpointSlice", f'endpoints[0].nodeName: Invalid value: "N_1": {SUBDOMAIN}',
         endpoints=[{"addresses": ["10.0.0.1"], "nodeName": "N_1"}]),
    case("EndpointSlice", "endpoints[0].hints.forZones: Too many: 9: must have at most 8 items",
         endpoints=[{"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": str(n)} for n in range(9)]}}]),
    case("Endpoints", "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`", subsets=[{}]),
    case("Endpoints", f'subsets[0].addresses[0].ip: Invalid value: "x": {IP}', subsets=[{"addresses": [{"ip": "x"}]}]),
    case("Endpoints", 'subsets[0].addresses[0].ip: Invalid value: "169.254.0.1": '
         "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
         subsets=[{"addresses": [{"ip": "169.254.0.1"}]}]),
    case("Endpoints", "subsets[0].ports[1].name: Required value",
         subsets__0__ports=[{"name": "a", "port": 1}, {"port": 2}]),
    case("Endpoints", f"subsets[0].ports[0].port: Invalid value: 0: {PORT}", subsets__0__ports=[{}]),
])  # fmt: skip
def test_endpoints_of_both_kinds(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


@pytest.mark.parametrize(("kind", "fields", "errors"), [
    case("Node", 'metadata.taints[0].effect: Unsupported value: "Never": '
         'supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"',
         spec__taints=[{"key": "a", "effect": "Never"}]),
    case("Node", 'metadata.taints[1]: Duplicate value: map[string]string{"effect":"NoSchedule", "key":"a", "value":""}',
         spec__taints=[{"key": "a", "effect": "NoSchedule"}] * 2),
    case("Node", 'spec.podCIDRs[0]: Invalid value: "10.244.0.0": '
         "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)", spec={"podCIDR": "10.244.0.0"}),
    case("Node", 'spec.podCIDRs: Invalid value: []string{"10.0.0.0/24", "10.0.1.0/24"}: '
         "may specify no more than one CIDR for each IP family", spec={"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}),
    case("Node", 'status.capacity[cpu]: Invalid value: "-1": must be greater than or equal to 0',
         'status.allocatable[cpu]: Invalid value: "-1": must be greater than or equal to 0',
         status={"capacity": {"cpu": "-1"}}),
    case("ConfigMap", "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, "
         "'-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', "
         "regex used for validation is '[-._a-zA-Z0-9]+')", data={"a/b": "x"}),
    case("ConfigMap", 'data[..a]: Invalid value: "..a": must not start with \'..\'', data={"..a": "x"}),
    case("ConfigMap", 'data[a]: Invalid value: "a": duplicate of key present in binaryData', binaryData={"a": "Yg=="}),
    case("ConfigMap", ": Too long: may not be more than 1048576 bytes", data={"a": "x" * 1048577}),
    case("Secret", "data[tls.key]: Required value", type="kubernetes.io/tls", data={"tls.crt": ""}),
    case("Secret", 'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid JSON',
         type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "e30x"}),
    case("Secret", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "e30="}),
    case("Event", 'involvedObject.namespace: Invalid value: "other": does not match event.namespace',
         involvedObject={"namespace": "other"}),
    case("Event", metadata__namespace="default", involvedObject={"kind": "Node"}),
    case("Lease", "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0", spec__leaseDurationSeconds=0),
    case("Lease", 'spec.holderIdentity: Invalid value: "": must not be empty', spec__holderIdentity=""),
    case("RuntimeClass", f'handler: Invalid value: "": {DNS_LABEL}', handler=""),
    case("RuntimeClass", 'scheduling.tolerations[0].operator: Unsupported value: "Like": '
         'supported values: "Equal", "Exists"', scheduling={"tolerations": [{"key": "a", "operator": "Like"}]}),
    case("PodDisruptionBudget", spec__minAvailable="50%"),
    case("PodDisruptionBudget", 'spec: Invalid value: {"minAvailable":1,"maxUnavailable":1}: '
         "minAvailable and maxUnavailable cannot be both set", spec__minAvailable=1, spec__maxUnavailable=1),
    case("PodDisruptionBudget", "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
         spec__minAvailable=-1),
    case("PodDisruptionBudget", 'spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
         spec__maxUnavailable="101%"),
    case("PodDisruptionBudget", 'spec.maxUnavailable: Invalid value: "half": a valid percent string must be a numeric '
         "string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
         spec__maxUnavailable="half"),
    case("PodDisruptionBudget", 'spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": '
         'supported values: "AlwaysAllow", "IfHealthyBudget"', spec__unhealthyPodEvictionPolicy="Never"),
    case("PodDisruptionBudget", 'spec.selector.matchExpressions[0].operator: Invalid value: "Like": '
         "not a valid selector operator", spec__selector={"matchExpressions": [{"key": "a", "operator": "Like"}]}),
    case("PodDisruptionBudget", "status.expectedPods: Invalid value: -1: must be greater than or equal to 0",
         status={"expectedPods": -1}),
    case("ServiceCIDR", spec__cidrs=["10.96.0.0/16", "fd00:10:96::/112"]),
    case("ServiceCIDR", "spec.cidrs: Required value: at least one CIDR required", spec={}),
    case("ServiceCIDR", 'spec.cidrs: Invalid value: []string{"10.0.0.0/24", "fd00::/112", "10.1.0.0/24"}: '
         "may only hold up to 2 values", spec__cidrs=["10.0.0.0/24", "fd00::/112", "10.1.0.0/24"]),
    case("ServiceCIDR", 'spec.cidrs: Invalid value: []string{"10.0.0.0/24", "10.1.0.0/24"}: may specify no more than '
         "one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64", spec__cidrs=["10.0.0.0/24", "10.1.0.0/24"]),
    case("ServiceCIDR", 'spec.cidrs[0]: Invalid value: "10.96.0.0": '
         "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)", spec__cidrs=["10.96.0.0"]),
    case("ServiceCIDR", 'spec.cidrs[0]: Invalid value: "10.96.0.1/16": must be in canonical form ("10.96.0.0/16")',
         spec__cidrs=["10.96.0.1/16"]),
    case("Namespace", 'spec.finalizers[0]: Invalid value: "x": '
         "name is neither a standard finalizer name nor is it fully qualified", spec={"finalizers": ["x"]}),
])  # fmt: skip
def test_small_kinds(kind: str, fields: dict[str, Any], errors: list[str]) -> None:
    check(kind, fields, errors)


POD_UPDATES = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
FROZEN = "field is immutable when `immutable` is set"
DUAL = {
    "spec__clusterIPs": ["10.96.0.7", "fd00:10:96::7"],
    "spec__ipFamilies": ["IPv4", "IPv6"],
    "spec__ipFamilyPolicy": "PreferDualStack",
}
ONCE = 'Invalid value: []string{"10.96.0.8"}: may not change once set'


def update(kind: str, *errors: str, start: dict[str, Any] | None = None, **fields: Any) -> Any:
    shown = ", ".join(f"{path.replace('__', '.')}={'-' if value is DROP else value}" for path, value in fields.items())
    return pytest.param(kind, start or {}, fields, list(errors), id=f"{kind} {shown}"[:80])


@pytest.mark.parametrize(("kind", "start", "fields", "errors"), [
    update("ConfigMap", 'metadata.name: Invalid value: "d": field is immutable', metadata__name="d"),
    update("ConfigMap", 'metadata.uid: Invalid value: "2": field is immutable', start={"metadata__uid": "1"},
           metadata__uid="2"),
    update("ConfigMap", start={"metadata__uid": "1"}, metadata__uid=DROP),
    update("Service", f"spec.clusterIPs[0]: {ONCE}", spec__clusterIP="10.96.0.8"),
    update("Service", spec={"ports": [{"port": 81}]}),
    update("Service", start={"spec__type": "LoadBalancer",
                             "status": {"loadBalancer": {"ingress": [{"ip": "172.18.255.1"}]}}},
           spec__type="ClusterIP"),
    update("Service", spec__type="ExternalName", spec__externalName="x.y"),
    update("Service", "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
           spec__type="ExternalName", spec__externalName="x.y", spec__clusterIP="10.96.0.8"),
    update("Service", 'spec.ipFamilies[0]: Invalid value: []string{"IPv6"}: may not change once set',
           'spec.clusterIPs[0]: Invalid value: "10.96.0.7": expected an IPv6 value as indicated by `ipFamilies[0]`',
           start={"spec__ipFamilies": ["IPv4"]}, spec__ipFamilies=["IPv6"]),
    update("Service", 'spec.loadBalancerClass: Invalid value: "a/b": may not change once set',
           start={"spec__type": "LoadBalancer"}, spec__loadBalancerClass="a/b"),
    update("Deployment", 'spec.selector: Invalid value: v1.LabelSelector{MatchLabels:map[string]string{"app":"x"}, '
           "MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable",
           spec__selector={"matchLabels": {"app": "x"}}, spec__template__metadata__labels={"app": "x"}),
    update("Deployment", spec__replicas=3),
    update("Service", "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": "
           "must be set to 'SingleStack' when releasing the secondary clusterIP",
           start=DUAL, spec__clusterIPs=["10.96.0.7"]),
    update("Service", start=DUAL, spec__clusterIPs=["10.96.0.7"], spec__ipFamilies=["IPv4"],
           spec__ipFamilyPolicy="SingleStack"),
    update("Service", spec__clusterIPs=["10.96.0.7", "fd00:10:96::7"], spec__ipFamilyPolicy="RequireDualStack"),
    update("Pod", spec__containers__0__image="web:2"),
    update("Pod", spec__tolerations=[{"key": "a", "operator": "Exists"}]),
    update("Pod", spec__activeDeadlineSeconds=10),
    update("Pod", f"{POD_UPDATES}\n(changed: nodeSelector)", spec__nodeSelector={"a": "b"}),
    update("Pod", f"{POD_UPDATES}\n(changed: containers)", spec__containers__0__args=["x"]),
    update("Pod", f"{POD_UPDATES}\n(changed: terminationGracePeriodSeconds)", spec__terminationGracePeriodSeconds=5),
    update("Pod", "spec.containers: Forbidden: pod updates may not add or remove containers",
           spec__containers=[{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]),
    update("Pod", "spec.activeDeadlineSeconds: Invalid value: 9: must be less than or equal to previous value: 5",
           start={"spec__activeDeadlineSeconds": 5}, spec__activeDeadlineSeconds=9),
    update("Pod", "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
           start={"spec__tolerations": [{"key": "a", "operator": "Exists"}]}, spec__tolerations=[]),
    update("Pod", spec__ephemeralContainers=[{"name": "d", "image": "i"}]),
    update("Node", 'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
           spec={"podCIDR": "10.244.9.0/24"}),
    update("Node", start={"spec": {}}, spec={"podCIDR": "10.244.9.0/24"}),
    update("Secret", 'type: Invalid value: "example.com/x": field is immutable', type="example.com/x"),
    update("Secret", f"data: Forbidden: {FROZEN}", start={"immutable": True}, data={"a": "eA=="}),
    update("ConfigMap", f"immutable: Forbidden: {FROZEN}", start={"immutable": True}, immutable=False),
    update("EndpointSlice", 'addressType: Invalid value: "IPv6": field is immutable', addressType="IPv6",
           endpoints=[]),
    update("ServiceCIDR", 'spec.cidrs: Invalid value: []string{"10.97.0.0/16"}: field is immutable',
           spec__cidrs=["10.97.0.0/16"]),
    update("RuntimeClass", 'handler: Invalid value: "other": field is immutable', handler="other"),
])  # fmt: skip
def test_updates(kind: str, start: dict[str, Any], fields: dict[str, Any], errors: list[str]) -> None:
    old = changed(VALID[kind], **start)
    apply_defaults(RESOURCES[kind], old)

    assert sorted(problems(kind, changed(old, **fields), old)) == sorted(errors)


def test_reasons_are_those_of_a_status_cause() -> None:
    pod = changed(VALID["Pod"], spec__containers__0__image="", spec__restartPolicy="x", metadata__name="X")
    pod["spec"]["containers"].append(copy.deepcopy(pod["spec"]["containers"][0]))
    apply_defaults(r.PODS, pod)
    errors = validate(r.PODS, pod)

    assert {error.reason for error in errors} == {
        "FieldValueRequired", "FieldValueNotSupported", "FieldValueInvalid", "FieldValueDuplicate"
    }  # fmt: skip
    assert Invalid.of_fields("Pod", "X", errors).status()["code"] == 422


@pytest.mark.parametrize(
    ("text", "number"),
    [("100m", 0.1), ("1", 1), (2, 2), ("1.5Gi", 1.5 * 2**30), ("1e3", 1000), ("1E", 10**18), ("5k", 5000), (".5", 0.5),
     ("-3", -3), ("1K", None), ("", None), ("abc", None), ("1 Gi", None)],
)  # fmt: skip
def test_quantities(text: Any, number: float | None) -> None:
    value = quantity(text)

    assert (None if value is None else float(value)) == number


WILD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend, namespace: shop, labels: {app: frontend}}
spec:
  selector: {matchLabels: {app: frontend}}
  template:
    metadata:
      labels: {app: frontend}
      annotations: {"sidecar.example.io/rewriteAppHTTPProbers": "true"}
    spec:
      serviceAccountName: frontend
      securityContext: {fsGroup: 1000, runAsGroup: 1000, runAsNonRoot: true, runAsUser: 1000}
      initContainers:
      - {name: wait, image: "busybox:latest", command: [sh, -c, "exit 0"]}
      containers:
      - name: server
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, readOnlyRootFilesystem: true}
        image: registry.example/shop/frontend:v0.10.2
        ports: [{containerPort: 8080}]
        readinessProbe:
          initialDelaySeconds: 10
          httpGet: {path: /_healthz, port: 8080, httpHeaders: [{name: Cookie, value: session-id=x}]}
        livenessProbe: {grpc: {port: 8080}}
        env: [{name: PORT, value: "8080"}, {name: ADDR, value: "catalog:3550"}]
        resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}
        volumeMounts: [{mountPath: /data, name: data}]
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: frontend-external, namespace: shop, labels: {app: frontend}}
spec: {type: LoadBalancer, selector: {app: frontend}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: cassandra, namespace: shop}
spec: {clusterIP: None, selector: {app: cassandra}, ports: [{port: 9042}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: frontend, namespace: shop}
"""


@pytest.mark.parametrize(
    "obj", list(yaml.safe_load_all(WILD)), ids=lambda obj: f"{obj['kind']} {obj['metadata']['name']}"
)
def test_objects_as_they_are_found_in_the_wild_pass_every_check(obj: Obj) -> None:
    schema, resource = Schema.load(), RESOURCES[obj["kind"]]

    assert schema.unknown_fields(resource, obj) == schema.type_errors(resource, obj) == []
    assert problems(obj["kind"], obj) == []
    assert schema.unknown_fields(resource, obj) == schema.type_errors(resource, obj) == []

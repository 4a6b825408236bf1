"""Why a Service leads nowhere, or not where somebody meant: read from API objects alone. Pure.

The oracle says that a Service port has no endpoints; here is why: what its selector matches, what these Pods lack,
which port nobody has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netemu.model.lists import first_of
from netemu.model.objects import Endpoint, Service, ServicePort
from netemu.model.pods import Pod
from netemu.model.selectors import LabelSelector
from netemu.observe.reasons import Because, Reason
from netemu.observe.service_ports import Via
from netemu.observe.story.destination import Objects


def no_endpoints(service: Service, port: ServicePort, objects: Objects, family: str) -> Because:
    """Why nothing stands behind a Service port, for addresses of a family (`IPv4` or `IPv6`)."""
    name = f"Service {service.key}"
    if service.spec.selector is None and not _endpoints(service, objects):
        text = f"{name} has no selector, and nobody made an EndpointSlice for it"
        return Because(Reason.NO_ENDPOINTS, text, "give it spec.selector, or create its EndpointSlices")
    selector = LabelSelector.of_map(service.spec.selector or {})
    chosen = [p for p in objects.pods if p.namespace == service.namespace and selector.matches(p.labels)]
    pods = [pod for pod in chosen if not pod.finished]
    if service.spec.selector and not pods:
        return _nobody(service, selector, objects, ended=bool(chosen))
    if (missing := _missing_port(service, port, pods, family)) is not None:
        return missing
    if pods and all(not pod.status.pod_ips for pod in pods):
        return Because(Reason.POD_PENDING, f"the Pods of {name} have no address yet: {first_of(map(_state, pods))}")
    if pods and all(pod.deleting for pod in pods):
        text = f"every Pod of {name} is terminating and does not serve any more: {_names(pods)}"
        return Because(Reason.TERMINATING, text)
    waiting = [pod for pod in pods if not pod.ready]
    if waiting:
        text = f"no Pod of {name} is Ready: {first_of(map(_state, waiting))}"
        return Because(Reason.NOT_READY, text, "`kubectl describe pod` tells what its readiness probe says")
    return Because(Reason.NO_ENDPOINTS, f"{name} has no ready endpoint of {family} for port {port.port}")


def _nobody(service: Service, selector: LabelSelector, objects: Objects, *, ended: bool) -> Because:
    text = f"the selector {selector} of Service {service.key} matches no Pod" + (" that still runs" if ended else "")
    keys = set(service.spec.selector or {})
    near = sorted(
        {
            f"{key}={pod.labels[key]}"
            for pod in objects.pods
            if pod.namespace == service.namespace and not pod.finished
            for key in keys & pod.labels.keys()
        }
    )
    idle = [each for each in objects.idle if each.namespace == service.namespace and selector.matches(each.labels)]
    if idle:
        scaled = f"{idle[0].kind} {idle[0].name}"
        remedy = f"`kubectl -n {service.namespace} scale {scaled} --replicas 1`"
        return Because(Reason.NO_ENDPOINTS, f"{text}; {scaled} has 0 replicas", remedy)
    there = f"Pods in namespace {service.namespace} have {first_of(near)}" if near else ""
    return Because(Reason.NO_ENDPOINTS, text, there)


def _missing_port(service: Service, port: ServicePort, pods: Sequence[Pod], family: str) -> Because | None:
    """A `targetPort` by a name that no container gives, or Pods without an address of the family."""
    target = port.target_port
    if isinstance(target, str) and target and pods:
        names = {p.name for pod in pods for c in pod.spec.containers for p in c.ports if p.protocol == port.protocol}
        if target not in names:
            text = f"targetPort {target!r} of Service {service.key} is the name of no port of its Pods"
            return Because(Reason.TARGET_PORT, text, f"they name {first_of(sorted(filter(None, names))) or 'none'}")
    addressed = [pod for pod in pods if pod.status.pod_ips]
    of_family = [p for p in addressed if any((":" in ip.ip) == (family == "IPv6") for ip in p.status.pod_ips)]
    if addressed and not of_family:
        return Because(Reason.FAMILY, f"no Pod of Service {service.key} has an {family} address")
    return None


def wrong_port(service: Service, port: int, protocol: str, *, via: str = "port") -> Because:
    """The Service's address was right and the port is none of its."""
    if protocol == "ICMP":
        text = f"Service {service.key} is an address of rules for ports: nobody answers a ping to it in this mode"
        return Because(Reason.NO_ICMP, text, "ping one of its Pods")
    numbers = [(p.node_port if via == Via.NODE_PORT else p.port, p.protocol, p) for p in service.spec.ports]
    other = next((kind for number, kind, _ in numbers if number == port and kind != protocol), "")
    has = first_of(f"{number}/{kind}" for number, kind, _ in numbers)
    text = f"Service {service.key} has no {via} {port}/{protocol}"
    if other:
        return Because(Reason.WRONG_PROTOCOL, text, f"it has {port}/{other}: --proto {other.lower()}")
    target = next((p.port for p in service.spec.ports if port in (p.target_port, p.node_port)), 0)
    hint = f"; {port} is its {'nodePort' if _is_node_port(service, port) else 'targetPort'}" if target else ""
    return Because(Reason.WRONG_PORT, text, f"it has {has}{hint}")


def no_local(service: Service, node: str, *, internal: bool) -> Because:
    """A traffic policy Local, and the endpoints are elsewhere."""
    policy = "internalTrafficPolicy" if internal else "externalTrafficPolicy"
    text = f"{policy} of Service {service.key} is Local, and node {node} has no endpoint of it"
    remedy = f"use a node that has one, or {policy}: Cluster" if not internal else f"{policy}: Cluster"
    return Because(Reason.NO_LOCAL_ENDPOINT, text, remedy)


def not_listening(whoever: str, port: int, pod: Pod | None, service: Service | None) -> Because:
    """The endpoint itself refused: nothing has that port open."""
    who = f"Pod {pod.key}" if pod else whoever
    ports = sorted({p.container_port for c in pod.spec.containers for p in c.ports} if pod else ())
    text = f"{who} refused: nothing listens on port {port} there"
    if service is not None and service.headless:
        text += f"; Service {service.key} is headless, so no rule translates its port"
        targets = sorted({str(p.target_port) for p in service.spec.ports})
        return Because(Reason.HEADLESS, text, f"use the Pods' own port: {first_of(targets)}")
    return Because(Reason.NOT_LISTENING, text, f"its containers declare {first_of(map(str, ports))}" if ports else "")


def _is_node_port(service: Service, port: int) -> bool:
    return any(p.node_port == port for p in service.spec.ports)


def _endpoints(service: Service, objects: Objects) -> list[Endpoint]:
    return [
        endpoint for piece in objects.slices if piece.service_key == service.key for endpoint in piece.endpoints or ()
    ]


def _state(pod: Pod) -> str:
    """A Pod with what keeps it from being Ready."""
    wanted = "PodScheduled" if not pod.spec.node_name else "Ready"
    condition = next((c for c in pod.status.conditions if c.type == wanted and c.status != "True"), None)
    waiting = [
        status.state["waiting"].get("reason", "")
        for status in pod.status.container_statuses
        if "waiting" in status.state
    ]
    why = next(filter(None, waiting), "") or (condition.message or condition.reason if condition else "")
    state = "is on no node" if not pod.spec.node_name else f"is {pod.status.phase}"
    return f"{pod.name} {state}" + (f" ({why})" if why else "")


def _names(pods: Iterable[Pod]) -> str:
    return first_of(pod.name for pod in pods)

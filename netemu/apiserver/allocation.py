"""Cluster IPs and node ports: who holds which, and which comes next.

Addresses come from the ServiceCIDRs of the cluster, which may be more than one of a family and may overlap. Layout of
each, as upstream: the first and (IPv4) last address of a Service CIDR are never used. A range is split into a static
band below and a dynamic band above (KEP-3070 for addresses, KEP-3668 for node ports): what the server picks comes at
random from the upper band while it lasts, so the lower one stays free for what clients ask for by value.

Rules of a Service's families, addresses and ports: `pkg/registry/core/service/storage/alloc.go`.

A Service holds its values under its namespace and name. One write goes like this:

    errors = allocator.allocate(obj, old)      # fills obj in; on success holds the values of old *and* obj
    ... the object is written ...
    allocator.settle(obj)                      # it was written: hold just these values
    allocator.settle(old)                      # the write failed (or was a dry run): back to these
    allocator.release(obj)                     # a create failed, or the Service is gone: hold nothing

Between the two calls nobody else can take what either version needs, so a failed write can always be undone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence, Set
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from netemu.apiserver.defaults_service import needs_cluster_ip, needs_health_check, needs_node_port, settle
from netemu.apiserver.validation.fields import invalid
from netemu.client.base import Obj
from netemu.model.errors import FieldError, InternalError

Network = IPv4Network | IPv6Network
Value = tuple[str, str]
"""What a Service can have: one of `IPS` or `NODE_PORTS`, and the value as text."""
IPS, NODE_PORTS = "ipaddresses", "servicenodeports"


class _Refused(Exception):
    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*map(str, errors))
        self.errors = list(errors)


def static_band(size: int, smallest: int, largest: int, step: int) -> int:
    """How many values at the bottom of a range of `size` stay for clients: min(max(smallest, size/step), largest)."""
    if size <= smallest:
        return 0
    return min(max(smallest, size // step), largest)


class _Held:
    """Numbers, each held by at most one Service."""

    def __init__(self) -> None:
        self._holder: dict[int, str] = {}
        self._numbers: dict[str, set[int]] = {}
        self.elsewhere: Set[int] = frozenset()
        """Numbers that are not to be had although nobody here holds them."""

    def free_for(self, number: int, owner: str) -> bool:
        return self._holder.get(number, owner) == owner and number not in self.elsewhere

    def free(self, number: int) -> bool:
        return number not in self._holder and number not in self.elsewhere

    def hold(self, owner: str, numbers: set[int], *, also: bool = False) -> None:
        """Make `owner` hold exactly `numbers` (with `also`: these too), less what others hold."""
        before = self._numbers.pop(owner, set())
        for number in () if also else before - numbers:
            self._holder.pop(number, None)
        for number in numbers:
            self._holder.setdefault(number, owner)
        held = numbers | before if also else numbers
        held = {number for number in held if self._holder.get(number) == owner}
        if held:
            self._numbers[owner] = held

    def __len__(self) -> int:
        return len(self._holder)


class _Range(NamedTuple):
    """Numbers from `first` to `last`, of which those below `dynamic` are for clients that ask for one."""

    first: int
    last: int
    dynamic: int

    def contains(self, number: int) -> bool:
        return self.first <= number <= self.last

    def pick(self, rng: random.Random, free: Callable[[int], bool]) -> int | None:
        """A free number: at random from the dynamic band, then from the static one; None when the range is full."""
        for low, high in ((self.dynamic, self.last), (self.first, self.dynamic - 1)):
            size = high - low + 1
            start = rng.randrange(size) if size > 0 else 0
            for step in range(size):
                number = low + (start + step) % size
                if free(number):
                    return number
        return None


class ServiceAllocator:
    """The Service addresses and node ports of one cluster."""

    def __init__(
        self,
        service_cidrs: Sequence[str],
        node_ports: tuple[int, int] = (30000, 32767),
        *,
        rng: random.Random | None = None,
    ) -> None:
        """One CIDR for a single-stack cluster, one of each family for dual stack; the first is the default family."""
        self._rng = rng or random.Random()
        self._configured = [ip_network(cidr) for cidr in service_cidrs]
        self._families = tuple(_family_of_network(network) for network in self._configured)
        if len(set(self._families)) != len(service_cidrs) or not service_cidrs:
            raise ValueError("one or two Service CIDRs, each of another family, are needed")
        self._addresses = {family: _Held() for family in self._families}
        self._ranges: dict[Network, _Range] = {}
        self.use(())
        self._default_family = self._families[0]
        low, high = node_ports
        self._node_ports = _Range(low, high, low + static_band(high - low + 1, 16, 128, 32))
        self._ports = _Held()

    def use(self, cidrs: Iterable[Obj]) -> None:
        """Give addresses of those of the ServiceCIDRs that are ready; of the configured ones if there are none yet."""
        every = list(cidrs)
        ready = [network for cidr in every if _ready(cidr) for network in map(ip_network, cidr["spec"]["cidrs"])]
        self._ranges = {network: _address_range(network) for network in (ready if every else self._configured)}

    def load(self, services: Iterable[Obj]) -> None:
        """Take over what stored Services hold."""
        for service in services:
            self.settle(service)

    def allocate(self, obj: Obj, old: Obj | None, elsewhere: Set[Value] = frozenset()) -> list[FieldError]:
        """Fill in clusterIP(s), ipFamilies, ipFamilyPolicy, node ports and healthCheckNodePort of a Service, in place.

        Keeps those of `old`, the stored Service. What is taken `elsewhere`, by somebody of whom nobody here knows yet,
        is not given. Returns what is wrong; then nothing is held that was not before (but `obj` may be filled in
        partly). Raises InternalError when a range is full.
        """
        self._pass_over(elsewhere)
        settle(obj, old)
        try:
            self._set_families(obj["spec"], old["spec"] if old else None)
            addresses = self._addresses_of(obj, old)
            ports = self._node_ports_of(obj)
        except _Refused as refused:
            return refused.errors
        owner = _owner(obj)
        for family, number in addresses.items():
            self._addresses[family].hold(owner, {number}, also=True)
        self._ports.hold(owner, ports, also=True)
        return []

    def _pass_over(self, elsewhere: Set[Value]) -> None:
        taken = [ip_address(text) for name, text in elsewhere if name == IPS]
        for family, addresses in self._addresses.items():
            addresses.elsewhere = {int(ip) for ip in taken if f"IPv{ip.version}" == family}
        self._ports.elsewhere = {int(text) for name, text in elsewhere if name == NODE_PORTS}

    def settle(self, obj: Obj) -> None:
        """Hold exactly what this Service, as it is stored, has."""
        owner, spec = _owner(obj), obj.get("spec") or {}
        held = [ip_address(ip) for ip in _cluster_ips(spec)]
        for family, addresses in self._addresses.items():
            addresses.hold(owner, {int(ip) for ip in held if f"IPv{ip.version}" == family})
        self._ports.hold(owner, _node_ports(spec))

    def release(self, obj: Obj) -> None:
        """Give back everything that this Service holds; nothing held is success."""
        for addresses in self._addresses.values():
            addresses.hold(_owner(obj), set())
        self._ports.hold(_owner(obj), set())

    @property
    def used(self) -> tuple[int, int]:
        """How many cluster IPs and how many node ports are held."""
        return sum(map(len, self._addresses.values())), len(self._ports)

    # --- families ---------------------------------------------------------------------------------------------------

    def _set_families(self, spec: Obj, old: Obj | None) -> None:
        if not needs_cluster_ip(spec) or (old and _keeps_dual_stack_preference(spec, old)):
            return
        headless_without_selector = spec.get("clusterIP") == "None" and not spec.get("selector")
        if not spec.get("ipFamilyPolicy"):
            default = "RequireDualStack" if headless_without_selector else "SingleStack"
            spec["ipFamilyPolicy"] = (old or {}).get("ipFamilyPolicy") or default
        if old:
            _change_stacks(spec, old)
        _check_policy(spec)
        families = self._infer_families(spec)
        if headless_without_selector:
            families = families or [self._default_family]
            if len(families) == 1 and spec["ipFamilyPolicy"] != "SingleStack":
                families.append(_other(families[0]))
        else:
            families = self._configured_families(spec, families)
        spec["ipFamilies"] = families

    def _infer_families(self, spec: Obj) -> list[str]:
        families: list[str] = list(spec.get("ipFamilies") or ())
        for index, ip in enumerate(spec.get("clusterIPs") or ()):
            if ip == "None" or index < len(families):
                continue
            family = f"IPv{ip_address(ip).version}"
            if family not in self._families:
                path = f"spec.clusterIPs[{index}]"
                raise _Refused(invalid(path, spec["clusterIPs"], f"{family} is not configured on this cluster"))
            families.append(family)
        return families

    def _configured_families(self, spec: Obj, families: list[str]) -> list[str]:
        errors: list[FieldError] = []
        policy, dual = spec["ipFamilyPolicy"], len(self._families) == 2
        if policy == "RequireDualStack" and not dual:
            why = "this cluster is not configured for dual-stack services"
            errors.append(invalid("spec.ipFamilyPolicy", policy, why))
        for index, family in enumerate(families):
            if family not in self._families:
                errors.append(invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster"))
        if errors:
            raise _Refused(*errors)
        families = families or [self._default_family]
        if policy != "SingleStack" and len(families) == 1 and dual:
            families.append(_other(families[0]))
        return families

    # --- addresses --------------------------------------------------------------------------------------------------

    def _addresses_of(self, obj: Obj, old: Obj | None) -> dict[str, int]:
        """The address of each family, given or picked, written into the Service."""
        spec = obj["spec"]
        if not needs_cluster_ip(spec) or spec.get("clusterIP") == "None":
            return {}
        ips: list[str] = list(spec.get("clusterIPs") or ())
        keep = set(_cluster_ips(old["spec"])) if old else set()
        chosen: dict[str, int] = {}
        families = spec["ipFamilies"]
        for index, family in enumerate(families):
            if index < len(ips) and ips[index]:
                chosen[family] = int(ip_address(ips[index]))
                if ips[index] not in keep:
                    self._check_address(family, ips[index], obj)
                continue
            chosen[family] = self._pick_address(family)
            ips[index:] = [_address(family, chosen[family])]
        spec["clusterIPs"] = ips[: len(families)]
        spec["clusterIP"] = spec["clusterIPs"][0]
        return chosen

    def _pick_address(self, family: str) -> int:
        ranges = [wide for network, wide in self._ranges.items() if _family_of_network(network) == family]
        for wide in self._rng.sample(ranges, len(ranges)):
            number = wide.pick(self._rng, self._addresses[family].free)
            if number is not None:
                return number
        raise InternalError("Internal error occurred: failed to allocate a serviceIP: range is full")

    def _check_address(self, family: str, text: str, obj: Obj) -> None:
        address, number = ip_address(text), int(ip_address(text))
        networks = [network for network in self._ranges if _family_of_network(network) == family]
        if not any(address in network and self._ranges[network].contains(number) for network in networks):
            valid = ", ".join(map(str, networks))
            why = f"the provided IP ({text}) is not in the valid range. The range of valid IPs is {valid}"
        elif not self._addresses[family].free_for(number, _owner(obj)):
            why = "provided IP is already allocated"
        else:
            return
        ips = obj["spec"]["clusterIPs"]
        raise _Refused(invalid("spec.clusterIPs", ips, f"failed to allocate IP {text}: {why}"))

    # --- node ports -------------------------------------------------------------------------------------------------

    def _node_ports_of(self, obj: Obj) -> set[int]:
        """The node ports, given or picked, written into the Service; the healthCheckNodePort is one of them."""
        spec = obj["spec"]
        used: set[int] = set()
        if needs_node_port(spec):
            self._set_node_ports(obj, used)
        if needs_health_check(spec):
            given = spec.get("healthCheckNodePort")
            if given:
                refusal = self._refusal(given, _owner(obj)) or (_PORT_TAKEN if given in used else "")
                if refusal:
                    why = f"failed to allocate requested HealthCheck NodePort {given}: {refusal}"
                    raise _Refused(invalid("spec.healthCheckNodePort", given, why))
            spec["healthCheckNodePort"] = given or self._pick_port(used)
            used.add(spec["healthCheckNodePort"])
        return used

    def _set_node_ports(self, obj: Obj, used: set[int]) -> None:
        spec = obj["spec"]
        ports = spec.get("ports") or []
        for index, port in enumerate(ports):
            if number := port.get("nodePort"):
                if refusal := self._refusal(number, _owner(obj)):
                    raise _Refused(invalid(f"spec.ports[{index}].nodePort", number, refusal))
                used.add(number)
        if spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
            return
        # The same port for TCP and for UDP (DNS) gets the same node port.
        by_port = {(p.get("port"), p.get("protocol")): p["nodePort"] for p in ports if p.get("nodePort")}
        for port in ports:
            if port.get("nodePort"):
                continue
            twins = [number for (value, protocol), number in by_port.items() if value == port.get("port")]
            number = twins[0] if twins and (port.get("port"), port.get("protocol")) not in by_port else None
            port["nodePort"] = number or self._pick_port(used)
            by_port[port.get("port"), port.get("protocol")] = port["nodePort"]
            used.add(port["nodePort"])

    def _refusal(self, number: int, owner: str) -> str:
        if not self._node_ports.contains(number):
            valid = f"{self._node_ports.first}-{self._node_ports.last}"
            return f"provided port is not in the valid range. The range of valid ports is {valid}"
        return "" if self._ports.free_for(number, owner) else _PORT_TAKEN

    def _pick_port(self, taken: set[int]) -> int:
        number = self._node_ports.pick(self._rng, lambda n: self._ports.free(n) and n not in taken)
        if number is None:
            raise InternalError("Internal error occurred: failed to allocate a nodePort: range is full")
        return number


_PORT_TAKEN = "provided port is already allocated"


def values_of(service: Obj) -> set[Value]:
    """What a stored Service has, addresses in their canonical form."""
    spec = service.get("spec") or {}
    # Only those of IPv6 can be written in more than one way.
    addresses = {(IPS, str(ip_address(ip)) if ":" in ip else ip) for ip in _cluster_ips(spec)}
    return addresses | {(NODE_PORTS, str(port)) for port in _node_ports(spec)}


def _owner(obj: Obj) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata'].get('name', '')}"


def _family_of_network(network: Network) -> str:
    return f"IPv{network.version}"


def _other(family: str) -> str:
    return "IPv6" if family == "IPv4" else "IPv4"


def _address(family: str, number: int) -> str:
    return str(ip_address(number.to_bytes(4 if family == "IPv4" else 16, "big")))


def _address_range(network: Network) -> _Range:
    first, size = int(network.network_address) + 1, network.num_addresses
    usable = size - (1 if network.version == 6 else 2)
    return _Range(first, first + usable - 1, first + static_band(size, 16, 256, 16))


def _ready(cidr: Obj) -> bool:
    """Whether a ServiceCIDR stays, and nobody says that it is not ready."""
    conditions = (cidr.get("status") or {}).get("conditions") or ()
    refused = any(c.get("type") == "Ready" and c.get("status") != "True" for c in conditions)
    return not refused and not cidr["metadata"].get("deletionTimestamp")


def _cluster_ips(spec: Obj) -> list[str]:
    if not needs_cluster_ip(spec):
        return []
    ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [ip for ip in ips if ip and ip != "None"]


def _node_ports(spec: Obj) -> set[int]:
    ports = (
        {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
        if needs_node_port(spec)
        else set()
    )
    if needs_health_check(spec) and spec.get("healthCheckNodePort"):
        ports.add(spec["healthCheckNodePort"])
    return ports


def _keeps_dual_stack_preference(spec: Obj, old: Obj) -> bool:
    """Nothing about the stacks changed, so a cluster that became dual-stack meanwhile does not change the Service."""
    same = all((spec.get(key) or None) == (old.get(key) or None) for key in ("type", "clusterIPs", "ipFamilies"))
    return same and spec.get("ipFamilyPolicy") == old.get("ipFamilyPolicy") == "PreferDualStack"


def _change_stacks(spec: Obj, old: Obj) -> None:
    """An update to SingleStack drops the second family; dropping it without saying so is refused."""
    for key, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        new_values, old_values = spec.get(key) or [], old.get(key) or []
        if spec["ipFamilyPolicy"] == "SingleStack":
            if new_values == old_values and len(new_values) > 1:
                spec[key] = new_values[:1]
        elif new_values and len(new_values) < len(old_values):
            why = f"must be 'SingleStack' to release the secondary {what}"
            raise _Refused(invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], why))


def _check_policy(spec: Obj) -> None:
    if spec["ipFamilyPolicy"] != "SingleStack":
        return
    for key, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
        if len(spec.get(key) or ()) == 2:
            why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            raise _Refused(invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], why))

"""What is wrong with EndpointSlices (`pkg/apis/discovery/validation`) and Endpoints (`pkg/apis/core/validation`)."""

from __future__ import annotations

from ipaddress import ip_address

from netemu.apiserver.validation.fields import (
    dns1123_label,
    dns1123_subdomain,
    duplicate,
    immutable,
    invalid,
    invalid_for,
    ip_text,
    is_ip,
    label_value,
    one_of,
    port_number,
    qualified_name,
    required,
    too_many,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError

MAX_ENDPOINTS = 1000
MAX_ADDRESSES = 100
MAX_PORTS = 20000
MAX_ZONE_HINTS = 8

_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")


def validate_endpointslice(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of an EndpointSlice."""
    kind = obj.get("addressType") or ""
    errors = [required("addressType")] if not kind else one_of("addressType", kind, _ADDRESS_TYPES)
    errors += _endpoints(obj.get("endpoints") or [], kind)
    errors += _slice_ports(obj.get("ports") or [])
    if old is not None:
        errors += immutable("addressType", kind, old.get("addressType") or "")
    return errors


def _endpoints(endpoints: list[Obj], kind: str) -> list[FieldError]:
    if len(endpoints) > MAX_ENDPOINTS:
        return [too_many("endpoints", len(endpoints), MAX_ENDPOINTS)]
    errors: list[FieldError] = []
    for index, endpoint in enumerate(endpoints):
        path, addresses = f"endpoints[{index}]", endpoint.get("addresses") or []
        if not addresses:
            errors.append(required(f"{path}.addresses", "must contain at least 1 address"))
        elif len(addresses) > MAX_ADDRESSES:
            errors.append(too_many(f"{path}.addresses", len(addresses), MAX_ADDRESSES))
        for at, address in enumerate(addresses):
            errors += _address(f"{path}.addresses[{at}]", address, kind)
        if name := endpoint.get("nodeName"):
            errors += invalid_for(f"{path}.nodeName", name, dns1123_subdomain(name))
        if zone := endpoint.get("zone"):
            errors += invalid_for(f"{path}.zone", zone, label_value(zone))
        if host := endpoint.get("hostname"):
            errors += invalid_for(f"{path}.hostname", host, dns1123_label(host))
        errors += _hints(f"{path}.hints.forZones", (endpoint.get("hints") or {}).get("forZones") or [])
    return errors


def _hints(path: str, zones: list[Obj]) -> list[FieldError]:
    if len(zones) > MAX_ZONE_HINTS:
        return [too_many(path, len(zones), MAX_ZONE_HINTS)]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, zone in enumerate(zones):
        name = zone.get("name") or ""
        if name in seen:
            errors.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)
        errors += invalid_for(f"{path}[{index}].name", name, label_value(name))
    return errors


def _address(path: str, address: str, kind: str) -> list[FieldError]:
    if kind == "FQDN":
        return _fqdn(path, address)
    if kind not in ("IPv4", "IPv6"):
        return []
    if not is_ip(address, int(kind[-1])):
        return [invalid(path, address, f"must be a valid {kind} address")]
    return special_address(path, address)


def _fqdn(path: str, name: str) -> list[FieldError]:
    name = name.removesuffix(".")
    if not name:
        return [required(path)]
    if reasons := dns1123_subdomain(name):
        return [invalid(path, name, ",".join(reasons))]
    if "." not in name:
        return [invalid(path, name, "should be a domain with at least two segments separated by dots")]
    return []


def special_address(path: str, text: str) -> list[FieldError]:
    """Errors of an address that no other machine can be reached at."""
    address = ip_address(text)
    local_multicast = address.is_multicast and text.lower().startswith(("224.0.0.", "ff02:"))
    cases = (
        (address.is_unspecified, f"may not be unspecified ({text})"),
        (address.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    )
    return [invalid(path, text, why) for applies, why in cases if applies]


def _slice_ports(ports: list[Obj]) -> list[FieldError]:
    if len(ports) > MAX_PORTS:
        return [too_many("ports", len(ports), MAX_PORTS)]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name") or ""
        if name:
            errors += invalid_for(f"{path}.name", name, dns1123_label(name))
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
        protocol = port.get("protocol") or ""
        errors += one_of(f"{path}.protocol", protocol, _PROTOCOLS) if protocol else [required(f"{path}.protocol")]
        if port.get("port") is not None:
            errors += invalid_for(f"{path}.port", port["port"], port_number(port["port"]))
        if app := port.get("appProtocol"):
            errors += invalid_for(f"{path}.appProtocol", app, qualified_name(app))
    return errors


def validate_endpoints(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of an Endpoints object; updates are free."""
    errors: list[FieldError] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for at, address in enumerate(subset.get(key) or ()):
                errors += _subset_address(f"{path}.{key}[{at}]", address)
        ports = subset.get("ports") or []
        for at, port in enumerate(ports):
            errors += _subset_port(f"{path}.ports[{at}]", port, named=len(ports) > 1)
    return errors


def _subset_address(path: str, address: Obj) -> list[FieldError]:
    ip = address.get("ip") or ""
    errors = invalid_for(f"{path}.ip", ip, ip_text(ip)) or special_address(f"{path}.ip", ip)
    if host := address.get("hostname"):
        errors += invalid_for(f"{path}.hostname", host, dns1123_label(host))
    if name := address.get("nodeName"):
        errors += invalid_for(f"{path}.nodeName", name, dns1123_subdomain(name))
    return errors


def _subset_port(path: str, port: Obj, *, named: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    name, protocol = port.get("name") or "", port.get("protocol") or ""
    if name:
        errors += invalid_for(f"{path}.name", name, dns1123_label(name))
    elif named:
        errors.append(required(f"{path}.name"))
    errors += invalid_for(f"{path}.port", port.get("port", 0), port_number(port.get("port", 0)))
    errors += one_of(f"{path}.protocol", protocol, _PROTOCOLS) if protocol else [required(f"{path}.protocol")]
    if app := port.get("appProtocol"):
        errors += invalid_for(f"{path}.appProtocol", app, qualified_name(app))
    return errors

"""What is wrong with a Pod (`pkg/apis/core/validation/validation.go`, ValidatePodSpec and ValidatePodUpdate)."""

from __future__ import annotations

from netemu.apiserver.validation.affinity import validate_affinity
from netemu.apiserver.validation.container import (
    validate_containers,
    validate_ephemeral_containers,
    validate_init_containers,
)
from netemu.apiserver.validation.ephemeral import ephemeral_rules, ephemeral_update
from netemu.apiserver.validation.fields import (
    between,
    dns1123_label,
    dns1123_subdomain,
    dns1123_subdomain_with_underscores,
    duplicate,
    forbidden,
    immutable,
    invalid,
    invalid_for,
    ip_text,
    is_ip,
    label_selector,
    label_value,
    labels,
    not_negative,
    not_supported,
    one_of,
    qualified_name,
    required,
)
from netemu.apiserver.validation.resources import resource_list
from netemu.apiserver.validation.volumes import validate_volumes
from netemu.client.base import Obj
from netemu.model.errors import FieldError

MAX_NAMESERVERS = 3
MAX_SEARCH_PATHS = 32
MAX_SEARCH_CHARACTERS = 2048

_DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_RESTART_POLICIES = ("Always", "Never", "OnFailure")
_MAX_DEADLINE = (1 << 31) - 1
UPDATES = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_pod(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Pod."""
    spec: Obj = obj.get("spec") or {}
    errors = validate_pod_spec("spec", spec)
    if name := spec.get("nodeName"):
        errors += invalid_for("spec.nodeName", name, dns1123_subdomain(name))
    if spec.get("ephemeralContainers") and old is None:
        text = "cannot be set on create"
        errors.append(forbidden("spec.ephemeralContainers", text))
    errors += ephemeral_rules(spec)
    errors += _status(obj.get("status") or {})
    if old is not None:
        errors += _update(spec, old.get("spec") or {})
    return errors


def _status(status: Obj) -> list[FieldError]:
    """Errors of the addresses and of the nominated node (ValidatePodStatusUpdate)."""
    errors: list[FieldError] = []
    for key in ("podIPs", "hostIPs"):
        addresses = [entry.get("ip") or "" for entry in status.get(key) or ()]
        for index, address in enumerate(addresses):
            errors += invalid_for(f"status.{key}[{index}]", address, ip_text(address))
        families = [is_ip(address, 4) for address in addresses]
        if not errors and len(set(families)) < len(families):
            text = "may specify no more than one IP for each IP family"
            errors.append(invalid(f"status.{key}", status[key], text))
    host, hosts = status.get("hostIP") or "", status.get("hostIPs") or []
    if host and hosts and hosts[0].get("ip") != host:
        errors.append(invalid("status.hostIPs[0].ip", hosts[0].get("ip"), "must be equal to `hostIP`"))
    if name := status.get("nominatedNodeName"):
        errors += invalid_for("status.nominatedNodeName", name, dns1123_subdomain(name))
    return errors


def validate_template(path: str, template: Obj) -> list[FieldError]:
    """Errors of a Pod template."""
    return template_metadata(path, template) + validate_pod_spec(f"{path}.spec", template.get("spec") or {})


def template_metadata(path: str, template: Obj) -> list[FieldError]:
    """Errors of what a Pod template says beside the spec."""
    meta = template.get("metadata") or {}
    errors = labels(f"{path}.labels", meta.get("labels"))
    for key in meta.get("annotations") or ():
        errors += invalid_for(f"{path}.annotations", key, qualified_name(key.lower()))
    return errors


def validate_pod_spec(path: str, spec: Obj) -> list[FieldError]:
    """Errors of what Pods and templates have in common."""
    volumes = spec.get("volumes") or []
    mountable = {volume.get("name") or "" for volume in volumes}
    names: set[str] = set()
    errors = validate_volumes(f"{path}.volumes", volumes)
    errors += validate_containers(f"{path}.containers", spec.get("containers") or [], mountable, names)
    errors += validate_init_containers(f"{path}.initContainers", spec.get("initContainers") or [], mountable, names)
    ephemeral = spec.get("ephemeralContainers") or []
    errors += validate_ephemeral_containers(f"{path}.ephemeralContainers", ephemeral, mountable, names)
    errors += _policies(path, spec)
    errors += labels(f"{path}.nodeSelector", spec.get("nodeSelector"))
    errors += validate_tolerations(f"{path}.tolerations", spec.get("tolerations") or [])
    errors += validate_affinity(f"{path}.affinity", spec.get("affinity") or {})
    errors += _names(path, spec)
    errors += _dns_config(path, spec)
    errors += _host_aliases(f"{path}.hostAliases", spec.get("hostAliases") or [])
    errors += _spread(f"{path}.topologySpreadConstraints", spec.get("topologySpreadConstraints") or [])
    errors += resource_list(f"{path}.overhead", spec.get("overhead"))
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType") or ""
        errors += invalid_for(f"{path}.readinessGates[{index}].conditionType", kind, qualified_name(kind))
    return errors


def _policies(path: str, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, supported in (("restartPolicy", _RESTART_POLICIES), ("dnsPolicy", _DNS_POLICIES)):
        value = spec.get(key) or ""
        errors += one_of(f"{path}.{key}", value, supported) if value else [required(f"{path}.{key}")]
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None:
        errors += invalid_for(f"{path}.activeDeadlineSeconds", deadline, between(deadline, 1, _MAX_DEADLINE))
    errors += not_negative(f"{path}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    if spec.get("hostNetwork"):
        errors += _host_network(path, spec)
    return errors


def _host_network(path: str, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, container in enumerate(spec.get("containers") or ()):
        for at, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort") != port.get("containerPort"):
                text = "must match `hostPort` when `hostNetwork` is true"
                where = f"{path}.containers[{index}].ports[{at}].containerPort"
                errors.append(invalid(where, port.get("containerPort"), text))
    return errors


def _names(path: str, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    rules = (
        ("serviceAccountName", dns1123_subdomain),
        ("hostname", dns1123_label),
        ("subdomain", dns1123_label),
        ("priorityClassName", dns1123_subdomain),
        ("runtimeClassName", dns1123_subdomain),
    )
    for key, rule in rules:
        if value := spec.get(key):
            errors += invalid_for(f"{path}.{key}", value, rule(value))
    return errors


# --- DNS ----------------------------------------------------------------------------------------------------------


def _dns_config(path: str, spec: Obj) -> list[FieldError]:
    config: Obj | None = spec.get("dnsConfig")
    where = f"{path}.dnsConfig"
    errors: list[FieldError] = []
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [required(where, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(f"{where}.nameservers", text)]
    if config is None:
        return errors
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > MAX_NAMESERVERS:
        text = f"must not have more than {MAX_NAMESERVERS} nameservers"
        errors.append(invalid(f"{where}.nameservers", servers, text))
    for index, server in enumerate(servers):
        errors += invalid_for(f"{where}.nameservers[{index}]", server, ip_text(server))
    if len(searches) > MAX_SEARCH_PATHS:
        text = f"must not have more than {MAX_SEARCH_PATHS} search paths"
        errors.append(invalid(f"{where}.searches", searches, text))
    if len(" ".join(searches)) > MAX_SEARCH_CHARACTERS:
        text = f"must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        errors.append(invalid(f"{where}.searches", searches, text))
    for index, name in enumerate(searches):
        if name != ".":
            # The value that is named in an error is the one without its last dot, as upstream.
            name = name.removesuffix(".")
            errors += invalid_for(f"{where}.searches[{index}]", name, dns1123_subdomain_with_underscores(name))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{where}.options[{index}]", "must not be empty"))
    return errors


def _host_aliases(path: str, aliases: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, alias in enumerate(aliases):
        ip = alias.get("ip") or ""
        if not is_ip(ip):
            errors += invalid_for(f"{path}[{index}].ip", ip, ip_text(ip))
        for at, name in enumerate(alias.get("hostnames") or ()):
            errors += invalid_for(f"{path}[{index}].hostnames[{at}]", name, dns1123_subdomain(name))
    return errors


# --- scheduling -----------------------------------------------------------------------------------------------------


def validate_tolerations(path: str, tolerations: list[Obj]) -> list[FieldError]:
    """Errors of a Pod's tolerations."""
    errors: list[FieldError] = []
    for index, toleration in enumerate(tolerations):
        where = f"{path}[{index}]"
        key, value = toleration.get("key") or "", toleration.get("value") or ""
        operator, effect = toleration.get("operator") or "", toleration.get("effect") or ""
        if key:
            errors += invalid_for(f"{where}.key", key, qualified_name(key))
        elif operator != "Exists":
            text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(invalid(f"{where}.operator", operator, text))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(invalid(f"{where}.effect", effect, text))
        if operator in ("Equal", ""):
            errors += invalid_for(f"{where}.operator", value, label_value(value))
        elif operator == "Exists":
            if value:
                text = "value must be empty when `operator` is 'Exists'"
                errors.append(invalid(f"{where}.operator", toleration, text))
        else:
            errors.append(not_supported(f"{where}.operator", operator, ("Equal", "Exists")))
        if effect:
            errors += one_of(f"{where}.effect", effect, ("NoExecute", "NoSchedule", "PreferNoSchedule"))
    return errors


def _spread(path: str, constraints: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, term in enumerate(constraints):
        where, key = f"{path}[{index}]", term.get("topologyKey") or ""
        action = term.get("whenUnsatisfiable") or ""
        if (term.get("maxSkew") or 0) <= 0:
            errors.append(invalid(f"{where}.maxSkew", term.get("maxSkew") or 0, "must be greater than zero"))
        if not key:
            errors.append(required(f"{where}.topologyKey", "can not be empty"))
        else:
            errors += invalid_for(f"{where}.topologyKey", key, qualified_name(key))
        errors += one_of(f"{where}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        if (key, action) in seen:
            errors.append(duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        seen.add((key, action))
        errors += label_selector(f"{where}.labelSelector", term.get("labelSelector"))
    return errors


# --- updates --------------------------------------------------------------------------------------------------------


def _update(spec: Obj, old: Obj) -> list[FieldError]:
    """A Pod keeps its spec, but for images, added tolerations, and shorter deadlines."""
    counts = [(len(spec.get(key) or ()), len(old.get(key) or ()), key) for key in ("containers", "initContainers")]
    for new_count, old_count, key in counts:
        if new_count != old_count:
            noun = "containers" if key == "containers" else "initContainers"
            return [forbidden(f"spec.{key}", f"pod updates may not add or remove {noun}")]
    errors = _deadline(spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"))
    errors += _tolerations_update(spec.get("tolerations") or [], old.get("tolerations") or [])
    errors += ephemeral_update(spec, old)
    expected = _with_allowed_changes(spec, old)
    if expected != spec:
        changed = sorted(key for key in {*expected, *spec} if expected.get(key) != spec.get(key))
        errors.append(forbidden("spec", f"{UPDATES}\n(changed: {', '.join(changed)})"))
    return errors


def _with_allowed_changes(spec: Obj, old: Obj) -> Obj:
    """The stored spec with everything taken from the new one that may differ."""
    expected: Obj = dict(old)
    for key in ("containers", "initContainers"):
        if key in old:
            pairs = zip(old[key] or (), spec.get(key) or (), strict=True)
            expected[key] = [{**mine, "image": theirs.get("image")} for mine, theirs in pairs]
    for key in ("activeDeadlineSeconds", "ephemeralContainers", "tolerations"):
        if key in spec:
            expected[key] = spec[key]
        else:
            expected.pop(key, None)
    old_grace = old.get("terminationGracePeriodSeconds")
    if isinstance(old_grace, int) and old_grace < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        expected["terminationGracePeriodSeconds"] = 1
    return expected


def _deadline(new: int | None, old: int | None) -> list[FieldError]:
    path = "spec.activeDeadlineSeconds"
    if new is not None and old is not None and new > old:
        return [invalid(path, new, f"must be less than or equal to previous value: {old}")]
    return immutable(path, new, old) if new is None and old is not None else []


def _tolerations_update(new: list[Obj], old: list[Obj]) -> list[FieldError]:
    def key(toleration: Obj) -> tuple[object, ...]:
        return tuple(toleration.get(part) or "" for part in ("key", "operator", "value", "effect"))

    # How long a taint is tolerated may change; that it is tolerated may not.
    if {key(toleration) for toleration in old} <= {key(toleration) for toleration in new}:
        return []
    text = "existing toleration can not be modified except its tolerationSeconds"
    return [forbidden("spec.tolerations", text)]

"""Volumes as directories under the Pod's sandbox directory: configMap, secret, projected, emptyDir, hostPath.

`plan` is pure: which files a volume holds. Downward API volumes become empty directories; the kubelet says so with an
event. While the Pod runs, contents follow their objects (`mounted.py`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from netemu.kubelet.env import Place, field_value
from netemu.kubelet.tokens import TokenAsk
from netemu.model.errors import UserError
from netemu.model.meta import decode
from netemu.model.pods import ConfigMapVolume, Container, KeyToPath, Pod, Volume
from netemu.runtime.cri import Mount

_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Held:
    """What the volumes of a Pod name: ConfigMaps and Secrets by name, key to contents, and tokens."""

    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    tokens: Mapping[TokenAsk, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """One volume: files to write below its directory, or a path of the host to use as it is."""

    name: str
    files: Mapping[str, tuple[bytes, int]] = field(default_factory=dict)
    """Relative path to contents and mode."""
    complete: bool = False
    """The volume holds these files and no others."""
    host_path: str = ""
    create: str = ""
    """`directory` or `file`: make the host path if it is missing."""
    ignored: str = ""
    """The kind of volume, where it is not supported and stays empty."""


def referenced(pod: Pod) -> tuple[set[str], set[str]]:
    """The ConfigMaps and Secrets that its volumes name."""
    maps = {volume.config_map.name for volume in pod.spec.volumes if volume.config_map}
    secrets = {volume.secret.secret_name for volume in pod.spec.volumes if volume.secret}
    for source in _projections(pod):
        maps |= {source["configMap"].get("name", "")} if "configMap" in source else set()
        secrets |= {source["secret"].get("name", "")} if "secret" in source else set()
    return maps, secrets


def asked_tokens(pod: Pod) -> set[TokenAsk]:
    """The tokens that its projected volumes hold."""
    return {_ask(source["serviceAccountToken"]) for source in _projections(pod) if "serviceAccountToken" in source}


def _projections(pod: Pod) -> list[dict[str, Any]]:
    return [one for volume in pod.spec.volumes if volume.projected for one in volume.projected.get("sources") or ()]


def _ask(source: Mapping[str, Any]) -> TokenAsk:
    return TokenAsk(source.get("audience", ""), source.get("expirationSeconds") or 3600)


def data_of(obj: Mapping[str, Any], *, secret: bool) -> dict[str, bytes]:
    """The keys of a plain ConfigMap or Secret."""
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    if secret:
        return {key: base64.b64decode(value) for key, value in data.items()}
    text = {key: value.encode() for key, value in data.items()}
    return text | {key: base64.b64decode(value) for key, value in binary.items()}


def plan(volume: Volume, held: Held, pod: Pod) -> VolumePlan:
    """What to make for one volume. Raises UserError for a ConfigMap, Secret or key that is missing."""
    if volume.config_map is not None:
        source = volume.config_map
        data = _found("configmap", source.name, held.config_maps, bool(source.optional))
        return VolumePlan(volume.name, _files(data, source.items, bool(source.optional), source.default_mode), True)
    if volume.secret is not None:
        secret = volume.secret
        data = _found("secret", secret.secret_name, held.secrets, bool(secret.optional))
        return VolumePlan(volume.name, _files(data, secret.items, bool(secret.optional), secret.default_mode), True)
    if volume.host_path is not None:
        kind = volume.host_path.type or ""
        create = {"DirectoryOrCreate": "directory", "FileOrCreate": "file"}.get(kind, "")
        return VolumePlan(volume.name, host_path=volume.host_path.path, create=create)
    if volume.empty_dir is not None:
        return VolumePlan(volume.name)
    if volume.projected is not None:
        return VolumePlan(volume.name, _projected(volume.projected, held, pod), True)
    return VolumePlan(volume.name, ignored="other" if volume.downward_api is None else "downwardAPI")


def _projected(projection: Mapping[str, Any], held: Held, pod: Pod) -> dict[str, tuple[bytes, int]]:
    """The files of every source in one directory; of two with one path the later one counts."""
    mode = projection.get("defaultMode")
    default = _MODE if mode is None else mode
    files: dict[str, tuple[bytes, int]] = {}
    for source in projection.get("sources") or ():
        for kind, objects in (("configMap", held.config_maps), ("secret", held.secrets)):
            if kind in source:
                one = decode(source[kind], ConfigMapVolume)
                data = _found(kind.lower(), one.name, objects, bool(one.optional))
                files |= _files(data, one.items, bool(one.optional), default)
        if token := source.get("serviceAccountToken"):
            files[token["path"]] = (held.tokens[_ask(token)], default)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            path = (item.get("fieldRef") or {}).get("fieldPath", "")
            own = default if item.get("mode") is None else item["mode"]
            files[item["path"]] = (field_value(pod, _NOWHERE, path).encode(), own)
    return files


_NOWHERE = Place("", ("",), ("",))
"""Volumes tell of a Pod's metadata only, which is the same everywhere."""


def materialise(plans: Sequence[VolumePlan], directory: Path) -> dict[str, str]:
    """Make the volumes below `directory`, or make them current; volume name to path of the host.

    A file is replaced whole, so that nobody reads half of one, and only if it is to hold something else.
    """
    places: dict[str, str] = {}
    for one in plans:
        place = Path(one.host_path) if one.host_path else directory / one.name
        places[one.name] = str(place)
        if not one.host_path or one.create == "directory":
            place.mkdir(parents=True, exist_ok=True)
        elif one.create == "file":
            place.touch()
        for path, (contents, mode) in one.files.items():
            _write(place / path, contents, mode)
        if one.complete:
            for found in [path for path in place.rglob("*") if not path.is_dir()]:
                if str(found.relative_to(place)) not in one.files:
                    found.unlink()
    return places


def _write(target: Path, contents: bytes, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.read_bytes() == contents and target.stat().st_mode & 0o7777 == mode:
        return
    fresh = target.with_name(f"..{target.name}")
    fresh.write_bytes(contents)
    fresh.chmod(mode)
    fresh.replace(target)


def mounts(container: Container, places: Mapping[str, str]) -> tuple[Mount, ...]:
    """Where a container sees the Pod's volumes."""
    found = []
    for mount in container.volume_mounts:
        if mount.name not in places:
            continue
        source = Path(places[mount.name], mount.sub_path) if mount.sub_path else Path(places[mount.name])
        found.append(Mount(container_path=mount.mount_path, host_path=str(source), readonly=mount.read_only))
    return tuple(found)


def _found(kind: str, name: str, held: Mapping[str, Mapping[str, bytes]], optional: bool) -> Mapping[str, bytes]:
    if name not in held and not optional:
        raise UserError(f'{kind} "{name}" not found')
    return held.get(name, {})


def _files(
    data: Mapping[str, bytes], items: Sequence[KeyToPath], optional: bool, mode: int | None
) -> dict[str, tuple[bytes, int]]:
    default = _MODE if mode is None else mode
    if not items:
        return {key: (contents, default) for key, contents in data.items()}
    files: dict[str, tuple[bytes, int]] = {}
    for item in items:
        if ".." in PurePosixPath(item.path).parts or item.path.startswith("/"):
            raise UserError(f"references non-existent path: {item.path}")
        if item.key in data:
            files[item.path] = (data[item.key], default if item.mode is None else item.mode)
        elif not optional:
            raise UserError(f"references non-existent config key: {item.key}")
    return files

"""What a `kubernetes` directive says (see `plugins/kubernetes.py`), read into settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from netemu.dns import names
from netemu.dns.corefile import Directive
from netemu.dns.objects import Options
from netemu.dns.plugin import Block, Fallthrough
from netemu.dns.store import Selection
from netemu.model.errors import NetemuError, UserError
from netemu.model.selectors import LabelSelector

if TYPE_CHECKING:
    from netemu.client.kubeconfig import Credentials

_PODS = ("disabled", "insecure", "verified")
_REFUSED = {
    "multicluster": "zones of other clusters are not served; leave the option out",
    "transfer": "transfers have a plugin of their own: `transfer ZONE { to ADDRESS }` beside kubernetes",
    "zonal": "answers by zone are not served; leave the option out",
}


@dataclass(slots=True)
class Settings:
    """The options of one directive."""

    records: Options
    selection: Selection = field(default_factory=Selection)
    falls: Fallthrough = field(default_factory=Fallthrough)
    credentials: Credentials | None = None
    """None: those of the command line or of the Pod."""
    _endpoint: str = ""
    _tls: tuple[str, ...] = ()


def read(directive: Directive, block: Block) -> Settings:
    """The settings of a directive. Raises UserError."""
    settings = Settings(Options(zones=directive.zones(directive.args) or block.zones))
    if settings.records.primary == names.ROOT and names.ROOT not in settings.records.zones:
        raise directive.error("kubernetes: needs a zone that is not a reverse zone, for example cluster.local")
    for option in directive.options:
        if option.name in _REFUSED:
            raise option.error(f"{option.name}: {_REFUSED[option.name]}")
        reader = _READERS.get(option.name)
        if reader is None:
            raise option.unknown(_READERS)
        reader(settings, option)
    if settings.records.namespaces and settings.selection.namespaces:
        raise directive.error("kubernetes: namespaces and namespace_labels exclude each other")
    _connect(settings, directive)
    return settings


def _connect(settings: Settings, directive: Directive) -> None:
    """`endpoint` and `tls` make credentials together; a kubeconfig has its own, and wins."""
    if not settings._endpoint:
        if settings._tls:
            raise directive.error("kubernetes: tls needs an endpoint")
        return
    if settings.credentials:
        return
    from netemu.client.kubeconfig import Credentials

    try:
        certificate, key, ca = [Path(name).read_text() for name in settings._tls] or ("", "", "")
    except OSError as error:
        raise directive.error(f"kubernetes: tls: {error.filename}: {error.strerror}") from error
    found = Credentials(settings._endpoint, ca=ca, client_certificate=certificate, client_key=key)
    try:
        found.check()
    except UserError as error:
        raise directive.error(f"kubernetes: {error}") from error
    settings.credentials = found


def _endpoint(settings: Settings, option: Directive) -> None:
    url = option.one("the URL of an API server").rstrip("/")
    settings._endpoint = url if "://" in url else f"http://{url}"


def _tls(settings: Settings, option: Directive) -> None:
    if len(option.args) != 3:
        raise option.error("tls: expected the files of a certificate, its key and a CA")
    settings._tls = option.args


def _kubeconfig(settings: Settings, option: Directive) -> None:
    if len(option.args) not in (1, 2):
        raise option.error("kubeconfig: expected FILE [CONTEXT]")
    from netemu.client.kubeconfig import load_kubeconfig

    try:
        settings.credentials = load_kubeconfig(*option.args)
    except UserError as error:
        raise option.error(str(error)) from error


def _selector(option: Directive) -> str:
    text = " ".join(option.args)
    try:
        LabelSelector.parse(text)
    except (ValueError, NetemuError) as error:
        raise option.error(f"{option.name}: {error}") from error
    if not text:
        raise option.error(f"{option.name}: expected a selector, for example app=web")
    return text


def _labels(settings: Settings, option: Directive) -> None:
    settings.selection = replace(settings.selection, labels=_selector(option))


def _namespace_labels(settings: Settings, option: Directive) -> None:
    settings.selection = replace(settings.selection, namespaces=_selector(option))


def _namespaces(settings: Settings, option: Directive) -> None:
    if not option.args:
        raise option.error("namespaces: expected at least one name")
    shown = settings.records.namespaces | {name.encode() for name in option.args}
    settings.records = replace(settings.records, namespaces=shown)


def _pods(settings: Settings, option: Directive) -> None:
    mode = option.one("one of " + ", ".join(_PODS))
    if mode not in _PODS:
        raise option.error(f"pods: {mode!r} is none of {', '.join(_PODS)}")
    settings.records = replace(settings.records, pods=mode)


def _endpoint_pod_names(settings: Settings, option: Directive) -> None:
    option.none()
    settings.records = replace(settings.records, endpoint_pod_names=True)


def _noendpoints(settings: Settings, option: Directive) -> None:
    option.none()
    settings.selection = replace(settings.selection, endpoints=False)


def _ignore(settings: Settings, option: Directive) -> None:
    if option.args != ("empty_service",):
        raise option.error("ignore: expected empty_service")
    settings.records = replace(settings.records, ignore_empty_service=True)


def _ttl(settings: Settings, option: Directive) -> None:
    settings.records = replace(settings.records, ttl=option.number(0, 3600))


def _fallthrough(settings: Settings, option: Directive) -> None:
    settings.falls = Fallthrough(option)


def _duration(_: Settings, option: Directive) -> None:
    option.duration()


def _limit(_: Settings, option: Directive) -> None:
    option.number(0, 2**31)


_READERS: dict[str, Callable[[Settings, Directive], None]] = {
    "endpoint": _endpoint,
    "tls": _tls,
    "kubeconfig": _kubeconfig,
    "namespaces": _namespaces,
    "namespace_labels": _namespace_labels,
    "labels": _labels,
    "pods": _pods,
    "endpoint_pod_names": _endpoint_pod_names,
    "noendpoints": _noendpoints,
    "ignore": _ignore,
    "ttl": _ttl,
    "fallthrough": _fallthrough,
    "startup_timeout": _duration,
    "resyncperiod": _duration,
    "apiserver_qps": _limit,
    "apiserver_burst": _limit,
    "apiserver_max_inflight": _limit,
}

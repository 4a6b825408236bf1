"""Components run alone, as their namesakes do: they share nothing with a lab but the API."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import typer


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s %(message)s"
    )


def proxy(config: Path | None, *, hostname_override: str, cleanup: bool, init_only: bool) -> None:
    """`netemu proxy`."""
    from netemu.cli.root import need_root
    from netemu.proxy.standalone import clean_up, run_standalone

    if not config and not cleanup:
        raise typer.BadParameter(
            "a KubeProxyConfiguration file is needed, except with --cleanup", param_hint="--config"
        )
    need_root()
    _log_to_stderr()
    if config and not cleanup:
        asyncio.run(run_standalone(config, hostname_override=hostname_override, init_only=init_only))
    else:
        asyncio.run(clean_up(config))


def dns(conf: Path, kubeconfig: Path | None, faults: str, node_local: str) -> None:
    """`netemu dns`."""
    from netemu.dns.node_local import parse_addresses
    from netemu.dns.server import run

    namespace, _, name = faults.partition("/")
    if faults and not (namespace and name):
        raise typer.BadParameter(f"--faults {faults}: must be NAMESPACE/NAME of a ConfigMap")
    _log_to_stderr()
    # Upstream's way to tell a Pod who it is, by the downward API.
    pod = (os.environ.get("POD_NAMESPACE", ""), os.environ.get("POD_NAME", ""))
    own = parse_addresses(node_local) if node_local else ()
    asyncio.run(run(conf, kubeconfig, (namespace, name) if faults else None, pod if all(pod) else None, own))

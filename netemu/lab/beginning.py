"""What a control plane needs before it can begin: the lab's port on the host, and certificates.

The control plane makes it when it starts; `netemu up` does so before, where members and their etcd would wait for it.
"""

from __future__ import annotations

import contextlib
import socket

import msgspec

from netemu.lab import etcd_pki, pki
from netemu.lab.config import API_PORT, LabConfig, save_config
from netemu.lab.paths import LabPaths
from netemu.model.errors import UserError

_PORTS = 1000


def prepare(config: LabConfig) -> tuple[socket.socket | None, LabConfig]:
    """Find the port and make what is missing; the socket of a control plane that has the port for itself.

    Raises UserError where no port is free, OSError where somebody else has the lab's.
    """
    listener, config = _on_host(config)
    if config.etcd_members:
        etcd_pki.ensure(LabPaths(config.name).pki, etcd_pki.hosts_of(config), config.certificate_validity)
    pki.service_account_key(config.name)
    pki.ensure_pki(config)
    return listener, config


def _on_host(config: LabConfig) -> tuple[socket.socket | None, LabConfig]:
    """Listen on the lab's port: at the first start the first that is free, which it keeps from then on.

    Members that will share it only find it: a connection must not wait for one that does not serve yet while others do.
    """
    shared = config.etcd_members > 0
    if config.api_port:
        return None if shared else listen(config.api_port), config
    for port in range(API_PORT, API_PORT + _PORTS):
        with contextlib.suppress(OSError):
            listener = listen(port)
            config = msgspec.structs.replace(config, api_port=port)
            save_config(config)
            if not shared:
                return listener, config
            listener.close()
            return None, config
    raise UserError(f"no free port on 127.0.0.1 from {API_PORT} to {API_PORT + _PORTS - 1} for the API server")


def listen(port: int, *, shared: bool = False) -> socket.socket:
    """Listen on a port of the host's 127.0.0.1, alone or with others that share it. Raises OSError."""
    return socket.create_server(("127.0.0.1", port), backlog=128, reuse_port=shared)

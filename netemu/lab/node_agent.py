"""The node agent process of a lab: the network, and kubelet and kube-proxy of every node on this machine.

Everything it makes lives in namespaces and on disk, so that it can be killed and started again: `underlay.build`
finds what is there, kubelets adopt running Pods, proxies find their rules.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from typing import Any

from netemu.client import HttpClient, load_kubeconfig
from netemu.kubelet.kubelet import Kubelet
from netemu.lab.config import LabConfig, load_config
from netemu.lab.paths import LabPaths
from netemu.lab.process import exists, run
from netemu.network import names, underlay
from netemu.network.pods import PodNetwork
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.server import ProxyServer

log = logging.getLogger(__name__)


async def node_agent(lab: str) -> None:
    """Run every node of a lab until cancelled."""
    raise NotImplementedError

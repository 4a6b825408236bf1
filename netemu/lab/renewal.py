"""The lab's certificates, renewed before they end (`client.rotation`).

One member of the control plane has the lab's authority, and etcd's, sign the next ones and puts them into the place of
those before; whoever uses them sees that the files are new. Kubelets' certificates are not among them, since kubelets
ask for these.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from netemu.client.rotation import renewal
from netemu.lab import etcd_pki, pki
from netemu.lab.authority import Authority
from netemu.lab.config import LabConfig
from netemu.lab.paths import LabPaths

log = logging.getLogger(__name__)

_PAUSE = 60.0
_LONGEST = 24 * 3600.0
"""Seconds that the clock is trusted to go on as it does."""


async def keep_certificates(
    config: LabConfig,
    authority: Authority,
    *,
    now: Callable[[], float] = time.time,
    dice: Callable[[], float] = random.random,
) -> None:
    """Renew what the authority has signed, and etcd's own, in time, until cancelled."""
    ours = [(each, authority) for each in pki.issued(config) if not each.renews_itself]
    if config.etcd_members:
        folder = LabPaths(config.name).pki
        etcd = etcd_pki.authority(folder, config.certificate_validity)
        ours += [(each, etcd) for each in etcd_pki.issued(folder, etcd_pki.hosts_of(config))]
    due = {each.path: renewal(each.certificate, dice) for each, _ in ours}
    while True:
        await asyncio.sleep(min(_LONGEST, max(0.0, min(due.values()) - now())))
        for each, signer in ours:
            if due[each.path] > now():
                continue
            try:
                await asyncio.to_thread(each.issue, config.name, signer)
                due[each.path] = renewal(each.certificate, dice)
                log.info("renewed %s", each.path.name)
            except OSError as error:  # a full disk must not stop the control plane
                due[each.path] = now() + _PAUSE
                log.error("%s is not renewed: %s; again in %.0f s", each.path.name, error.strerror, _PAUSE)

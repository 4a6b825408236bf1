"""When a ServiceCIDR may go, and what it says until then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from netemu import controllers
from netemu.controllers import servicecidrs
from netemu.controllers.actions import Again, Patch
from netemu.controllers.servicecidrs import FINALIZER, reconcile
from netemu.model.meta import decode
from netemu.model.objects import ServiceCIDR
from netemu.model.resources import IPADDRESSES, SERVICECIDRS
from netemu.testing.client import FakeClient
from netemu.testing.cluster import running, until

NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
READY = {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready"}
IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


def cidr(
    name: str, *networks: str, deleted: str = "", ready: Any = READY, finalizers: Any = (FINALIZER,)
) -> ServiceCIDR:
    meta: dict[str, Any] = {"name": name, "finalizers": list(finalizers)}
    if deleted:
        meta["deletionTimestamp"] = deleted
    status = {"conditions": [ready]} if ready else {}
    return decode({"metadata": meta, "spec": {"cidrs": list(networks)}, "status": status}, ServiceCIDR)


def patches(actions: Any) -> list[Any]:
    return [action.patch for action in actions if isinstance(action, Patch)]


def test_a_new_one_gets_its_finalizer_and_is_ready() -> None:
    new = cidr("more", "10.97.0.0/24", ready=None, finalizers=())

    finalizer, status = patches(reconcile(new, [new], [], NOW))

    assert finalizer == {"metadata": {"finalizers": [FINALIZER]}}
    assert status["status"]["conditions"] == [{**READY, "lastTransitionTime": "2026-01-01T12:00:30Z"}]


def test_one_that_is_ready_is_left_alone() -> None:
    assert reconcile(cidr("more", "10.97.0.0/24"), [], ["10.97.0.9"], NOW) == []


@pytest.mark.parametrize(
    ("others", "ips", "goes"),
    [
        pytest.param([], [], True, id="no address of it is in use"),
        pytest.param([], ["10.97.0.9"], False, id="an address of it is in use"),
        pytest.param([], ["10.96.0.9"], True, id="addresses of others are in use"),
        pytest.param([cidr("wide", "10.97.0.0/16")], ["10.97.0.9"], True, id="a wider one has its addresses too"),
        pytest.param([cidr("same", "10.97.0.0/24")], ["10.97.0.9"], True, id="an equal one has its addresses too"),
        pytest.param([cidr("part", "10.97.0.0/28")], ["10.97.0.9"], True, id="a part of it has that address"),
        pytest.param([cidr("part", "10.97.0.0/28")], ["10.97.0.99"], False, id="a part of it has others only"),
    ],
)
def test_what_keeps_one_from_going(others: list[ServiceCIDR], ips: list[str], goes: bool) -> None:
    going = cidr("more", "10.97.0.0/24", deleted="2026-01-01T12:00:00Z")

    (patch,) = patches(reconcile(going, [going, *others], ips, NOW))

    if goes:
        assert patch == {"metadata": {"finalizers": None}}
    else:
        (condition,) = patch["status"]["conditions"]
        assert (condition["status"], condition["reason"], condition["message"]) == ("False", "Terminating", IN_USE)


def test_it_goes_ten_seconds_after_it_was_deleted() -> None:
    going = cidr("more", "10.97.0.0/24", deleted="2026-01-01T12:00:24Z")

    assert reconcile(going, [going], [], NOW) == [Again(4.0)]


@pytest.mark.looptime
async def test_the_last_address_lets_it_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicecidrs, "_GRACE", timedelta(0))  # counted by the clock, which does not hurry here
    client = FakeClient()
    labels = {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}

    def left() -> Any:
        found = client.stored(SERVICECIDRS)
        return found[0] if found else None

    async with running(controllers.run(client)):
        await client.create(SERVICECIDRS, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}})
        await client.create(IPADDRESSES, {"metadata": {"name": "10.97.0.9", "labels": labels}, "spec": {}})
        await until(client, lambda: left()["metadata"].get("finalizers") == [FINALIZER])
        await client.delete(SERVICECIDRS, "more")
        await until(client, lambda: left()["status"]["conditions"][0]["reason"] == "Terminating")
        await client.delete(IPADDRESSES, "10.97.0.9")
        await until(client, lambda: left() is None)

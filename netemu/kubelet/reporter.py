"""Sends a Pod's status when it differs from what was sent last: a merge patch of the fields that changed."""

from __future__ import annotations

from netemu.client.base import Client, Obj
from netemu.kubelet.status import PodView, changes, pod_status
from netemu.model.meta import decode
from netemu.model.pods import Pod
from netemu.model.resources import PODS


class Reporter:
    """For one Pod."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sent: Obj = {}
        self.phase = ""
        """The phase sent last."""

    async def send(self, view: PodView) -> Pod | None:
        """Tell the API; the Pod as it is then, or None if there was nothing to tell. Raises ApiError."""
        status = pod_status(view)
        patch = changes(self._sent, status)
        if not patch:
            return None
        # The uid makes sure that a Pod of the same name that came after is not taken for this one.
        body: Obj = {"metadata": {"uid": view.pod.metadata.uid}, "status": patch}
        if view.pod.spec.readiness_gates:
            # Others write conditions too, and a merge patch replaces the whole list: only on the newest version.
            body["metadata"]["resourceVersion"] = view.pod.metadata.resource_version
        answer = await self._client.patch(PODS, view.pod.name, body, view.pod.namespace, subresource="status")
        self._sent, self.phase = status, status["phase"]
        return decode(answer, Pod)

"""The API server of a lab, for short-lived commands of root on this machine.

A command that asks one question should not load a whole asynchronous client first (0.4 s): this asks over the lab's
own socket with the standard library. Components use `netemu.client`.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from netemu.lab.paths import LabPaths
from netemu.model.errors import ApiError, NotFound, UserError
from netemu.model.resources import Resource


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, paths: Sequence[Path], timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._paths = paths

    def connect(self) -> None:
        """Connect to the first API server that lives."""
        problem: OSError = FileNotFoundError(errno.ENOENT, "it is not there yet")
        for path in self._paths:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(str(path))
            except OSError as error:
                self.sock.close()
                problem = error
            else:
                return
        raise problem


class LabApi:
    """Blocking requests. Raises ApiError, and UserError where the lab does not answer."""

    def __init__(self, lab: str, *, timeout: float = 10.0) -> None:
        self.lab, self._paths, self._timeout = lab, LabPaths(lab), timeout

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> Any:
        """One request, the body of a PATCH a merge patch; the JSON of the answer."""
        sent = None if body is None else json.dumps(body)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {} if body is None else {"Content-Type": kind}
        connection = _UnixConnection(self._paths.api_sockets, self._timeout)
        try:
            connection.request(method, path + (f"?{urlencode(query)}" if query else ""), sent, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"lab {self.lab}: its API server does not answer ({error}); see `netemu status`") from error
        finally:
            connection.close()
        if "json" not in response.headers.get("Content-Type", ""):
            return answer.decode()
        value = json.loads(answer)
        if response.status >= 400:
            raise ApiError.of(value)
        return value

    def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        """One object. Raises NotFound."""
        answer: dict[str, Any] = self.request("GET", resource.path(namespace, name))
        return answer

    def merge_patch(self, resource: Resource, name: str, patch: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        """Change part of an object; None removes. Raises NotFound."""
        answer: dict[str, Any] = self.request("PATCH", resource.path(namespace, name), patch)
        return answer

    def create(self, resource: Resource, obj: dict[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create an object. Raises AlreadyExists, Invalid."""
        answer: dict[str, Any] = self.request("POST", resource.path(namespace), obj)
        return answer

    def delete(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Ask for the end of an object. Raises NotFound."""
        self.request("DELETE", resource.path(namespace, name))

    def there(self, resource: Resource, name: str, namespace: str = "") -> bool:
        """Whether there is such an object."""
        try:
            self.get(resource, name, namespace)
        except NotFound:
            return False
        return True

    def list(self, resource: Resource, namespace: str = "", **query: str) -> tuple[list[dict[str, Any]], str]:
        """Objects and the revision of the list."""
        answer = self.request("GET", resource.path(namespace), None, **query)
        return answer.get("items") or [], answer["metadata"].get("resourceVersion", "")


def agent_status(lab: str) -> dict[str, Any]:
    """What the node agent says of its nodes, `{"nodes": {NAME: {...}}}`; empty while it is away."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(LabPaths(lab).agent_socket))
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
        except OSError:
            return {}
    status: dict[str, Any] = json.loads(b"".join(chunks) or b"{}")
    return status

"""A gRPC health check over HTTP/2 (grpc.health.v1.Health/Check), as `grpc` probes send it."""

from __future__ import annotations

import asyncio
import struct

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_STREAM = 1


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str) -> str:
    """What is wrong with the service; empty if it is SERVING. Raises OSError."""
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    h2.initiate_connection()
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    h2.send_headers(
        _STREAM,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", "probe"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "kube-probe/1.32"),
        ],
    )
    h2.send_data(_STREAM, struct.pack(">BI", 0, len(message)) + message, end_stream=True)
    writer.write(h2.data_to_send())
    answer = _Answer()
    while not answer.ended:
        data = await reader.read(16384)
        if not data:
            return "connection closed before the health check was answered"
        try:
            for event in h2.receive_data(data):
                answer.take(event)
        except ProtocolError as error:
            return f"not an HTTP/2 server: {error}"
        writer.write(h2.data_to_send())
    return answer.problem()


class _Answer:
    """What came back so far."""

    def __init__(self) -> None:
        self.ended = False
        self._headers: dict[str, str] = {}
        self._data = b""

    def take(self, event: Event) -> None:
        """One event of the stream."""
        match event:
            case ResponseReceived(headers=headers) | TrailersReceived(headers=headers) if headers is not None:
                self._headers |= {str(name): str(value) for name, value in headers}
            case DataReceived(data=bytes(data)):
                self._data += data
            case StreamEnded() | StreamReset() | ConnectionTerminated():
                self.ended = True

    def problem(self) -> str:
        """Empty if the answer is SERVING."""
        status = self._headers.get("grpc-status", "")
        if status == "12":
            return "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        if status not in ("", "0"):
            return f"error: health rpc probe failed: status {status} {self._headers.get('grpc-message', '')}".rstrip()
        message = self._data[5:]
        # Field 1, a varint below 128: the only thing a HealthCheckResponse holds; absent means 0.
        serving = message[1] if len(message) >= 2 and message[0] == 8 else 0
        return "" if serving == 1 else f"service unhealthy (responded with {_STATUSES.get(serving, str(serving))!r})"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])

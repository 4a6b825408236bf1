"""HTTP/2 with prior knowledge, for gRPC health checks (grpc.health.v1) and a plain answer to everything else.

The h2 library keeps the protocol's state; it is imported with this module, which `tcp` imports when the first HTTP/2
connection arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from netemu.runtime.servers.http1 import Request, Response

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SERVING = b"\x00\x00\x00\x00\x02\x08\x01"
"""A gRPC frame (uncompressed, two bytes) with HealthCheckResponse{status: SERVING}."""
_UNIMPLEMENTED = "12"
_KEPT_BODY = 1024 * 1024


@dataclass(slots=True)
class _Stream:
    request: Request
    body: bytearray = field(default_factory=bytearray)


class Http2Server:
    """One connection. `answer` serves requests that are not gRPC."""

    def __init__(self, write: Callable[[bytes], None], answer: Callable[[Request], Response]) -> None:
        self._write, self._answer = write, answer
        self._streams: dict[int, _Stream] = {}
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._write(self._h2.data_to_send())

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._streams

    def receive(self, data: bytes) -> bool:
        """Bytes of the client; False if the connection is beyond repair."""
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
        except ProtocolError:
            self._write(self._h2.data_to_send())
            return False
        self._write(self._h2.data_to_send())
        return True

    def _handle(self, event: object) -> None:
        match event:
            case RequestReceived(stream_id=int(number), headers=headers) if headers is not None:
                fields = {str(name): str(value) for name, value in headers}
                plain = [(name, value) for name, value in fields.items() if not name.startswith(":")]
                request = Request(fields[":method"], fields[":path"], plain, version="HTTP/2")
                self._streams[number] = _Stream(request)
            case DataReceived(stream_id=int(number), data=bytes(data), flow_controlled_length=int(length)):
                self._h2.acknowledge_received_data(length, number)
                if (stream := self._streams.get(number)) is not None and len(stream.body) < _KEPT_BODY:
                    stream.body += data
            case StreamEnded(stream_id=int(number)):
                if (stream := self._streams.pop(number, None)) is not None:
                    self._respond(number, stream)
            case StreamReset(stream_id=int(number)):
                self._streams.pop(number, None)

    def _respond(self, number: int, stream: _Stream) -> None:
        request = stream.request
        if request.header("content-type").startswith("application/grpc"):
            self._respond_grpc(number, request.target)
            return
        response = self._answer(
            Request(request.method, request.target, request.headers, bytes(stream.body), request.version)
        )
        # A response longer than the client's window would need flow control; ours are short, and cut if not.
        body = b"" if request.method == "HEAD" else response.body[: self._h2.local_flow_control_window(number)]
        headers = [
            (":status", str(response.status)),
            *((name.lower(), value) for name, value in response.headers),
            ("content-type", response.content_type),
            ("content-length", str(len(body))),
        ]
        self._h2.send_headers(number, headers, end_stream=not body)
        for start in range(0, len(body), self._h2.max_outbound_frame_size):
            part = body[start : start + self._h2.max_outbound_frame_size]
            self._h2.send_data(number, part, end_stream=start + len(part) == len(body))

    def _respond_grpc(self, number: int, path: str) -> None:
        headers = [(":status", "200"), ("content-type", "application/grpc")]
        if path != "/grpc.health.v1.Health/Check":
            # "Trailers-only": gRPC's shape of an error without any message.
            message = ("grpc-message", "an emulated image serves no method but health checks")
            self._h2.send_headers(number, [*headers, ("grpc-status", _UNIMPLEMENTED), message], end_stream=True)
            return
        self._h2.send_headers(number, headers)
        self._h2.send_data(number, _SERVING)
        self._h2.send_headers(number, [("grpc-status", "0")], end_stream=True)

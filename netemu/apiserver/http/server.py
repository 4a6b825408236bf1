"""The HTTPS front end of the API server.

One handler takes every request: authenticate, find out what the URL names, authorise, hand over to the handlers of
resources, reviews or documents, and turn whatever they raise into a `Status`. Sockets come already opened, because some
of them were opened in another network namespace. A request's handler is cancelled when its client leaves, and `close`
ends open watches first, so that neither a dead client nor a live one delays the end.
"""

from __future__ import annotations

import logging
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from netemu.apiserver.admission import REQUESTER
from netemu.apiserver.auth.audit import AUDIT_HEADER, AUDIT_ID, COMPLETE, RECEIVED, AuditLog
from netemu.apiserver.auth.authentication import AllowAuthenticated, Attributes, Authorizer, User, forbidden_message
from netemu.apiserver.auth.authenticator import ALLOWED_BY, REFUSED_FOR, Authenticator
from netemu.apiserver.auth.bootstrap_tokens import BootstrapTokens
from netemu.apiserver.auth.service_accounts import TOKEN_REQUESTS, ServiceAccountTokens
from netemu.apiserver.http.bodies import Bodies, FieldValidation
from netemu.apiserver.http.connect import ConnectHandlers, connects
from netemu.apiserver.http.handlers import ResourceHandlers
from netemu.apiserver.http.handlers_meta import ALWAYS_ALLOWED, MetaHandlers
from netemu.apiserver.http.handlers_reviews import REVIEWS, answer
from netemu.apiserver.http.reach import Reach
from netemu.apiserver.http.responses import (
    RequestEntityTooLarge,
    as_people_read_it,
    compressed,
    error_response,
    json_response,
)
from netemu.apiserver.http.routing import Target, attributes, missing, parse_path, verb_of
from netemu.apiserver.http.watching import Watches
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.model import times
from netemu.model.errors import ApiError, BadRequest, Forbidden, InternalError, MethodNotAllowed, ServiceUnavailable
from netemu.model.resources import SERVICEACCOUNTS
from netemu.model.uids import new_uid

log = logging.getLogger(__name__)

_BODY = 3 * 2**20
"""Bytes of a request body; upstream's limit."""
_LINE = 64 * 1024
"""Bytes of the request line and of one header: long selectors and tokens."""
_RECEIVED = 32 * 1024
"""Bytes that a TLS connection keeps room for, two records; asyncio's 256 KiB add up where thousands watch."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REVIEWS = frozenset(REVIEWS)
_GOODBYE = 0.2
"""Seconds that requests under way get at the end."""


class ApiServer:
    """Serves a registry over HTTPS (or, without `tls`, in clear to trusted callers)."""

    def __init__(
        self,
        registry: Registry,
        schema: Schema,
        *,
        authorizer: Authorizer | None = None,
        tokens: ServiceAccountTokens | None = None,
        reach: Reach | None = None,
        audit: AuditLog | None = None,
        metrics: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`authorizer`: default: whoever is known may do everything. `tokens`: those of service accounts, without which
        nobody is known by a token. `reach`: how it connects to kubelets, Pods and Services; default: as this process
        does. `audit`: where requests are told. `metrics`: more lines for Prometheus."""
        self._audit = audit
        self._reach = reach or Reach()
        self._authorizer, self._tokens = authorizer or AllowAuthenticated(), tokens
        self._bootstrap = BootstrapTokens(registry)
        self._authenticator = Authenticator(self._authorizer, tokens, self._bootstrap)
        self._served = registry.served
        self._served.add_builtin(REVIEWS)
        self.watches = Watches()
        """The watches that are open."""
        self._resources = ResourceHandlers(registry, schema, self.watches)
        self._connects = ConnectHandlers(registry, self._reach)
        self._bodies, self._schema = Bodies(schema), schema
        documents = tokens.documents() if tokens else {}
        self._meta = MetaHandlers(schema, self._served, lambda: self._runner is not None, documents, metrics)
        self._runner: web.AppRunner | None = None

    async def start(
        self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        """Serve on bound sockets, wherever they were opened; they are closed with the server.

        May be called again for more sockets, with other TLS or none. What comes back closes these alone; connections
        that are open stay.
        """
        SSLProtocol.max_size = _RECEIVED
        if self._runner is None:
            self._runner = await self._start_runner()
        sites = [web.SockSite(self._runner, sock, ssl_context=tls, backlog=1024) for sock in sockets]
        for site in sites:
            await site.start()
        log.info("serving on %s", ", ".join(_address(sock) for sock in sockets))

        async def stop() -> None:
            for site in sites:
                await site.stop()

        return stop

    async def _start_runner(self) -> web.AppRunner:
        app = web.Application(client_max_size=_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        app.on_response_prepare.append(_name_audit)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,
            shutdown_timeout=_GOODBYE,
            max_line_size=_LINE,
            max_field_size=_LINE,
        )
        await runner.setup()
        return runner

    async def close(self) -> None:
        """Stop at once: watches end cleanly, requests under way get a moment."""
        runner, self._runner = self._runner, None
        self.watches.close()
        if runner is not None:
            await runner.cleanup()
        await self._reach.close()
        if self._audit:
            self._audit.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """The one route. Never raises an ApiError."""
        wanted = Attributes(request.method.lower() if request.method in _METHODS else "other")
        response: web.StreamResponse
        failure: ApiError | None = None
        began = times.micro_now()
        request[AUDIT_ID] = request.headers.get(AUDIT_HEADER) or new_uid()
        try:
            path = request.rel_url.raw_path.rstrip("/")
            target = parse_path(path, self._served.by_path)
            if target is None:
                wanted = replace(wanted, path=path)
                response = self._document(request, path, wanted)
            else:
                verb = verb_of(request.method, target, request.query)
                wanted = attributes(verb, target, request.query)
                user = self._authorized(request, wanted)
                if await self._resources.would_create(request, verb, target):
                    self._authorized(request, replace(wanted, verb="create"))
                REQUESTER.set(user)
                if self._audit and (verb == "watch" or connects(target)):
                    self._audit.record(request, wanted, RECEIVED, began)
                response = await self._resource(verb, request, target, user)
        except ApiError as error:
            response, failure = error_response(error), error
            if isinstance(error, ServiceUnavailable):
                response.force_close()  # a client that connects again may find a server that can
        except web.HTTPRequestEntityTooLarge:
            response = error_response(RequestEntityTooLarge(f"Request entity too large: limit is {_BODY}"))
        except (web.RequestPayloadError, BadHttpMessage) as error:
            response = error_response(BadRequest(f"the body of the request cannot be read: {error}"))
        except Exception as error:
            log.exception("%s %s", request.method, request.raw_path)
            response = error_response(InternalError(f"Internal error occurred: {error}"))
        if self._audit and (wanted.verb != "watch" or response.status >= 400):
            self._audit.record(request, wanted, COMPLETE, began, response.status, failure)
        known = wanted.subresource and any(wanted.subresource in resource.subresources for resource in self._served)
        labels = (
            wanted.verb.upper(), wanted.group, wanted.version, wanted.resource, wanted.subresource if known else "",
        )  # fmt: skip
        self._meta.requests[*labels, response.status] += 1
        return await compressed(request, as_people_read_it(request, response))

    def _document(self, request: web.Request, path: str, wanted: Attributes) -> web.StreamResponse:
        self._authorized(request, wanted)
        if request.method in ("GET", "HEAD"):
            response = self._meta.handle(request, path)
            if response is not None:
                return response
        raise missing(path)

    async def _resource(self, verb: str, request: web.Request, target: Target, user: User) -> web.StreamResponse:
        if connects(target):
            return await self._connects.handle(verb, request, target)
        token = self._tokens is not None and (target.resource, target.subresource) == (SERVICEACCOUNTS, "token")
        if target.resource not in _REVIEWS and not token:
            return await self._resources.handle(verb, request, target)
        if verb != "create" or (target.name and not token):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        content_type = request.headers.get("Content-Type", "")
        asked = self._bodies.read(target, await request.read(), content_type, FieldValidation("Ignore"))
        if token and self._tokens is not None:
            asked = self._schema.decoded(TOKEN_REQUESTS, asked)
            return json_response(self._tokens.create(target.name, target.namespace, asked, user), 201)
        asked = self._schema.decoded(target.resource, asked)
        return json_response(answer(target, asked, user, self._authorizer, self._tokens, self._bootstrap.user), 201)

    def _authorized(self, request: web.Request, wanted: Attributes) -> User:
        """Who asks, if they may. Raises Unauthorized, Forbidden."""
        user = self._authenticator.user(request)
        always = wanted.path in ALWAYS_ALLOWED
        why = request[ALLOWED_BY] = "always allowed" if always else self._authorizer.why(user, wanted)
        if not why:
            named = {"name": wanted.name, "group": wanted.group, "kind": wanted.resource}
            reason = request[REFUSED_FOR] = self._authorizer.refusal(user, wanted)
            details = {key: value for key, value in named.items() if value}
            raise Forbidden(forbidden_message(user, wanted, reason), details)
        return user


async def _name_audit(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer tells under which number it stands in the audit log."""
    if number := request.get(AUDIT_ID):
        response.headers[AUDIT_HEADER] = number


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)

"""Every route of the box, on one page."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.appliance import Appliance
from appliance.core.chat import BackendError, Dialect, Fault, Headers
from appliance.dialects.openai_chat import OPENAI
from appliance.guard.host import admit, is_json
from appliance.server.body import BODY_LIMIT, BodyTooLarge, ClientGone, read_body
from appliance.server.respond import AnswerResponse

log = logging.getLogger("appliance.server")


def build(appliance: Appliance) -> ASGIApp:
    """The whole service as an ASGI application; its lifespan starts and stops the appliance."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        await appliance.start()
        try:
            yield
        finally:
            await appliance.aclose()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    async def chat_completions(request: Request) -> Response:
        return await _chat(appliance, OPENAI, request)

    async def list_models(_: Request) -> Response:
        listed = [_model(name) for name in await appliance.models()]
        return JSONResponse({"object": "list", "data": listed})

    async def get_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in await appliance.models():
            error = BackendError(
                Fault.REQUEST, f"There is no model {name[:100]!r} here.", status=404, code="model_not_found"
            )
            return _refusal(OPENAI, error)
        return JSONResponse(_model(name))

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        serving = appliance.serving
        if serving is None:
            return JSONResponse({"status": appliance.engine.state}, status_code=503, headers={"retry-after": "1"})
        return JSONResponse({"status": "ok", "serving": serving})

    async def status(_: Request) -> Response:
        return JSONResponse(await appliance.status())

    async def reset(request: Request) -> Response:
        try:
            wanted = json.loads(await read_body(request.receive) or b"{}")
            upstream = wanted.get("upstream")
        except (ValueError, AttributeError, RecursionError):
            return _refusal(OPENAI, BackendError(Fault.REQUEST, 'The body must be JSON like {"upstream": null}.'))
        try:
            return JSONResponse({"closed": appliance.reset(upstream)})
        except (KeyError, TypeError):
            error = BackendError(Fault.REQUEST, f"There is no upstream {str(upstream)[:100]!r} here.", status=404)
            return _refusal(OPENAI, error)

    async def root(_: Request) -> Response:
        return Response("The fallback appliance is running. Point an OpenAI client at /v1.\n", media_type="text/plain")

    app.add_route("/v1/chat/completions", chat_completions, methods=["POST"])
    app.add_route("/v1/models", list_models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", get_model, methods=["GET"])
    app.add_route("/healthz", healthz, methods=["GET"])
    app.add_route("/readyz", readyz, methods=["GET"])
    app.add_route("/appliance/status", status, methods=["GET"])
    app.add_route("/appliance/reset", reset, methods=["POST"])
    app.add_route("/", root, methods=["GET"])
    app.add_exception_handler(HTTPException, _no_such_route)
    app.add_exception_handler(Exception, _internal)
    server = appliance.config.server
    if server.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(server.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[
                "x-appliance-served-by",
                "x-appliance-request-id",
                "x-appliance-fallback",
                "x-appliance-degraded",
            ],
        )
    return Doorkeeper(app, own_names=frozenset({server.host}), origins=frozenset(server.origins))


async def _chat(appliance: Appliance, dialect: Dialect, request: Request) -> Response:
    """A chat request in `dialect`, from bytes to an answer on its way."""
    id = f"chatcmpl-{secrets.token_hex(12)}"
    headers: Headers = tuple((name.lower(), value) for name, value in request.headers.items())
    try:
        parsed = dialect.parse(await read_body(request.receive), headers)
        answer = appliance.answer(parsed, id=id, wish=request.headers.get("x-appliance-route", "auto").strip().lower())
    except ClientGone:
        return Response(status_code=499)
    except BodyTooLarge:
        message = f"The body is larger than {BODY_LIMIT} bytes."
        return _refusal(dialect, BackendError(Fault.REQUEST, message, status=413), id)
    except BackendError as error:
        return _refusal(dialect, error, id)
    return AnswerResponse(answer, parsed, dialect)  # type: ignore[return-value]  # any ASGI callable will do


def _refusal(dialect: Dialect, error: BackendError, id: str | None = None) -> Response:
    reply = dialect.encode_error(error)
    response = Response(reply.body, status_code=reply.status)
    for name, value in reply.headers:
        response.headers[name] = value
    if id is not None:
        response.headers["x-appliance-request-id"] = id
    return response


def _kinds(error: BaseException) -> str:
    """The names of an exception's type, and of those in its group."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_kinds(one) for one in error.exceptions)
    return type(error).__name__


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "appliance"}


async def _drain(receive: Receive) -> None:
    """Whoever still sends does not hear a refusal: read on and throw away."""
    with suppress(BodyTooLarge, ClientGone):
        await read_body(receive, limit=0)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    await _drain(request.receive)
    message = f"There is no {request.method} {request.url.path[:200]} here; see /v1/chat/completions and /v1/models."
    response = _refusal(OPENAI, BackendError(Fault.REQUEST, message, status=error.status_code))
    response.headers.update(error.headers or {})
    return response


async def _internal(_: Request, __: Exception) -> Response:
    return _refusal(OPENAI, BackendError(Fault.SERVER, "The appliance made a mistake; it is in its log.", status=500))


class Doorkeeper:
    """Turns away web pages and everybody who means another host, before anything of the request is read."""

    def __init__(self, app: ASGIApp, *, own_names: frozenset[str], origins: frozenset[str]) -> None:
        self._app = app
        self._own_names = own_names
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._judge(scope)) is not None:
            await _drain(receive)
            await refusal(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            # The client has its answer, or a broken line if one was under way. Not the error's own words and not its
            # traceback: either may hold what a client wrote.
            log.error("%s %s failed inside: %s", scope["method"], scope["path"], _kinds(error))

    def _judge(self, scope: Scope) -> Response | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        refusal = admit(headers.get(b"host"), headers.get(b"origin"), own_names=self._own_names, origins=self._origins)
        if refusal is not None:
            return _refusal(OPENAI, BackendError(Fault.REQUEST, refusal.message, status=refusal.status))
        if scope["method"] == "POST" and not is_json(headers.get(b"content-type")):
            message = "The content-type of a POST must be application/json."
            return _refusal(OPENAI, BackendError(Fault.REQUEST, message, status=415))
        return None

"""Every route of the box, on one page."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.appliance import Appliance
from appliance.core.chat import ChatRequest, Headers
from appliance.core.fault import BackendError, Fault
from appliance.core.seams import Dialect
from appliance.dialects.anthropic import ANTHROPIC
from appliance.dialects.openai_chat import OPENAI
from appliance.guard.host import admit, is_json
from appliance.guard.limits import LIMITS, Limits, Room, Share, trouble_in_json
from appliance.journal import NOBODY, Answered, Ending
from appliance.logs import request_id
from appliance.server.body import BodyTooLarge, BodyTooSlow, ClientGone, NoRoom, drain, read_body
from appliance.server.respond import AnswerResponse
from appliance.server.small import counted, dialect_of, model_entry, model_list, parse_count, spoken
from appliance.server.status import exposition
from appliance.server.status import status as status_of

log = logging.getLogger("appliance.server")

SMALL = 64 * 1024
"""Bytes of a body that is not a conversation."""
BODY_TROUBLE = (408, 413)


def build(appliance: Appliance, *, limits: Limits = LIMITS) -> ASGIApp:
    """The whole service as an ASGI application; its lifespan starts and stops the appliance."""
    room = Room(limits.bodies)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        await appliance.start()
        try:
            yield
        finally:
            await appliance.aclose()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    async def chat_completions(request: Request) -> Response:
        return await _chat(appliance, OPENAI, request, limits, room)

    async def messages(request: Request) -> Response:
        return await _chat(appliance, ANTHROPIC, request, limits, room)

    async def count_tokens(request: Request) -> Response:
        return await _count_tokens(appliance, request, limits, room)

    async def list_models(request: Request) -> Response:
        return JSONResponse(model_list(await appliance.models(), dialect_of(request)))

    async def get_model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in await appliance.models():
            error = BackendError(
                Fault.REQUEST, f"There is no model {name[:100]!r} here.", status=404, code="model_not_found"
            )
            return _refusal(dialect_of(request), error)
        return JSONResponse(model_entry(name, dialect_of(request)))

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        serving = appliance.serving
        if serving is None:
            return JSONResponse({"status": appliance.engine.state}, status_code=503, headers={"retry-after": "1"})
        return JSONResponse({"status": "ok", "serving": serving})

    async def status(_: Request) -> Response:
        return JSONResponse(await status_of(appliance))

    async def metrics(request: Request) -> Response:
        page, content_type = await exposition(appliance, request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    async def reset(request: Request) -> Response:
        try:
            wanted = json.loads(await _body(request, replace(limits, body=SMALL)) or b"{}")
            upstream = wanted.get("upstream")
        except ClientGone:
            return Response(status_code=499)
        except BackendError as refused:
            return _refusal(OPENAI, refused)
        except (ValueError, AttributeError, RecursionError):
            return _refusal(OPENAI, BackendError(Fault.REQUEST, 'The body must be JSON like {"upstream": null}.'))
        try:
            return JSONResponse({"closed": appliance.reset(upstream)})
        except (KeyError, TypeError):
            error = BackendError(Fault.REQUEST, f"There is no upstream {str(upstream)[:100]!r} here.", status=404)
            return _refusal(OPENAI, error)

    async def root(_: Request) -> Response:
        return Response("The fallback appliance is running. Point an OpenAI client at /v1, an Anthropic one at /.\n")

    async def no_such_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        where = f"{request.method} {request.url.path[:200]}"
        message = f"There is no {where} here; see /v1/chat/completions, /v1/messages and /v1/models."
        response = _refusal(dialect_of(request), BackendError(Fault.REQUEST, message, status=error.status_code))
        response.headers.update(error.headers or {})
        await _turn_away(request.scope, request.receive, response, limits)
        return response

    app.add_route("/v1/chat/completions", chat_completions, methods=["POST"])
    app.add_route("/v1/messages", messages, methods=["POST"])
    app.add_route("/v1/messages/count_tokens", count_tokens, methods=["POST"])
    app.add_route("/v1/models", list_models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", get_model, methods=["GET"])
    app.add_route("/healthz", healthz, methods=["GET"])
    app.add_route("/readyz", readyz, methods=["GET"])
    app.add_route("/appliance/status", status, methods=["GET"])
    app.add_route("/metrics", metrics, methods=["GET"])
    app.add_route("/appliance/reset", reset, methods=["POST"])
    app.add_route("/", root, methods=["GET"])
    app.add_exception_handler(HTTPException, no_such_route)
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
    return Doorkeeper(app, own_names=frozenset({server.host}), origins=frozenset(server.origins), limits=limits)


async def _chat(appliance: Appliance, dialect: Dialect, request: Request, limits: Limits, room: Room) -> Response:
    """A chat request in `dialect`, from bytes to an answer on its way."""
    id = f"{dialect.id_prefix}{secrets.token_hex(12)}"
    request_id.set(id)
    headers: Headers = tuple((name.lower(), value) for name, value in request.headers.items())
    wish = _wish(request)
    share = room.open()
    parsed: ChatRequest | None = None
    at, began = time.time(), time.monotonic()
    try:
        body = await _body(request, limits, share)
        if (trouble := trouble_in_json(body, limits)) is not None:
            raise BackendError(Fault.REQUEST, trouble)
        parsed = replace(dialect.parse(body, headers), query=request.url.query)
        if len(parsed.messages) > limits.messages:
            message = f"messages holds {len(parsed.messages)} messages; at most {limits.messages} are possible."
            raise BackendError(Fault.REQUEST, message, param="messages")
        answer = appliance.answer(parsed, id=id, wish=wish)
    except ClientGone:
        share.release()
        return Response(status_code=499)
    except BackendError as error:
        share.release()
        ending: Ending = "refused" if error.fault in (Fault.REQUEST, Fault.TOO_LONG) else "failed"
        appliance.metrics.finished(ending)
        appliance.journal.turned_away(
            Answered(
                at=at,
                request_id=id,
                ending=ending,
                served_by=NOBODY,
                seconds=time.monotonic() - began,
                dialect=dialect.name,
                stream=parsed is not None and parsed.stream,
                model=parsed.model if parsed is not None else "",
            )
        )
        response = _refusal(dialect, error, id)
        if error.status in BODY_TROUBLE:
            response.headers["connection"] = "close"  # some of it may still be on its way
        return response
    except BaseException:
        share.release()
        raise
    return AnswerResponse(answer, parsed, dialect, over=share.release)  # type: ignore[return-value]  # any ASGI callable


async def _count_tokens(appliance: Appliance, request: Request, limits: Limits, room: Room) -> Response:
    """How many tokens is this conversation of Anthropic's dialect?"""
    id = f"count_{secrets.token_hex(12)}"
    request_id.set(id)
    share = room.open()
    try:
        body = await _body(request, limits, share)
        if (trouble := trouble_in_json(body, limits)) is not None:
            raise BackendError(Fault.REQUEST, trouble)
        parsed, asked = parse_count(body, request)
        return counted(await appliance.count_tokens(parsed, asked, wish=_wish(request)), id)
    except ClientGone:
        return Response(status_code=499)
    except BackendError as error:
        return _refusal(ANTHROPIC, error, id)
    finally:
        share.release()


def _wish(request: Request) -> str:
    return request.headers.get("x-appliance-route", "auto").strip().lower()


async def _body(request: Request, limits: Limits, share: Share | None = None) -> bytes:
    """The body of a request. Raises `ClientGone`, or `BackendError` as it is to be told."""
    try:
        if _expects(request.scope) and int(request.headers.get("content-length", "0")) > limits.body:
            raise BodyTooLarge  # it asks first; it need not send it
        return await read_body(request.receive, limits=limits, share=share)
    except BodyTooLarge:
        raise BackendError(
            Fault.REQUEST, f"The body is larger than {limits.body} bytes; send less.", status=413
        ) from None
    except BodyTooSlow:
        raise BackendError(Fault.REQUEST, "The body did not come in time; send it again.", status=408) from None
    except NoRoom:
        await drain(request.receive, limits=limits)
        message = "The requests that are being answered fill the room for bodies; try again soon."
        raise BackendError(Fault.BUSY, message, status=503, retry_after=2.0) from None


def _refusal(dialect: Dialect, error: BackendError, id: str | None = None) -> Response:
    reply = dialect.encode_error(error, id=id or "")
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


def _expects(scope: Scope) -> bool:
    """Does the client wait to be told that it may send its body?"""
    return any(name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"])


async def _turn_away(scope: Scope, receive: Receive, response: Response, limits: Limits) -> None:
    """Whoever still sends does not hear a refusal: read on and throw away, but not for ever."""
    if _expects(scope) or not await drain(receive, limits=limits):
        response.headers["connection"] = "close"


async def _internal(request: Request, __: Exception) -> Response:
    error = BackendError(Fault.SERVER, "The appliance made a mistake; it is in its log.", status=500)
    return _refusal(dialect_of(request), error)


class Doorkeeper:
    """Turns away web pages and everybody who means another host, before anything of the request is read."""

    def __init__(self, app: ASGIApp, *, own_names: frozenset[str], origins: frozenset[str], limits: Limits) -> None:
        self._app = app
        self._own_names = own_names
        self._origins = origins
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._judge(scope)) is not None:
            await _turn_away(scope, receive, refusal, self._limits)
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
        dialect = spoken(scope["path"], headers.keys())
        refusal = admit(headers.get(b"host"), headers.get(b"origin"), own_names=self._own_names, origins=self._origins)
        if refusal is not None:
            return _refusal(dialect, BackendError(Fault.REQUEST, refusal.message, status=refusal.status))
        if scope["method"] == "POST" and not is_json(headers.get(b"content-type")):
            message = "The content-type of a POST must be application/json."
            return _refusal(dialect, BackendError(Fault.REQUEST, message, status=415))
        return None

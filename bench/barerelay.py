"""The least that stands between a client and a cloud: Starlette, one HTTP client, and no features.

    python bench/barerelay.py --to http://127.0.0.1:1234 --port 8000 --client aiohttp

What another relay could cost at best, and how the HTTP clients compare: httpx, httpx-aiohttp, httpx2, aiohttp. What of
them is no dependency of ours must be installed by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

Answer = Callable[[str, bytes], Awaitable[Response]]
HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


@asynccontextmanager
async def over_httpx(kind: str) -> AsyncIterator[Answer]:
    httpx = import_module("httpx2" if kind == "httpx2" else "httpx")
    options: dict[str, Any] = {"timeout": None, "trust_env": False}
    if kind == "httpx-aiohttp":
        options["transport"] = import_module("httpx_aiohttp").AiohttpTransport()
    async with httpx.AsyncClient(**options) as client:

        async def answer(url: str, body: bytes) -> Response:
            asked = client.build_request("POST", url, content=body, headers=HEADERS)
            got = await client.send(asked, stream=True)
            kind = str(got.headers["content-type"])
            if kind.startswith("application/json"):
                whole = await got.aread()
                await got.aclose()
                return Response(whole, media_type=kind)

            async def pieces() -> AsyncIterator[bytes]:
                async for piece in got.aiter_bytes():
                    yield piece
                await got.aclose()

            return StreamingResponse(pieces(), media_type=kind)

        yield answer


@asynccontextmanager
async def over_aiohttp() -> AsyncIterator[Answer]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:

        async def answer(url: str, body: bytes) -> Response:
            got = await session.post(url, data=body, headers=HEADERS, allow_redirects=False)
            if got.content_type == "application/json":
                return Response(await got.read(), media_type=got.content_type)

            async def pieces() -> AsyncIterator[bytes]:
                async for piece in got.content.iter_any():
                    yield piece
                got.release()

            return StreamingResponse(pieces(), media_type=got.content_type)

        yield answer


def build(to: str, client: str) -> Starlette:
    made: dict[str, Answer] = {}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with over_aiohttp() if client == "aiohttp" else over_httpx(client) as answer:
            made["answer"] = answer
            yield

    async def relay(request: Request) -> Response:
        return await made["answer"](to + request.url.path, await request.body())

    paths = ("/v1/chat/completions", "/v1/messages")
    return Starlette(routes=[Route(path, relay, methods=["POST"]) for path in paths], lifespan=lifespan)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--client", default="aiohttp", choices=["httpx", "httpx-aiohttp", "httpx2", "aiohttp"])
    given = parser.parse_args()
    uvicorn.run(build(given.to, given.client), port=given.port, loop="uvloop", http="httptools", log_level="warning")

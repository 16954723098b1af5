"""Talking to a running appliance over its own port."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.cli.outcome import Unwell
from appliance.config import Config
from appliance.core.address import authority

if TYPE_CHECKING:
    import httpx


def chosen(path: str | None) -> Path | None:
    """The file given with `--config`."""
    return Path(path) if path is not None else None


def address(config: Config) -> str:
    """Where the appliance of this configuration listens."""
    return f"http://{authority(config.server.host, config.server.port)}"


def client(url: str, *, patience: float = 10.0) -> httpx.Client:
    """A client of the appliance at `url`. Proxies of the environment are for the world outside, not for this."""
    import httpx

    try:
        if httpx.URL(url).scheme not in ("http", "https"):
            raise ValueError(url)
        return httpx.Client(base_url=url, timeout=httpx.Timeout(patience, connect=3.0), trust_env=False)
    except (httpx.InvalidURL, ValueError):
        raise Unwell(f"{url} is no address; give one like http://127.0.0.1:8484.") from None


def ask(to: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The appliance's JSON answer. Raises `Unwell` with its own sentence, or that nobody is there."""
    import httpx

    try:
        reply = to.request(method, path, json=body)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise Unwell(f'no appliance is running at {to.base_url}; start one with "appliance serve".') from None
    except httpx.TransportError as error:
        raise Unwell(f"the appliance at {to.base_url} did not answer ({type(error).__name__}); see its log.") from None
    try:
        answer = reply.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not (answer.keys() & {"version", "closed", "error"}):
        raise Unwell(f"what listens at {to.base_url} is not an appliance; choose another port in appliance.toml.")
    if reply.status_code >= 400:
        raise Unwell(complaint(answer, reply.status_code))
    return answer


def complaint(answer: object, status: int) -> str:
    """The sentence in an error body."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else f"the appliance answered with HTTP status {status}."

"""`appliance status` and `appliance reset`: how is it, and forget what went wrong."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from appliance.cli.outcome import FINE, NOT_WELL, Unwell, command
from appliance.cli.reach import address, ask, chosen, client
from appliance.config import load_config

if TYPE_CHECKING:
    import httpx

WATCH_EVERY = 1.0
_CLEAR, _HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
STATUS = "/appliance/status"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "status",
        show,
        about="show who serves now, the state of each cloud and the model on the box",
        example="appliance status --watch",
    )
    parser.add_argument("--url", help="the appliance to ask, instead of the configured one")
    parser.add_argument("--json", action="store_true", dest="as_json", help="as JSON, for programs")
    parser.add_argument(
        "--watch", action="store_true", help="again every second, until Ctrl-C; without a terminal a line per change"
    )
    parser = command(
        commands,
        "reset",
        reset,
        about="close the breakers by hand, so that the clouds are tried again at once",
        example="appliance reset openai",
    )
    parser.add_argument("upstream", nargs="?", metavar="UPSTREAM", help="only this one; without it all of them")
    parser.add_argument("--url", help="the appliance to ask, instead of the configured one")


def show(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    with client(args.url or address(config)) as to:
        if args.watch:
            return watch(to, as_json=args.as_json)
        status = ask(to, "GET", STATUS)
        print(json.dumps(status, indent=2) if args.as_json else table(status))
    return FINE if status.get("ready") else NOT_WELL


def watch(to: httpx.Client, *, as_json: bool = False, pause: Callable[[float], None] = time.sleep) -> int:
    """The status again and again until Ctrl-C: on a terminal drawn anew every second, else a line for each change."""
    drawn = sys.stdout.isatty() and not as_json
    if drawn:
        print(_CLEAR, end="")
    last = None
    try:
        while True:
            try:
                status = ask(to, "GET", STATUS)
                text, now = table(status) if drawn else "", line(status)
            except Unwell as error:
                status, text, now = {"error": f"{error}"}, f"{error}", f"{error}"
            if drawn:
                print(screen(text, shutil.get_terminal_size()), end="", flush=True)
            elif now != last:
                at = time.strftime("%H:%M:%S")
                print(json.dumps({"at": time.time(), **status}) if as_json else f"{at}  {now}", flush=True)
                last = now
            pause(WATCH_EVERY)
    except KeyboardInterrupt:
        if drawn:
            print()
        return FINE


def reset(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    with client(args.url or address(config)) as to:
        closed = ask(to, "POST", "/appliance/reset", {"upstream": args.upstream}).get("closed") or []
    print(f"Closed: {', '.join(closed)}." if closed else "Nothing was open.")
    return FINE


# ------------------------------------------------------------------------------------------------- in words


def line(status: Mapping[str, Any]) -> str:
    """What somebody who waits for a change wants to hear: who serves, how the rest is, what failed."""
    engine, requests = status.get("engine") or {}, status.get("requests") or {}
    words = [f"serving {status.get('serving') or 'nobody'}"]
    for upstream in status.get("upstreams") or ():
        said = f"{upstream.get('name')} {'offline' if upstream.get('offline') else upstream.get('state')}"
        if upstream.get("state") != "closed" and upstream.get("last_fault"):
            said += f" ({upstream['last_fault']})"
        said += "".join(f", not {model}" for model in upstream.get("models_aside") or ())
        said += "".join(f", {str(warning).partition(':')[0]}" for warning in upstream.get("warnings") or ())
        words.append(said + (", ALARM" if upstream.get("alarm") else ""))
    words.append(f"engine {engine.get('state')}")
    if requests.get("failed"):
        words.append(f"{requests['failed']} failed")
    if (status.get("journal") or {}).get("trouble"):
        words.append("journal not written")
    return "; ".join(words)


def screen(text: str, size: tuple[int, int]) -> str:
    """`text` over what was there before, without flicker, cut to a terminal of this many columns and lines."""
    width, height = size
    shown = [part[: width - 1] for part in text.splitlines()]
    if len(shown) > height - 1:
        shown = [*shown[: height - 2], "..."]
    return _HOME + "".join(f"{part}{_END_OF_LINE}\n" for part in shown) + _END_OF_SCREEN


MEANING = {
    "careful": "The engine died three times within a minute: one request at a time, until it has lived for a minute.",
    "failing": "The engine keeps dying: requests are refused until one stays alive for ten seconds.",
    "asleep": "The engine gave its memory back; the next request for the box loads the model again.",
}


def table(status: Mapping[str, Any]) -> str:
    """The answer of ``/appliance/status`` for a person, one block for each question."""
    serving = status.get("serving")
    blocks = [f"Serving: {serving or 'nobody'}   (version {status.get('version')}, up {span(status.get('uptime_s'))})"]
    upstreams = status.get("upstreams") or []
    if upstreams:
        blocks.append(columns(("CLOUD", "BREAKER", "FAILURES", "LAST FAULT"), map(_cloud, upstreams)))
    engine = status.get("engine") or {}
    blocks.append(columns(("MODEL", "STATE", "SLOTS", "CONTEXT", "PROCESSOR", "TOK/S"), [_engine(engine)]))
    if engine.get("devices"):
        blocks.append("\n".join(_device(device, engine.get("layers") or 0) for device in engine["devices"]))
    if engine.get("standby"):
        blocks.append(_standby(engine))
    requests = status.get("requests") or {}
    words = ("total", "running", "taken_over", "fell_back", "failed")
    blocks.append("Requests: " + ", ".join(f"{requests.get(word, 0)} {word.replace('_', ' ')}" for word in words))
    if engine.get("deaths"):
        times = "once" if engine["deaths"] == 1 else f"{engine['deaths']} times"
        blocks.append(f"The engine died {times} since the start; the last time: {engine['last_death']}.")
    if engine.get("state") in MEANING:
        blocks.append(MEANING[engine["state"]])
    blocks += [f"The model was loaded otherwise than asked: {step}" for step in engine.get("steps_down") or ()]
    if engine.get("refused"):
        blocks.append(f"The configured model is not the one that answers: {engine['refused']}")
    if engine.get("failure"):
        blocks.append(f"The local model: {engine['failure']}")
    blocks += [
        f"{upstream['name']} without {model} ({aside.get('state')}): {aside.get('reason') or 'no reason known'}"
        for upstream in upstreams
        for model, aside in (upstream.get("models_aside") or {}).items()
    ]
    blocks += [
        f"WARNING {upstream['name']} is {warning}"
        for upstream in upstreams
        for warning in upstream.get("warnings") or ()
    ]
    if (journal := _journal(status.get("journal") or {})) is not None:
        blocks.append(journal)
    blocks += [f"ALARM {upstream['name']}: {upstream['alarm']}" for upstream in upstreams if upstream.get("alarm")]
    return "\n\n".join(blocks)


def _cloud(upstream: Mapping[str, Any]) -> Sequence[str]:
    state = str(upstream.get("state"))
    if upstream.get("offline"):
        state = "offline"
    elif upstream.get("reopens_in_s"):
        state += f", tried in {span(upstream['reopens_in_s'])}"
    fault = upstream.get("last_fault_message") or upstream.get("last_fault") or "-"
    return (str(upstream.get("name")), state, str(upstream.get("failures", 0)), str(fault))


def _journal(journal: Mapping[str, Any]) -> str | None:
    """Nothing, as long as it is kept."""
    waiting, dropped, trouble = (journal.get(word) or 0 for word in ("waiting", "dropped", "trouble"))
    if trouble:
        return f"The journal cannot be written ({trouble}); records that wait in memory: {waiting}, dropped: {dropped}."
    lost = f"{dropped} records were dropped since the start, because nobody could write them in time."
    return f"The journal: {lost}" if dropped else None


def _engine(engine: Mapping[str, Any]) -> Sequence[str]:
    state, progress = str(engine.get("state")), engine.get("progress")
    if state == "loading" and progress is not None:
        state += f" {progress:.0%}"
    elif state in ("ready", "careful") and engine.get("responding") is False:
        state += ", not responding"
    slots = f"{engine.get('busy') or 0}/{engine['slots']}" if engine.get("slots") else "-"
    if engine.get("waiting"):
        slots += f" +{engine['waiting']}"
    speed = f"{engine['tok_s']:.1f}" if engine.get("tok_s") else "-"
    context = str(engine.get("context") or "-")
    if engine.get("kv_type") not in (None, "f16"):
        context += f" ({engine['kv_type']})"
    return (str(engine.get("model")), state, slots, context, _processor(engine), speed)


def _device(device: Mapping[str, Any], layers: int) -> str:
    """A GPU, and what of the model is on it."""
    free = (
        f"{(device.get('free') or 0) / 1e9:.1f} of {device['total'] / 1e9:.1f} GB free" if device.get("total") else ""
    )
    words = (device.get("description"), f"{device.get('layers', 0)}/{layers} layers", free)
    return f"{device.get('name')}: " + ", ".join(word for word in words if word)


def _standby(engine: Mapping[str, Any]) -> str:
    """What the box does beforehand, and what that has cost since its engine started."""
    words = f"Standby: {engine['standby']}"
    if engine.get("state") in ("careful", "failing"):
        words += f" (not while {engine['state']})"
    if engine.get("standbys"):
        words += f", following {engine['standbys']} ({engine.get('standby_ready', 0)} ready)"
    if engine.get("standby_tokens"):
        words += f"; {engine['standby_tokens']} tokens in {span(engine.get('standby_s'))} so far"
    if engine.get("reused_tokens"):
        words += f"; {engine['reused_tokens']} tokens of prompts were not computed again"
    return words


def _processor(engine: Mapping[str, Any]) -> str:
    layers, on_gpu = engine.get("layers"), engine.get("gpu_layers") or 0
    if not layers:
        return "-"
    share = min(100, round(100 * on_gpu / layers)) if engine.get("gpu_offload") else 0
    return {0: "100% CPU", 100: "100% GPU"}.get(share, f"{100 - share}%/{share}% CPU/GPU")


def columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns are as wide as what stands in them."""
    lines = [titles, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def span(seconds: float | None) -> str:
    """A length of time as one says it: "8 s", "5 min", "3 h", "2 days"."""
    if seconds is None:
        return "-"
    for unit, name in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"

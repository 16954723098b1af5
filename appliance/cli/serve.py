"""`appliance serve`: run the service."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

from appliance.cli.outcome import FINE, Unwell, command
from appliance.cli.reach import chosen
from appliance.config import Config, listening_at, load_config


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = command(
        commands,
        "serve",
        run,
        about="run the service until Ctrl-C or SIGTERM",
        example="appliance serve --port 8484",
    )
    parser.add_argument("--host", help="listen here instead of [server] host")
    parser.add_argument("--port", type=int, help="listen on this port instead of [server] port; 0 takes a free one")
    parser.add_argument("--require-gpu", action="store_true", help="exit with 64 if no layer of the model is on a GPU")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from appliance.store.store import Resolved, resolve

    def read() -> tuple[Config, Resolved]:
        config = listening_at(load_config(chosen(args.config), environ), host=args.host, port=args.port)
        return config, resolve(config.local.model, config)

    config, model = read()
    from appliance.server.notify import asked
    from appliance.server.run import CannotListen, serve

    wanted = asked(environ, os.getpid())
    try:
        serve(config, model, require_gpu=args.require_gpu, reread=read, asked=wanted)
    except CannotListen as error:
        raise Unwell(str(error)) from None
    return FINE

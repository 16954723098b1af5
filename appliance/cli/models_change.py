"""`appliance models import | use | rm`: a model that is brought here, chosen, or given up."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.cli.models import in_use, opens, weighed
from appliance.cli.outcome import FINE, INTERRUPTED, Misused, Unwell, command, complain
from appliance.cli.progress import say, steps
from appliance.cli.reach import chosen
from appliance.cli.status import columns
from appliance.config import Config, load_config, places
from appliance.core.size import in_words
from appliance.store.catalog import StoreError, Unopenable
from appliance.store.fit import refusal_of
from appliance.store.own import HUB, known, of_place
from appliance.store.store import files_of, is_path, path_of, remove, resolve

if TYPE_CHECKING:
    import tomlkit

TOOLS = ("ollama", "lmstudio")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    each = command(
        verbs,
        "import",
        import_one,
        about="take a model into the store that is on this box already, or on a stick",
        example="appliance models import /media/stick/model.gguf\n"
        "  appliance models import --from ollama\n"
        "  appliance models import --from ollama llama3.2:1b",
    )
    each.add_argument("model", metavar="FILE|NAME", nargs="?", help="a GGUF file; with --from, a model of that tool")
    each.add_argument("--from", dest="tool", choices=TOOLS, help="another tool's store; without NAME, show what it has")
    each.add_argument("--name", metavar="NEW", help="what to call it here, if the catalog does not know it")
    each = command(
        verbs,
        "use",
        use_one,
        about="answer with this model: write it into appliance.toml",
        example="appliance models use qwen3.5-4b",
    )
    each.add_argument("name", metavar="NAME", help="the name of an installed model, or the path of a GGUF file")
    each = command(
        verbs, "rm", remove_one, about="delete a model from the store", example="appliance models rm qwen3.5-4b"
    )
    each.add_argument("name", metavar="NAME")
    each.add_argument("--force", action="store_true", help="even if [local] model names it")


# ------------------------------------------------------------------------------------------------------- import


def import_one(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    from appliance.store.elsewhere import CALLED, pick, theirs
    from appliance.store.importing import bring

    if args.tool is None and args.model is None:
        raise Misused('say what to import: a GGUF file, or "--from ollama", or "--from lmstudio".')
    if args.tool is not None:
        models = theirs(args.tool, environ)
        if args.model is None:
            print(columns(("NAME", "SIZE"), [(one.name, in_words(one.bytes)) for one in models]))
            print(f'\nTo take one: "appliance models import --from {args.tool} NAME".')
            return FINE
    try:
        with steps() as report:
            if args.tool is None:
                done = bring(Path(args.model), config.paths, name=args.name, accept=opens, say=say, report=report)
            else:
                one = pick(args.model, args.tool, models)
                done = bring(
                    one.path,
                    config.paths,
                    name=args.name or one.fit_name,
                    come_from=f"{CALLED[args.tool]}, {one.name}",
                    sha256=one.sha256,
                    link=True,
                    accept=opens,
                    say=say,
                    report=report,
                )
    except StoreError as error:
        raise Unwell(str(error)) from None
    except KeyboardInterrupt:
        print("Interrupted; nothing was imported.", file=sys.stderr)
        return INTERRUPTED
    where = path_of(done.entry, config.paths.models)
    print(f"{done.entry.name} {'is imported and hashed' if done.news else 'was already here'}: {where}")
    if in_use(config) != where:
        print(f'To answer with it: "appliance models use {done.entry.name}".')
    return FINE


# ---------------------------------------------------------------------------------------------------------- use


def use_one(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    given, models = args.name, config.paths.models
    model = str(Path(given).expanduser().absolute()) if is_path(given) else known(given, models).name
    path = resolve(model, config).path  # it is there, and can chat
    local = config.local
    try:
        weight = weighed(
            path, context=local.context, slots=local.slots, kv_type=local.kv_type, gpu_layers=local.gpu_layers
        )
    except Unopenable:
        raise
    except StoreError as error:  # that is this box, for now, and no wrong model
        raise Unwell(str(error)) from None
    file = config.source or file_of_its_own(environ)
    write_model(file, model, config)
    print(f"[local] model is {shlex.quote(model)} now, in {file}.")
    print('A running appliance takes it over at SIGHUP ("systemctl reload appliance"); "appliance serve" starts one.')
    if config.source is None and config.upstreams:
        clouds = ", ".join(f"{cloud.name} ({cloud.key_from})" for cloud in config.upstreams)
        print(f"The file names the clouds of the environment too, and a start needs their keys from now on: {clouds}.")
    if refusal := refusal_of(weight):
        complain(refusal)
    return FINE


def file_of_its_own(environ: Mapping[str, str]) -> Path:
    """Where a configuration is begun if there is none: where it is looked for, and not just in this folder."""
    return places(environ)[1]


def write_model(file: Path, model: str, config: Config) -> None:
    """Set `[local] model` and leave every other word of the file as it is."""
    import tomlkit

    from appliance.store.disk import write_small

    try:
        written = tomlkit.parse(file.read_text("utf-8")) if file.exists() else begun(config)
        written.setdefault("local", tomlkit.table())["model"] = model
        file.parent.mkdir(parents=True, exist_ok=True)
        write_small(file.resolve(), tomlkit.dumps(written))
    except OSError as error:
        raise Unwell(f"{file} cannot be written: {error.strerror}; write [local] model into it yourself.") from None


def begun(config: Config) -> tomlkit.TOMLDocument:
    """A file where there was none: it names the clouds that were found by their keys, or they would be lost with it."""
    import tomlkit

    new = tomlkit.document()
    new.add(tomlkit.comment("Written by appliance models use; docs/configuration.md explains every key."))
    new["local"] = tomlkit.table()
    clouds = tomlkit.aot()
    for upstream in config.upstreams:
        cloud = tomlkit.table()
        cloud["preset"] = upstream.preset
        clouds.append(cloud)
    if config.upstreams:
        new["upstream"] = clouds
    return new


# ----------------------------------------------------------------------------------------------------------- rm


def remove_one(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    config = load_config(chosen(args.config), environ, keys=False)
    models = config.paths.models
    try:
        entry = known(args.name, models)
    except StoreError:
        if not args.name.startswith(HUB):
            raise
        entry = of_place(args.name)  # a download that has only begun has no record
    if not files_of(entry, models):
        raise Unwell(f'the model "{entry.name}" is not installed.')
    if in_use(config) == path_of(entry, models) and not args.force:
        raise Unwell(
            f'"{entry.name}" is the model that [local] model names; choose another with "appliance models use NAME" '
            "first, or say --force."
        )
    try:
        freed = remove(entry, models)
    except OSError as error:
        raise Unwell(f"{error.filename} cannot be deleted: {error.strerror}.") from None
    print(f"{entry.name} is deleted" + (f"; that freed {in_words(freed)}." if freed else "."))
    return FINE

"""`appliance service`: kept running by systemd. What its unit says is decided in `appliance.unit`."""

from __future__ import annotations

import argparse
import contextlib
import grp
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from appliance import __version__, unit
from appliance.cli.outcome import FINE, Unwell, command
from appliance.cli.systemd import Systemd
from appliance.config import ConfigError, default_paths, load_config, places
from appliance.document import FILE_NAME
from appliance.store.install import own_prefix
from appliance.unit import Wanted

CREDENTIALS = "/run/credentials/"
GPU_DEVICES = ("nvidiactl", "kfd", "dri/renderD*")
PASSED_ON = ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "service",
        help="keep it running with systemd: install, uninstall, show",
        description="A systemd unit that starts the appliance with the machine and keeps it running.",
        epilog="example:\n  appliance service install --user",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="install|uninstall|show")
    for verb in (
        command(
            verbs,
            "install",
            install,
            about="write the unit, and start it now and with the machine; after an upgrade, once more",
            example="appliance service install --user",
        ),
        command(
            verbs,
            "uninstall",
            uninstall,
            about="stop the service and remove its unit; state and models stay",
            example="appliance service uninstall --user",
            config=False,
        ),
        command(
            verbs,
            "show",
            show,
            about="print the unit that install would write",
            example="appliance service show",
        ),
    ):
        verb.add_argument("--user", action="store_true", help="a service of your own, which needs no root")
        verb.add_argument("--name", default=unit.NAME, help="what it is called, if one is not enough")


def show(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    print(unit.text(_wanted(args, environ)), end="")
    return FINE


def install(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    wanted = _wanted(args, environ)
    systemd = _systemd(args, wanted, environ)
    before = _ours(systemd)
    _demand_program(wanted)
    _warn_of_another(_file(wanted, environ))
    _demand_sight(wanted, _model(wanted, environ))
    text = unit.text(wanted)
    if text != before:
        systemd.write(text)
        systemd.call("daemon-reload")
    systemd.call("enable", "--quiet", wanted.file)
    if text == before and systemd.runs():
        print(f"{wanted.file} is as it should be, and runs; nothing was changed.")
        return FINE
    print(f"{systemd.file} is written; starting ..." if text != before else "Starting ...", flush=True)
    systemd.call("reset-failed", wanted.file, may_fail=True)
    if not systemd.call("restart", wanted.file, may_fail=True):
        raise Unwell(
            f"{wanted.file} is installed and does not start: {systemd.last_words()} "
            f'Then run "{systemd.spoken("restart", wanted.file)}".'
        )
    inside = _environment(wanted, environ)
    again = "when you log in" if args.user else "with the machine"
    print(f"{wanted.file} runs, and starts {again}. {systemd.standing()}")
    print(f"  log            {systemd.journal}")
    print(f"  configuration  {_file(wanted, environ)}; after a change: {systemd.spoken('reload', wanted.file)}")
    print(f"  keys           {_keys(wanted, environ)}; after a change: {systemd.spoken('restart', wanted.file)}")
    print(f"  models         {default_paths(inside).models}")
    if args.user:
        print("It ends when you log out; after `loginctl enable-linger` it runs from boot on.")
    return FINE


def uninstall(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    wanted = _wanted(args, environ)
    systemd = _systemd(args, wanted, environ)
    if _ours(systemd) is None:
        print(f"{wanted.file} is not installed; there is nothing to remove.")
        return FINE
    systemd.call("disable", "--quiet", "--now", wanted.file)
    systemd.file.unlink()
    systemd.call("daemon-reload")
    systemd.call("reset-failed", wanted.file, may_fail=True)
    paths = default_paths(_environment(wanted, environ))
    print(f"{wanted.file} is stopped and removed. What is kept, and found again by the next install:")
    kept = (paths.state, paths.models, _file(wanted, environ), _keys(wanted, environ), systemd.changes)
    for path in dict.fromkeys(kept):
        if path.exists():
            print(f"  {path}")
    return FINE


def _systemd(args: argparse.Namespace, wanted: Wanted, environ: Mapping[str, str]) -> Systemd:
    """Raises `Unwell` unless there is a systemd, and we may tell it what to do."""
    systemd = Systemd(wanted.file, user=args.user, own=_settings(environ))
    if not systemd.is_here():
        instead = (
            f"nothing of it is running; remove {systemd.file} by hand if it is there."
            if args.verb == "uninstall"
            else f'have what runs it start "{shlex.join([*wanted.program, "serve"])}", '
            "and start it again unless it exits with 64 or 2."
        )
        raise Unwell(f"this machine is not run by systemd; {instead}")
    if not args.user and os.geteuid() != 0:
        again = shlex.join([*wanted.program, "service", args.verb])
        raise Unwell(f'a service of the machine needs root: run "sudo {again}", or add --user for one of your own.')
    return systemd


def _ours(systemd: Systemd) -> str | None:
    """The unit that is there. Raises `Unwell` if somebody else wrote it."""
    text = systemd.written()
    if text is not None and not unit.is_ours(text):
        raise Unwell(f"{systemd.file} was not written by this command; remove it by hand, or choose another --name.")
    return text


# --------------------------------------------------------------------------------------------- what is to be written


def _wanted(args: argparse.Namespace, environ: Mapping[str, str]) -> Wanted:
    if not unit.is_name(args.name):
        raise Unwell(f'"{args.name}" is no name for a service; use letters, digits and dashes.')
    home = environ.get("APPLIANCE_HOME") if args.user else unit.system_home(args.name)
    config = getattr(args, "config", None) or (environ.get("APPLIANCE_CONFIG") if args.user else None)
    config = os.path.abspath(config) if config else None
    prefix = own_prefix()
    devices = [device for pattern in GPU_DEVICES for device in Path("/dev").glob(pattern)]
    return Wanted(
        program=(str(prefix / "bin" / "appliance"),) if prefix else (sys.executable, "-P", "-m", "appliance"),
        version=__version__,
        scope="user" if args.user else "system",
        name=args.name,
        config=config,
        home=os.path.abspath(home) if home else None,
        # What a bundle installed moves on with each upgrade; only its prefix stays.
        reads=(os.path.realpath(sys.executable), str(prefix or sys.prefix), *([config] if config else [])),
        gpu=bool(devices),
        groups=tuple(sorted(set(_groups(devices)))),
    )


def _groups(devices: list[Path]) -> Iterator[str]:
    """Who may use these devices, where not everybody may."""
    for device in devices:
        with contextlib.suppress(OSError, KeyError):
            found = device.stat()
            if not found.st_mode & 0o002 and found.st_gid != 0:
                yield grp.getgrgid(found.st_gid).gr_name


def _demand_program(wanted: Wanted) -> None:
    """Does the command run when nobody stands in the right folder?"""
    said = subprocess.run([*wanted.program, "--version"], cwd="/", capture_output=True, check=False)
    if said.returncode != 0:
        python = wanted.program[0]
        raise Unwell(f'{python} has no appliance installed; run "{python} -m pip install ." in its folder first.')


def _demand_sight(wanted: Wanted, model: Path | None) -> None:
    """Can a user who is nobody in particular reach what the service needs?"""
    if wanted.scope == "user":
        return
    needed = [*wanted.program[:1], *wanted.reads, *([str(model)] if model is not None else [])]
    hidden = unit.unseen(wanted, needed)
    if hidden is not None:
        raise Unwell(
            f"the service will not see {hidden}, because it has no /tmp and no homes; move it to /opt or /srv."
        )
    for path in map(Path, needed):
        for part in (*reversed(path.parents), path):
            if not part.stat().st_mode & (0o001 if part.is_dir() else 0o004):
                raise Unwell(
                    f"others may not enter {part}, so the service cannot reach {path}; move it to /opt or /srv, "
                    "or add --user for a service of your own."
                )


def _environment(wanted: Wanted, environ: Mapping[str, str]) -> dict[str, str]:
    """What the service will find in its environment, as far as the configuration asks."""
    found = {name: environ[name] for name in PASSED_ON if name in environ} if wanted.scope == "user" else {}
    with contextlib.suppress(OSError, ValueError):
        for line in _keys(wanted, environ).read_text("utf-8").splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.lstrip().startswith(("#", ";")):
                found[name.strip()] = " ".join(shlex.split(value))
    return found | ({"APPLIANCE_HOME": wanted.home} if wanted.home else {})


def _model(wanted: Wanted, environ: Mapping[str, str]) -> Path | None:
    """The model file of the service, if its configuration can be read from here. Raises `ConfigError` or `StoreError`:
    better before anything is changed than in a log."""
    from appliance.store.store import StoreError, resolve

    try:
        file = Path(wanted.config) if wanted.config else None
        config = load_config(file, _environment(wanted, environ), _folder(wanted, environ))
    except ConfigError as error:
        if CREDENTIALS in str(error):  # they are there only while the service runs
            return None
        raise
    try:
        return resolve(config.local.model, config).path
    except StoreError as error:
        if wanted.scope == "user":
            raise
        there = shlex.join(["sudo", "env", f"APPLIANCE_HOME={wanted.home}", *wanted.program])
        raise StoreError(str(error).replace('"appliance ', f'"{there} ')) from None


def _settings(environ: Mapping[str, str]) -> Path:
    """The folder of a user's configuration."""
    return Path(environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME') or os.path.expanduser('~')}/.config")


def _keys(wanted: Wanted, environ: Mapping[str, str]) -> Path:
    file = unit.environment_file(wanted.name, wanted.scope)
    return Path(file.replace(unit.USER_SETTINGS, str(_settings(environ))))


def _file(wanted: Wanted, environ: Mapping[str, str]) -> Path:
    """The configuration file, or where it would be looked for."""
    if wanted.config:
        return Path(wanted.config)
    looked_for = places(_environment(wanted, environ), _folder(wanted, environ))
    _, own, machines = looked_for
    usual = own if wanted.scope == "user" else machines
    return next((file for file in looked_for if file.is_file()), usual)


def _folder(wanted: Wanted, environ: Mapping[str, str]) -> Path:
    """Where the service runs, which is not where somebody stands who installs it."""
    if wanted.scope == "user":
        return Path(environ.get("HOME") or os.path.expanduser("~"))
    return Path(unit.system_home(wanted.name))


def _warn_of_another(file: Path) -> None:
    """Somebody who wrote an appliance.toml where they stand shall not believe that the service reads it."""
    mine = Path(FILE_NAME)
    if mine.is_file() and not (file.is_file() and file.samefile(mine)):
        print(
            f"{mine} of this folder is not what the service reads; say --config {mine}, or keep it as {file}.",
            file=sys.stderr,
        )

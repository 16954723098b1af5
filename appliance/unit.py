"""What must systemd know to keep the appliance running, and everybody else out of it? The unit, as text.

Rules of this file:

1. Pure: what is on this machine (where the program lies, which devices there are) comes in as a value.
2. A line that is not plain says why, in the unit itself: who reads `systemctl cat` should not need us.
3. A unit of a user has only what a user's systemd can do without privileges.
4. What depends on `appliance.toml` stays out: changing the file must not need a new unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Scope = Literal["system", "user"]

MARK = "# Written by `appliance service install`"
"""How a unit of ours begins; a file that does not is somebody else's and left alone."""
NAME = "appliance"
USER_SETTINGS = "%E"
"""How a unit names the folder of its user's configuration, ~/.config."""
STOP_SECONDS = 45
"""Running answers may take 30 s after SIGTERM (`server.run.DRAIN`), and the engine some seconds more."""
WATCHDOG_SECONDS = 30
HOMES = tuple(map(PurePosixPath, ("/home", "/root", "/run/user")))
PRIVATE = tuple(map(PurePosixPath, ("/tmp", "/var/tmp")))  # noqa: S108 - named to be avoided
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the unit follows from. `program` is the command before "serve"; `reads` is what it must be able to see
    besides; `home` is where state and models lie, if not where a user's do. `gpu`: there are devices of one, which
    belong to `groups`."""

    program: tuple[str, ...]
    version: str
    scope: Scope = "system"
    name: str = NAME
    config: str | None = None
    home: str | None = None
    reads: tuple[str, ...] = ()
    gpu: bool = False
    groups: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        return f"{self.name}.service"


def system_home(name: str) -> str:
    """Where a system service of this name keeps its state and its models."""
    return f"/var/lib/{name}"


def environment_file(name: str, scope: Scope) -> str:
    """Where keys for clouds are written as NAME=value."""
    return f"{'/etc' if scope == 'system' else USER_SETTINGS}/{name}/environment"


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def is_ours(text: str) -> bool:
    return text.startswith(MARK)


def sees_homes(wanted: Wanted) -> bool:
    """Only if the program or its file lies in one."""
    return any(_below(path, HOMES) for path in (*wanted.program[:1], *wanted.reads))


def unseen(wanted: Wanted, paths: Sequence[str]) -> str | None:
    """The first of these that the service does not see."""
    hidden = PRIVATE if sees_homes(wanted) else PRIVATE + HOMES
    return next((path for path in paths if _below(path, hidden)), None)


def _below(path: str, folders: tuple[PurePosixPath, ...]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def argument(word: str) -> str:
    """One word of a command line, in which systemd also looks for variables."""
    return quoted(word.replace("$", "$$"))


def quoted(word: str) -> str:
    """One word of a setting, as systemd reads it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[A-Za-z0-9_./:=@%$,+-]+", escaped) else f'"{escaped}"'


def text(wanted: Wanted) -> str:
    """The whole unit file."""
    command = [*wanted.program, "serve", *(("--config", wanted.config) if wanted.config else ())]
    kept = _kept(wanted) + "\n\n" if _kept(wanted) else ""
    target = "multi-user.target" if wanted.scope == "system" else "default.target"
    after = "After=network.target\n" if wanted.scope == "system" else ""
    return f"""\
{MARK} {wanted.version}, and written anew by the next one.
# Your own changes belong in `systemctl {"--user " if wanted.scope == "user" else ""}edit {wanted.name}`.
[Unit]
Description=Fallback appliance: answers of a cloud, or of the model on this box
# Not network-online: without a network it has to start all the more.
{after}# Ten starts within five minutes, and it is left alone: `systemctl reset-failed {wanted.name}` lets it try again.
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
# It says when it can answer, who is answering, when it reloads and stops, and that its event loop still turns.
Type=notify
NotifyAccess=main
ExecStart={" ".join(map(argument, command))}
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec={WATCHDOG_SECONDS}
# While a large model loads it asks for more time itself.
TimeoutStartSec=90
# SIGTERM goes to the service alone: running answers finish (30 s), then it ends its engine.
KillMode=mixed
TimeoutStopSec={STOP_SECONDS}
Restart=always
RestartSec=5
# 64: configuration or model is wrong; 2: the command line is. To start again would not help.
RestartPreventExitStatus=64 2
# The engine is a child and the larger one: if memory runs out it dies, is started again, and the service goes on.
OOMPolicy=continue
EnvironmentFile=-{environment_file(wanted.name, wanted.scope)}
# A watchdog's SIGABRT leaves the lines where it hung in the log.
Environment=PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
{kept}LimitNOFILE=65536
# For [local] mlock.
LimitMEMLOCK=infinity
# A core dump would hold keys and conversations.
LimitCORE=0
UMask=0077
{_fences(wanted)}
[Install]
WantedBy={target}
"""


def _kept(wanted: Wanted) -> str:
    """Where it runs and what it keeps."""
    home = [f"Environment={quoted('APPLIANCE_HOME=' + wanted.home)}"] if wanted.home else []
    if wanted.scope == "user":
        return "\n".join(home)
    return "\n".join(
        [
            *home,
            "# State and models; they outlive the service and its user.",
            f"StateDirectory={wanted.name}",
            f"ConfigurationDirectory={wanted.name}",
            f"WorkingDirectory={system_home(wanted.name)}",
            "# A user that exists while the service runs, and owns nothing but its state.",
            "DynamicUser=yes",
            *([f"SupplementaryGroups={' '.join(wanted.groups)}"] if wanted.groups else []),
        ]
    )


_EVERYWHERE = """\
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""
"""What a user's systemd can hold its services to as well."""

_SYSTEM = """\
CapabilityBoundingSet=
ProtectSystem=strict
PrivateTmp=yes
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RemoveIPC=yes
"""


def _fences(wanted: Wanted) -> str:
    if wanted.scope == "user":
        return "\n# Only what needs no privileges; the system service is fenced in more closely.\n" + _EVERYWHERE
    home = sees_homes(wanted)
    return (
        "\n"
        + _EVERYWHERE
        + _SYSTEM
        + ("# The program or its file lies in a home.\nProtectHome=read-only\n" if home else "ProtectHome=yes\n")
        + (_WITH_GPU if wanted.gpu else _WITHOUT_GPU)
    )


_WITHOUT_GPU = """\
PrivateDevices=yes
MemoryDenyWriteExecute=yes
"""
_WITH_GPU = """\
# No device but the GPUs. MemoryDenyWriteExecute is missing because drivers compile kernels while they run.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
DeviceAllow=char-drm rw
DeviceAllow=char-kfd rw
"""

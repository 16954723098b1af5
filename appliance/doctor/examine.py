"""The whole examination: everything is looked at, all at once, and then judged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance.config import (
    BreakerConfig,
    Config,
    ConfigError,
    LocalConfig,
    ServerConfig,
    TimeoutConfig,
    default_paths,
    load_config,
)
from appliance.doctor import body, path
from appliance.doctor.blame import well, whose
from appliance.doctor.checks.settings import Written
from appliance.doctor.finding import Section
from appliance.doctor.sight import answer, box, clouds
from appliance.store.disk import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """Sections from the bottom up: the box, then each upstream."""

    sections: tuple[Section, ...]

    @property
    def well(self) -> bool:
        return well(self.sections)

    @property
    def whose(self) -> tuple[str, ...]:
        return whose(self.sections)


async def examine(
    file: Path | None, environ: Mapping[str, str], *, deep: Progress | None = None, root: Path = Path("/")
) -> Examination:
    """Look at everything that the configuration in `file` means, and judge it. With `deep`, which is told how much of
    how much is read, every byte of the model is read, and it is to answer. What the kernel shows in files is read below
    `root`."""
    config, written = configured(file, environ)
    seen, ways = await asyncio.gather(box.look(config, deep=deep, root=root), clouds.look(config.upstreams, environ))
    answered = (
        await answer.look(config) if deep is not None and not seen.file.trouble and not seen.need.loaded else None
    )
    about = path.around(ways, datetime.now(UTC))
    sections = [body.judge(seen, written, answered, off=about.off)]
    sections += [path.judge(cloud, about) for cloud in ways]
    return Examination(sections=tuple(sections))


def configured(file: Path | None, environ: Mapping[str, str]) -> tuple[Config, Written]:
    """The configuration; the defaults without any upstream, if it is refused."""
    try:
        config = load_config(file, environ)
    except ConfigError as error:
        defaults = Config(
            server=ServerConfig(),
            local=LocalConfig(),
            upstreams=(),
            timeouts=TimeoutConfig(),
            breaker=BreakerConfig(),
            paths=default_paths(environ),
            source=None,
        )
        return defaults, Written(refused=str(error))
    return config, Written(source=str(config.source) if config.source else None, warnings=config.warnings)

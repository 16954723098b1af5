"""Which models do other tools of this box have, that need not be downloaded again?

Ollama keeps a manifest for each name, and each file under its hash: ``manifests/HOST/NAMESPACE/MODEL/TAG`` (from 0.40
on ``manifests-v2``, where a manifest may be a list of one for each of its runners) and ``blobs/sha256-...``. LM
Studio keeps files as the hub has them: ``PUBLISHER/REPO/FILE.gguf``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from appliance.store.catalog import StoreError
from appliance.store.own import siblings

Tool = Literal["ollama", "lmstudio"]
CALLED: Mapping[Tool, str] = {"ollama": "Ollama", "lmstudio": "LM Studio"}
_MODEL = "application/vnd.ollama.image.model"
_ADAPTER = "application/vnd.ollama.image.adapter"
_RUNNERS = ("ggml", "llamacpp")
"""Whose files are GGUF, the plain ones first."""
_PUBLIC = ("registry.ollama.ai", "ollama.com")
_MARKS = re.compile(r"sha256[:-]([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """A model of another tool. `sha256` is what the tool says; `fit_name` is what we would call it."""

    name: str
    path: Path
    fit_name: str
    bytes: int
    sha256: str | None = None


def theirs(tool: Tool, environ: Mapping[str, str]) -> tuple[Theirs, ...]:
    """The models of this tool, by name. Raises `StoreError` if it has no store here, or none that we may read."""
    roots = [root for root in (_ollama if tool == "ollama" else _lm_studio)(environ) if _there(root)]
    if not roots:
        raise StoreError(
            f"{CALLED[tool]} has no models here; give the path of a file, like "
            '"appliance models import /media/stick/model.gguf".'
        )
    read = _of_ollama if tool == "ollama" else _of_lm_studio
    found: dict[str, Theirs] = {}
    try:
        for root in roots:
            for one in read(root):
                found.setdefault(one.name, one)
    except PermissionError as error:
        raise StoreError(
            f"the models of {CALLED[tool]} cannot be read ({error.filename}); run the same command with sudo, and "
            "APPLIANCE_HOME or --config as they are for you."
        ) from None
    return tuple(found[name] for name in sorted(found))


def pick(name: str, tool: Tool, models: tuple[Theirs, ...]) -> Theirs:
    """The one of this name, or of this last part of a name. Raises `StoreError`."""
    fits = [one for one in models if name.lower() in _names(one)]
    if len(fits) == 1:
        return fits[0]
    what = f'{CALLED[tool]} has {"several models" if fits else "no model"} "{name}"'
    there = ", ".join(one.name for one in (fits or models)) or "none"
    raise StoreError(f"{what}; write one of these: {there}.")


def _names(one: Theirs) -> set[str]:
    whole = one.name.lower()
    last = whole.rsplit("/", 1)[-1]
    return {whole, whole.removesuffix(":latest"), last, last.removesuffix(".gguf"), one.fit_name}


def _there(root: Path) -> bool:
    try:
        return root.is_dir()
    except PermissionError:
        return True


def slug(words: str) -> str:
    """A name for the store, made of somebody else's."""
    return re.sub(r"[^a-z0-9._-]+", "-", words.lower()).strip("-._")


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


# ------------------------------------------------------------------------------------------------------- Ollama


def _ollama(environ: Mapping[str, str]) -> tuple[Path, ...]:
    if environ.get("OLLAMA_MODELS"):
        return (Path(environ["OLLAMA_MODELS"]),)
    return (_home(environ) / ".ollama/models", Path("/usr/share/ollama/.ollama/models"))


def _of_ollama(root: Path) -> Iterator[Theirs]:
    for folder in (root / "manifests-v2", root / "manifests"):  # what is in both is newer in the first
        for path in sorted(folder.glob("*/*/*/*")):
            if path.name.startswith(".") or not path.is_file():  # one that is being written, or none of theirs
                continue
            host, namespace, model, tag = path.relative_to(folder).parts
            blob = _model_of(path, root)
            if blob is None:
                continue
            short = f"{model}:{tag}"
            library = host in _PUBLIC and namespace == "library"
            name = short if library else f"{namespace}/{short}" if host in _PUBLIC else f"{host}/{namespace}/{short}"
            file = root / "blobs" / f"sha256-{blob}"
            yield Theirs(
                name=name,
                path=file,
                fit_name=slug(f"{model}-{tag}".removesuffix("-latest")),
                bytes=file.stat().st_size,
                sha256=blob,
            )


def _model_of(path: Path, root: Path) -> str | None:
    """The hash of the GGUF file behind a manifest. None if there is none, or if it is changed by an adapter."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
        manifest = json.loads(path.read_bytes())
        for runner in _RUNNERS:
            for child in manifest.get("manifests", ()):
                if str(child.get("runner")).lower() == runner:
                    return _layer(json.loads((root / "blobs" / _file(child["digest"])).read_bytes()), root)
        return _layer(manifest, root)
    return None


def _layer(manifest: Mapping[str, Any], root: Path) -> str | None:
    layers = {layer["mediaType"]: layer["digest"] for layer in manifest["layers"]}
    if _ADAPTER in layers or _MODEL not in layers:
        return None
    blob = root / "blobs" / _file(layers[_MODEL])
    with blob.open("rb") as file:
        return blob.name.removeprefix("sha256-") if file.read(4) == b"GGUF" else None


def _file(digest: str) -> str:
    """The name of a blob. The digest comes out of a file, and shall not lead anywhere else."""
    found = _MARKS.fullmatch(digest)
    if found is None:
        raise ValueError(digest)
    return f"sha256-{found[1]}"


# ---------------------------------------------------------------------------------------------------- LM Studio


def _lm_studio(environ: Mapping[str, str]) -> tuple[Path, ...]:
    home = _home(environ)
    chosen: list[Path] = []
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        chosen = [Path(json.loads((home / ".lmstudio/settings.json").read_text("utf-8"))["downloadsFolder"])]
    return (*chosen, home / ".lmstudio/models", home / ".cache/lm-studio/models")


def _of_lm_studio(root: Path) -> Iterator[Theirs]:
    for path in sorted(root.glob("*/*/*.gguf")):
        parts = siblings(path.name)
        if path.name != parts[0] or path.name.lower().startswith("mmproj"):
            continue
        if not all(path.with_name(part).is_file() for part in parts):
            continue
        yield Theirs(
            name=path.relative_to(root).as_posix(),
            path=path,
            fit_name=slug(re.sub(r"-00001-of-\d{5}$", "", path.stem)),
            bytes=sum(path.with_name(part).stat().st_size for part in parts),
        )

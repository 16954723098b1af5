"""What does the model hub say of a file: which commit, how many bytes, which hash?

huggingface-hub asks, because it knows the hub's headers, tokens and kinds of refusal. The bytes come by our own
`download`, which goes on after a kill. What goes wrong is one of two things: `Lost` is worth another try, `StoreError`
is final.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from appliance.store.catalog import Entry, ModelFile, StoreError
from appliance.store.own import of_place

PUBLIC = "https://huggingface.co"
PATIENCE = 10.0
_YES = ("1", "ON", "YES", "TRUE")
_MOST_NAMED = 5
_TRANSPORT = cast("type[Exception]", HfHubHTTPError.__mro__[1])
"""The error of the HTTP library below: httpx's up to huggingface-hub 1, httpx2's from 2 on."""


class Lost(Exception):
    """The hub was not reached, or broke off, or is busy; `str()` says what happened, as a part of a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """The hub that is asked, as the environment of huggingface-hub describes it."""

    endpoint: str = PUBLIC
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    @property
    def shown(self) -> str:
        """Its address for people and records: that of a mirror can hold a password."""
        scheme, slashes, rest = self.endpoint.rpartition("://")
        authority, slash, path = rest.partition("/")
        return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path}"

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One content of one file. `mark` changes whenever the content does; it is the hash where the hub says that."""

    url: str
    commit: str
    mark: str
    sha256: str | None
    bytes: int | None


def hub_of(environ: Mapping[str, str]) -> Hub:
    """The hub of this environment, by the names that huggingface-hub uses; a token may also be in its own file."""
    offline = (environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or "").upper() in _YES
    token = environ.get("HF_TOKEN", "").strip() or None
    implicit = environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() not in _YES
    if token is None and implicit and not offline:
        token = get_token()
    return Hub(endpoint=(environ.get("HF_ENDPOINT") or PUBLIC).rstrip("/"), token=token, offline=offline)


def look_up(hub: Hub, repo: str, file: str, revision: str | None = None) -> Content:
    """What this file is now. Raises `StoreError`, or `Lost`."""
    what = f"{repo}/{file}"
    if hub.offline:
        raise StoreError(
            f"HF_HUB_OFFLINE is set, so {what} cannot be downloaded; unset it, or bring the file on a stick and run "
            '"appliance models import FILE".'
        )
    constants.HF_HUB_DISABLE_TELEMETRY = True  # it would ask the hub for a list of agents, to say if we are one
    try:
        url = hf_hub_url(repo, file, revision=revision or "main", endpoint=hub.endpoint)
        said = get_hf_file_metadata(url, token=hub.token or False, timeout=PATIENCE, endpoint=hub.endpoint)
    except OfflineModeIsEnabled:
        raise StoreError(f"HF_HUB_OFFLINE is set, so {what} cannot be downloaded; unset it.") from None
    except HfHubHTTPError as error:
        raise _refused(hub, repo, file, error) from None
    except (_TRANSPORT, OSError) as error:
        raise Lost(f"the model hub {hub.shown} cannot be reached ({in_short(error)})") from None
    except ValueError as error:  # an address or a proxy that is none
        why = str(error).splitlines()[0].rstrip(".") if hub.shown == hub.endpoint else "its address is none"
        raise StoreError(
            f"{hub.shown} cannot be asked: {why}; correct HF_ENDPOINT, or the proxy of the environment."
        ) from None
    if said.commit_hash is None or not said.etag:
        raise StoreError(
            f"what answers at {hub.shown} is not a model hub (perhaps a login page of your network); "
            "check the network, or correct HF_ENDPOINT."
        )
    return Content(
        url=hf_hub_url(repo, file, revision=said.commit_hash, endpoint=hub.endpoint),
        commit=said.commit_hash,
        mark=said.etag,
        sha256=said.etag if re.fullmatch(r"[0-9a-f]{64}", said.etag) else None,
        bytes=said.size,
    )


def describe(hub: Hub, name: str) -> Entry:
    """The model "hf:OWNER/REPO/FILE.gguf" as it is on the hub now. Raises `StoreError`, or `Lost`."""
    entry, parts, commits = of_place(name), [], set()
    for one in entry.parts:
        found = look_up(hub, entry.repo, one.file)
        if found.sha256 is None:
            what = f"{entry.repo}/{one.file}"
            raise StoreError(f"{hub.shown} says no hash of {what}, so it cannot be verified; use another hub.")
        parts.append(ModelFile(file=one.file, bytes=found.bytes, sha256=found.sha256))
        commits.add(found.commit)
    revision = commits.pop() if len(commits) == 1 else None
    return replace(entry, revision=revision, parts=tuple(parts), come_from=hub.shown)


def in_short(error: BaseException) -> str:
    """What went wrong on the wire, in a word or two. The library's own words can hold a signed address."""
    known = {
        "ConnectTimeout": "it does not answer",
        "ReadTimeout": "no bytes came",
        "ConnectError": "no connection",
        "ReadError": "the connection broke",
        "RemoteProtocolError": "the connection broke",
        "ProxyError": "the proxy refused",
        "UnsupportedProtocol": "its address begins neither with http:// nor with https://",
    }
    words = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return "its certificate is not trusted"
    if "Name or service not known" in words or "name resolution" in words:
        return "its name is not found"
    if "refused" in words:
        return "it refuses connections"
    return known.get(type(error).__name__, type(error).__name__)


# ---------------------------------------------------------------------------------------------------- refusals


def _refused(hub: Hub, repo: str, file: str, error: HfHubHTTPError) -> Exception:
    """What a status means for us: a sentence, or another try."""
    status = error.response.status_code
    if status in (408, 429) or status >= 500:
        return Lost(f"the model hub {hub.shown} answered with HTTP status {status}")
    if isinstance(error, GatedRepoError):
        do = "set HF_TOKEN to a token of that account" if hub.token is None else "try again"
        return StoreError(
            f"{repo} is only for those who accept its terms: do so at {hub.shown}/{repo} with your account, and {do}."
        )
    if isinstance(error, EntryNotFoundError):
        return StoreError(_not_there(hub, repo, file))
    if isinstance(error, RevisionNotFoundError):
        return StoreError(f"{repo} has no longer the revision that is wanted of {file}; update the appliance.")
    if isinstance(error, DisabledRepoError):
        return StoreError(f"{hub.shown} has closed {repo}; choose another model.")
    if status == 401 and hub.token is not None:
        return StoreError(f"{hub.shown} does not accept your HF_TOKEN; correct it, or unset it for public models.")
    if status in (401, 404):
        return StoreError(
            f"{hub.shown} has no models under {repo}, or they are private; correct the name, or set HF_TOKEN."
        )
    return StoreError(
        f"{hub.shown} refuses {repo}/{file} (HTTP status {status}); look at {hub.shown}/{repo} for the reason."
    )


def _not_there(hub: Hub, repo: str, file: str) -> str:
    """There is no such file; which are there?"""
    missing = f"{repo} has no {file}"
    try:
        files = HfApi(endpoint=hub.endpoint, token=hub.token or False).list_repo_files(repo)
    except (_TRANSPORT, OSError, ValueError, KeyError):
        return f"{missing}; look at {hub.shown}/{repo} for what there is."
    models = [name for name in files if name.lower().endswith(".gguf")]
    if not models:
        return f"{missing}, nor any other GGUF file; choose another repository."
    near = difflib.get_close_matches(file, models, n=_MOST_NAMED, cutoff=0.0)
    more = f" and {len(models) - len(near)} more" if len(models) > len(near) else ""
    return f'{missing}; it has {", ".join(near)}{more}. Try "appliance models pull hf:{repo}/{near[0]}".'

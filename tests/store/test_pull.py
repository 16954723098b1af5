"""A pull from a hub ends with the whole model, or with what was there before, and says which."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from appliance.config import Config, PathsConfig, load_config
from appliance.store.catalog import Entry, ModelFile, StoreError, Unopenable
from appliance.store.disk import LOCK, Step
from appliance.store.download import Stamina
from appliance.store.hub import Hub
from appliance.store.own import own
from appliance.store.pull import pull, wanted
from appliance.store.store import resolve
from tests.store.hub import COMMIT, Break, FakeHub

pytestmark = pytest.mark.live

MODEL = b"GGUF" + os.urandom(3 << 20)
SHA = hashlib.sha256(MODEL).hexdigest()
TINY = Entry(
    name="tiny",
    about="",
    repo="o/r",
    license="mit",
    parts=(ModelFile(file="tiny.gguf", bytes=len(MODEL), sha256=SHA),),
)
HF = "hf:o/r/tiny.gguf"
QUICK = Stamina(stall=5.0, connect=5.0, waits=(0.0, 0.0, 0.0))


def left(paths: PathsConfig) -> list[str]:
    """Every file there is in the store."""
    files = (path.relative_to(paths.models) for path in paths.models.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if path.suffix != LOCK)


def run(fake: FakeHub, paths: PathsConfig, name: str | Entry = TINY, **how: object) -> list[str]:
    """What a pull says."""
    said: list[str] = []
    hub = Hub(endpoint=fake.url, **{key: how.pop(key) for key in ("token", "offline") if key in how})  # type: ignore[arg-type]
    entry = name if isinstance(name, Entry) else wanted(name, paths, say=said.append, hub=hub, stamina=QUICK)
    pull(entry, paths, say=said.append, hub=hub, **{"stamina": QUICK, **how})  # type: ignore[arg-type]
    return said


def failing(fake: FakeHub, paths: PathsConfig, name: str | Entry = TINY, **how: object) -> str:
    with pytest.raises(StoreError) as caught:
        run(fake, paths, name, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(fake.url, "HUB")


# ------------------------------------------------------------------------------------------------ a good line


def test_the_model_is_downloaded_once_verified_and_nothing_else_stays(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    seen: list[Step] = []
    said = run(fake, paths, report=seen.append)
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL
    assert left(paths) == ["tiny.gguf"]
    assert said == [f"Downloading 3 MB from {fake.url}/o/r ..."]
    assert seen[-1] == Step(
        status="downloading", file="tiny.gguf", digest=f"sha256:{SHA}", total=len(MODEL), completed=len(MODEL)
    )
    assert fake.sent == len(MODEL)
    run(fake, paths)
    assert fake.sent == len(MODEL)  # what is here and whole is not fetched again


def test_nothing_but_the_file_is_asked_for_and_the_token_stays_with_the_hub(
    fake: FakeHub, paths: PathsConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    fake.put("o/r/tiny.gguf", MODEL)
    run(fake, paths, token="hf_secret")
    assert constants.HF_HUB_DISABLE_TELEMETRY
    paths_asked = {path for _, path, _ in fake.asked}
    assert paths_asked == {
        "/o/r/resolve/main/tiny.gguf",
        f"/o/r/resolve/{COMMIT}/tiny.gguf",
        "/cache/o/r/tiny.gguf",
    }
    for _, path, headers in fake.asked:
        assert headers.get("authorization") == (None if path.startswith("/cache/") else "Bearer hf_secret")


def test_a_model_of_the_hub_is_pinned_and_found_by_its_name(fake: FakeHub, paths: PathsConfig, tmp_path: Path) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    said = run(fake, paths, HF)
    assert said[0] == "Its license is not stated here: read it before you rely on the model."
    assert left(paths) == ["hf/o/r/tiny.gguf", "hf/o/r/tiny.gguf.json"]
    (entry,) = own(paths.models)
    assert (entry.name, entry.revision, entry.parts) == (HF, COMMIT, TINY.parts)
    asked = [path.split("/")[4] for method, path, _ in fake.asked if method == "HEAD"]
    assert asked == ["main", COMMIT, COMMIT]  # looked up once, and then only that one
    config: Config = replace(load_config(None, {"APPLIANCE_HOME": str(tmp_path)}), paths=paths)
    assert resolve(HF, config).path == paths.models / "hf/o/r/tiny.gguf"
    with pytest.raises(StoreError, match=r'run "appliance models pull hf:o/r/other\.gguf"'):
        resolve("hf:o/r/other.gguf", config)
    (paths.models / "hf/o/r/tiny.gguf.json").unlink()  # a kill came between the two
    assert run(fake, paths, HF) == []
    assert own(paths.models) == (entry,)
    fake.files.clear()
    assert run(fake, paths, HF) == []  # here and whole: no question is asked


def test_a_model_in_several_files_is_whole_with_the_last(fake: FakeHub, paths: PathsConfig) -> None:
    files = [f"q/m-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    for n, file in enumerate(files):
        fake.put(f"o/r/{file}", MODEL + bytes([n]))
    fake.breaks = deque([Break(how="close"), *[Break(how="status")] * 4])
    fake.breaks[0] = Break(how="close", after=len(MODEL) + 1)  # the first file comes whole
    assert "HTTP status 503" in failing(fake, paths, f"hf:o/r/{files[0]}")
    assert own(paths.models) == ()
    sent = fake.sent
    run(fake, paths, f"hf:o/r/{files[0]}")
    assert fake.sent - sent == 2 * (len(MODEL) + 1)
    (entry,) = own(paths.models)
    assert [part.file for part in entry.parts] == files
    assert [(paths.models / "hf/o/r" / file).read_bytes()[-1] for file in files] == [0, 1, 2]


# ------------------------------------------------------------------------------------------------ a bad line


@pytest.mark.parametrize(
    ("fault", "why", "range"),
    [
        (Break(how="close", after=1 << 20), "the connection broke", "bytes=1048576-"),
        (Break(how="silence", after=1 << 20), "no bytes came", "bytes=1048576-"),
        (Break(how="status", status=503), "HTTP status 503", None),
        (Break(how="wrong length", after=1 << 20), "promised 3,145,732 bytes and offers 3,145,739", None),
    ],
    ids=lambda value: value.how if isinstance(value, Break) else "",
)
def test_a_lost_connection_is_taken_up_where_it_was(
    fake: FakeHub, paths: PathsConfig, fault: Break, why: str, range: str | None
) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.breaks.append(fault)
    said = run(fake, paths, stamina=replace(QUICK, stall=0.3) if fault.how == "silence" else QUICK)
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL
    assert why in said[1]
    assert said[1].endswith("; trying again in 0 s ...")
    assert fake.gets() == [None, range]


def test_a_reset_loses_at_most_what_was_on_the_way(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.breaks.extend([Break(how="reset", after=1 << 20)] * 2)
    run(fake, paths)
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL
    assert len(fake.gets()) == 3


def test_a_server_without_ranges_is_read_over_again_and_what_was_here_is_kept(
    fake: FakeHub, paths: PathsConfig
) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.breaks.extend([Break(how="close", after=2 << 20), Break(how="no range", after=1 << 20), Break(how="no range")])
    run(fake, paths)
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL
    assert fake.gets() == [None, "bytes=2097152-", "bytes=2097152-"]


def test_a_range_that_was_not_asked_for_is_not_used(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.breaks.extend([Break(how="close", after=1 << 20), Break(how="wrong range")])
    said = run(fake, paths)
    assert "An answer did not go on where it was asked to; trying again in 0 s ..." in said
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL


@pytest.mark.parametrize(("known", "range"), [(len(MODEL), "bytes=1048576-"), (None, None)])
def test_a_hub_that_says_no_size_is_believed_to_the_last_byte(
    fake: FakeHub, paths: PathsConfig, known: int | None, range: str | None
) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.sizes = False
    fake.breaks.append(Break(how="close", after=1 << 20))
    run(fake, paths, replace(TINY, parts=(replace(TINY.parts[0], bytes=known),)))
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL
    assert fake.gets() == [None, range]  # where nobody knows how long it is, it is begun anew


def test_a_file_that_changes_in_the_middle_is_begun_anew(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.breaks.append(Break(how="change", after=1 << 20))
    loose = replace(TINY, parts=(ModelFile(file="tiny.gguf", sha256=SHA),))
    assert "o/r has another tiny.gguf now than the one that was checked" in failing(fake, paths, loose)
    assert left(paths) == ["tiny.gguf.part", "tiny.gguf.part.of"]
    fake.files["o/r/tiny.gguf"] = other = MODEL[::-1] + b"!"
    anew = replace(TINY, parts=(ModelFile(file="tiny.gguf", sha256=hashlib.sha256(other).hexdigest()),))
    run(fake, paths, anew)
    assert fake.gets()[-1] is None
    assert (paths.models / "tiny.gguf").read_bytes() == other


def test_a_busy_hub_is_asked_again(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.busy = 2
    assert run(fake, paths)[0] == f"The model hub {fake.url} answered with HTTP status 503; trying again in 0 s ..."
    assert left(paths) == ["tiny.gguf"]


def test_a_line_that_brings_nothing_ends_with_a_sentence_and_what_came_stays(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.breaks.extend([Break(how="close", after=1 << 20), *[Break(how="status")] * 9])
    assert failing(fake, paths) == (
        "tiny.gguf was not downloaded: the download was answered with HTTP status 503; run the same command again "
        "later, and it goes on where it was."
    )
    assert len(fake.gets()) == 4
    assert (paths.models / "tiny.gguf.part").read_bytes() == MODEL[: 1 << 20]
    fake.breaks.clear()
    sent = fake.sent
    assert run(fake, paths) == [f"Downloading 3 MB from {fake.url}/o/r, of which 1 MB are here ..."]
    assert fake.sent - sent == len(MODEL) - (1 << 20)
    assert left(paths) == ["tiny.gguf"]


# -------------------------------------------------------------------------------------------------- refusals


def test_a_wrong_hash_is_not_installed(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    fake.hashes = False
    wrong = replace(TINY, parts=(replace(TINY.parts[0], sha256="0" * 64),))
    assert failing(fake, paths, wrong) == (
        f"tiny.gguf came with a wrong hash, so it was not installed: its sha256 is {SHA[:12]}..., expected "
        "000000000000...; try again, and if it happens again, another hub (HF_ENDPOINT)."
    )
    assert left(paths) == []


def test_what_llama_cpp_does_not_take_is_deleted_whole(fake: FakeHub, paths: PathsConfig) -> None:
    files = [f"q/m-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    for n, file in enumerate(files):
        fake.put(f"o/r/{file}", MODEL + bytes([n]))
    name, seen = f"hf:o/r/{files[0]}", []

    def refuse(path: Path) -> None:
        seen.append([(each.name, each.read_bytes()[-1]) for each in sorted(path.parent.iterdir())])
        raise Unopenable(f"{path} is damaged. Fetch it again.")

    fake.breaks = deque([Break(how="close"), *[Break(how="status")] * 4])
    fake.breaks[0] = Break(how="close", after=len(MODEL) + 1)  # the first file comes whole, and is not asked about
    failing(fake, paths, name, accept=refuse)
    assert failing(fake, paths, name, accept=refuse) == (
        f"{name} is damaged; so it was deleted again, and another download would bring the same: choose another model, "
        "or update the appliance."
    )
    assert seen == [[(Path(file).name, n) for n, file in enumerate(files)]]
    assert left(paths) == []
    assert not (paths.models / "hf").exists()


def test_what_is_tried_is_the_whole_file_and_not_what_was_begun_once(fake: FakeHub, paths: PathsConfig) -> None:
    files = [f"q/m-{n:05}-of-00002.gguf" for n in (1, 2)]
    for file in files:
        fake.put(f"o/r/{file}", MODEL)
    first = paths.models / "hf/o/r" / files[0]
    first.parent.mkdir(parents=True)
    first.write_bytes(MODEL)  # brought by hand, after a pull of it had begun
    first.with_name(first.name + ".part").write_bytes(b"GGUF")
    seen: list[bool] = []

    def look(path: Path) -> None:
        seen.extend(each.read_bytes() == MODEL for each in path.parent.iterdir())

    run(fake, paths, f"hf:o/r/{files[0]}", accept=look)
    assert seen == [True, True]


def test_a_model_that_could_not_be_tried_is_kept_for_the_next_pull(fake: FakeHub, paths: PathsConfig) -> None:
    def fail(path: Path) -> None:
        raise StoreError(f"{path} cannot be read: Input/output error.")

    fake.put("o/r/tiny.gguf", MODEL)
    assert failing(fake, paths, accept=fail) == "tiny cannot be read: Input/output error."
    assert left(paths) == ["tiny.gguf.part", "tiny.gguf.part.of"]
    run(fake, paths)
    assert left(paths) == ["tiny.gguf"]
    assert fake.sent == len(MODEL)


def test_another_file_under_the_name_is_not_even_downloaded(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL + b"!")
    assert failing(fake, paths) == (
        'o/r has another tiny.gguf now than the one that was checked for "tiny", so it was not downloaded; update the '
        'appliance, or take it as it is with "appliance models pull hf:o/r/tiny.gguf".'
    )
    assert fake.sent == 0


def test_a_file_that_is_not_there_says_what_is(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny-MXFP4.gguf", MODEL)
    fake.put("o/r/README.md", b"")
    assert failing(fake, paths) == (
        'o/r has no tiny.gguf; it has tiny-MXFP4.gguf. Try "appliance models pull hf:o/r/tiny-MXFP4.gguf".'
    )
    del fake.files["o/r/tiny-MXFP4.gguf"]
    assert failing(fake, paths) == "o/r has no tiny.gguf, nor any other GGUF file; choose another repository."
    fake.files.clear()
    assert failing(fake, paths) == (
        "HUB has no models under o/r, or they are private; correct the name, or set HF_TOKEN."
    )
    assert left(paths) == []


@pytest.mark.parametrize(
    ("refusal", "token", "words"),
    [
        ((403, {"X-Error-Code": "GatedRepo"}), None, "HUB/o/r with your account, and set HF_TOKEN to a token of"),
        ((403, {"X-Error-Code": "GatedRepo"}), "hf_x", "HUB/o/r with your account, and try again."),
        ((401, {"X-Error-Message": "Invalid credentials in Authorization header"}), "hf_x", "does not accept your HF_"),
        ((403, {"X-Error-Message": "Access to this resource is disabled."}), None, "HUB has closed o/r; choose"),
        ((404, {"X-Error-Code": "RevisionNotFound"}), None, "has no longer the revision that is wanted of tiny.gguf"),
        ((451, {}), None, "HUB refuses o/r/tiny.gguf (HTTP status 451); look at HUB/o/r for the reason."),
        ((200, {}), None, "what answers at HUB is not a model hub (perhaps a login page of your network)"),
    ],
)
def test_each_refusal_is_one_sentence_that_says_what_to_do(
    fake: FakeHub, paths: PathsConfig, refusal: tuple[int, dict[str, str]], token: str | None, words: str
) -> None:
    fake.refusals["o/r"] = refusal
    assert words in failing(fake, paths, token=token)
    assert left(paths) == []
    assert sum(method == "HEAD" for method, _, _ in fake.asked) == 1  # asking again would not help


def test_without_a_network_and_when_told_to_be_offline(fake: FakeHub, paths: PathsConfig) -> None:
    assert failing(fake, paths, offline=True) == (
        "HF_HUB_OFFLINE is set, so o/r/tiny.gguf cannot be downloaded; unset it, or bring the file on a stick and run "
        '"appliance models import FILE".'
    )
    assert fake.asked == []
    with pytest.raises(StoreError) as caught:
        pull(TINY, paths, say=lambda _: None, hub=Hub(endpoint="http://127.0.0.1:9"), stamina=QUICK)
    assert str(caught.value) == (
        '"tiny" was not downloaded: the model hub http://127.0.0.1:9 cannot be reached (it refuses connections); check '
        'the network and try again, or bring the file on a stick and run "appliance models import FILE".'
    )


@pytest.mark.parametrize(
    ("endpoint", "proxy", "words"),
    [
        ("hub.example", "", "(its address begins neither with http:// nor with https://)"),
        ("http://hub.example", "socks://x", "correct HF_ENDPOINT, or the proxy of the environment."),
    ],
)
def test_an_address_that_is_none_is_one_sentence(
    paths: PathsConfig, monkeypatch: pytest.MonkeyPatch, endpoint: str, proxy: str, words: str
) -> None:
    close_session()
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(StoreError) as caught:
        pull(TINY, paths, say=lambda _: None, hub=Hub(endpoint=endpoint), stamina=QUICK)
    assert words in str(caught.value)


def test_too_little_room_is_said_before_anything_is_fetched(fake: FakeHub, paths: PathsConfig) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 10**18

    fake.put("o/r/tiny.gguf", Huge(MODEL))
    huge = replace(TINY, parts=(replace(TINY.parts[0], bytes=10**18),))
    assert '"tiny" needs 1,000,000,000.0 GB at ' in failing(fake, paths, huge)
    assert fake.sent == 0


def test_a_disk_that_fills_is_one_sentence_and_what_came_stays(fake: FakeHub, paths: PathsConfig) -> None:
    fake.put("o/r/tiny.gguf", MODEL)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # a limit for one file breaks as a full disk does
    try:
        said = failing(fake, paths)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said == (
        'the disk is full, so "tiny" was not installed; free some space and run the same command again: it goes on '
        "where it was."
    )
    assert (paths.models / "tiny.gguf.part").read_bytes() == MODEL[: 1 << 20]
    run(fake, paths)
    assert left(paths) == ["tiny.gguf"]
    assert (paths.models / "tiny.gguf").read_bytes() == MODEL


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk: needs root")
def test_a_small_disk_that_is_really_full(fake: FakeHub, paths: PathsConfig) -> None:
    paths.models.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", paths.models], capture_output=True).returncode:
        pytest.skip("this root may not mount")
    try:
        fake.put("o/r/tiny.gguf", MODEL)
        assert '"tiny" needs 3 MB at ' in failing(fake, paths)
        unsized = replace(TINY, parts=(ModelFile(file="tiny.gguf", sha256=SHA),))
        fake.sizes = False
        assert failing(fake, paths, unsized).startswith('the disk is full, so "tiny" was not installed; free some')
        assert (paths.models / "tiny.gguf.part").stat().st_size > 1 << 20
    finally:
        subprocess.run(["umount", paths.models], check=True)


# ----------------------------------------------------------------------------------------------------- kills


PULLS = """
import os, sys
from appliance.__main__ import main
import appliance.store.pull
from appliance.backends import box
box.weigh = lambda path, **how: None  # what is pulled here is no model
for name in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os._exit(main(["models", "pull", name.strip()]))
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""
"""Runs the command once for each line, in a process of its own, and says how that one ended."""


def test_a_pull_that_is_killed_ten_times_fetches_each_byte_about_once(fake: FakeHub, isolated: Path) -> None:
    kills, step = 10, 300_000
    content = b"GGUF" + os.urandom(kills * step + 50_000)
    sha = fake.put("o/r/tiny.gguf", content)
    whole = isolated / "models/hf/o/r/tiny.gguf"
    part = whole.with_name("tiny.gguf.part")
    environ = os.environ | {"HF_ENDPOINT": fake.url, "HF_TOKEN": "hf_x"}
    said = isolated / "said.txt"
    with (
        said.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", PULLS],
            env=environ,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as pulls,
    ):
        assert pulls.stdin is not None and pulls.stdout is not None

        def line() -> str:
            """The next one that the launcher writes, past those of the command."""
            while not (found := pulls.stdout.readline()).strip().isdecimal():
                assert found, said.read_text()
            return found

        for kill in range(1, kills + 1):
            fake.breaks.append(Break(how="silence", after=step))
            print("hf:o/r/tiny.gguf", file=pulls.stdin, flush=True)
            pid, until = int(line()), time.monotonic() + 60
            while not part.is_file() or part.stat().st_size < kill * step:
                assert time.monotonic() < until, said.read_text()
                fake.over.wait(0.005)
            os.kill(pid, signal.SIGKILL)
            assert int(line()) == signal.SIGKILL
            assert not whole.exists()
        print("hf:o/r/tiny.gguf", file=pulls.stdin, flush=True)
        assert (int(line()) > 0, int(line())) == (True, 0), said.read_text()
        pulls.stdin.close()
    assert hashlib.sha256(whole.read_bytes()).hexdigest() == sha
    assert fake.sent == len(content)  # each byte exactly once: what came was on the disk when the kill came
    assert not part.exists()

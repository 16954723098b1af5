"""The catalog: complete, consistent, and found by name."""

from __future__ import annotations

import re

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.engine.speech import SPEECHES
from appliance.store.catalog import BOXES, Entry, ModelFile, Package, StoreError, find, parse_catalog, read_catalog

CATALOG = read_catalog()


def test_names_and_files_are_each_of_one_model() -> None:
    names = [entry.name for entry in CATALOG]
    files = [part.file for entry in CATALOG for part in entry.parts]
    assert len(set(names)) == len(names) > 20
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
def test_every_entry_can_be_verified(entry: Entry) -> None:
    assert re.fullmatch(r"[a-z0-9.-]+", entry.name)
    assert entry.parts
    for part in entry.parts:
        assert re.fullmatch(r"[0-9a-f]{64}", part.sha256)
        assert re.fullmatch(r"[\w.-]+\.gguf", part.file)


def test_the_starter_is_carried_by_a_package_and_says_that_it_is_weak() -> None:
    starter = find("starter")
    assert starter.bytes == 98_362_432
    assert starter.license == "apache-2.0"
    assert starter.package is not None
    assert starter.package.member.endswith("/" + starter.file)
    assert "weak" in starter.about


def test_the_starters_template_is_plain_chatml_without_a_system_prompt_of_its_own() -> None:
    template = find("starter").template
    assert template is not None
    chat = [{"role": "user", "content": " Hi\n"}, {"role": "assistant", "content": "Yes"}]
    turns = "<|im_start|>user\n Hi\n<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    for options in ({}, {"trim_blocks": True, "lstrip_blocks": True}):
        compiled = ImmutableSandboxedEnvironment(**options).from_string(template)
        assert compiled.render(messages=chat) == turns
        assert compiled.render(messages=chat, add_generation_prompt=True) == turns + "<|im_start|>assistant\n"


def test_an_entry_of_several_files_has_a_size_only_if_each_is_known() -> None:
    text = '[[model]]\nname = "a"\nabout = ""\nrepo = ""\n' + "".join(
        f'[[model.part]]\nfile = "{n}.gguf"\nsha256 = "s{n}"\nbytes = {n}\n' for n in (1, 2)
    )
    (entry,) = parse_catalog(text)
    assert entry == Entry(
        name="a",
        about="",
        repo="",
        parts=(ModelFile(file="1.gguf", sha256="s1", bytes=1), ModelFile(file="2.gguf", sha256="s2", bytes=2)),
    )
    assert (entry.file, entry.bytes) == ("1.gguf", 3)
    (entry,) = parse_catalog(text.replace("bytes = 2\n", ""))
    assert entry.bytes is None


def test_an_entry_of_one_file_may_come_in_a_package() -> None:
    (entry,) = parse_catalog(
        '[[model]]\nname = "a"\nabout = ""\nrepo = ""\nfile = "f.gguf"\nsha256 = "s"\n'
        '[model.package]\nname = "p"\nversion = "1"\nsha256 = "w"\nmember = "p/f.gguf"\n'
    )
    assert entry.parts == (ModelFile(file="f.gguf", sha256="s"),)
    assert entry.package == Package(name="p", version="1", sha256="w", member="p/f.gguf")


def test_a_name_is_found_in_any_case_and_a_near_miss_is_helped() -> None:
    assert find("Starter").name == "starter"
    with pytest.raises(StoreError) as caught:
        find("qwen3.5-4")
    assert str(caught.value) == 'the catalog has no model "qwen3.5-4"; did you mean "qwen3.5-4b"?'
    with pytest.raises(StoreError, match='"appliance models list" shows those there are'):
        find("zzz")


@pytest.mark.parametrize("box", BOXES)
def test_every_box_has_one_first_choice(box: str) -> None:
    first = [entry for entry in CATALOG if box in entry.boxes]
    assert len(first) == 1
    assert first[0].kind == "chat"


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
def test_only_free_models_are_recommended_and_every_figure_is_possible(entry: Entry) -> None:
    if entry.boxes or entry.also:
        assert entry.license in ("apache-2.0", "mit")
    assert {*entry.boxes, *entry.also} <= set(BOXES)
    assert not set(entry.boxes) & set(entry.also)
    assert 0 < entry.active <= 1
    assert entry.revision is None or re.fullmatch(r"[0-9a-f]{40}", entry.revision)
    size = entry.bytes or entry.roughly
    assert size is not None and entry.memory is not None and size < entry.memory
    for box in (*entry.boxes, *entry.also):
        kind, gigabytes = box.split("-")
        assert entry.memory < int(gigabytes) * (0.8e9 if kind == "cpu" else 1 << 30)


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
def test_every_family_is_a_row_of_the_engines_table_and_says_if_it_ran(entry: Entry) -> None:
    weights = {row.family: row.weights for row in SPEECHES}
    if entry.kind == "embedding":
        assert entry.family is None
    else:
        assert entry.family in weights
    assert entry.run_with_weights is (entry.name == "starter")  # the only one that a box of ours has answered with


def test_each_family_that_the_engine_knows_by_name_has_a_model() -> None:
    without = {row.family for row in SPEECHES} - {entry.family for entry in CATALOG}
    # Rows for models that people bring themselves; none of them is a first choice any more.
    assert without == {"gemma", "llama-3", "mistral-id", "mistral-list", "smollm3"}

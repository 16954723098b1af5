"""A generate frame is checked before anything is done with it."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.engine.job import Job, Refusal, Settings, parse


def job(**more: Any) -> Job:
    return parse({"id": 1, "messages": [{"role": "user", "content": "x"}], **more}, vocabulary=100)


def test_what_is_not_said_is_the_default() -> None:
    one = job(committed=None, max_tokens=None, sampling={"temperature": None})
    assert (one.committed, one.max_tokens, one.stop, one.trim, one.settings) == ("", None, (), False, Settings())


def test_what_is_said_counts() -> None:
    settings = job(sampling={"temperature": 0, "top_k": 5, "seed": 7, "logit_bias": [[99, -1]]}).settings
    assert settings == Settings(temperature=0.0, top_k=5, seed=7, logit_bias=((99, -1.0),))
    assert settings.greedy


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"sampling": {"logit_bias": [[100, 1]]}}, "logit_bias"),
        ({"sampling": {"logit_bias": [[-1, 1]]}}, "logit_bias"),
        ({"sampling": {"logit_bias": [["1", 1]]}}, "logit_bias"),
        ({"sampling": {"logit_bias": [[1, "x"]]}}, "logit_bias"),
        ({"sampling": {"temperature": -1}}, "temperature"),
        ({"sampling": {"temperature": float("nan")}}, "temperature"),
        ({"sampling": {"temperature": True}}, "temperature"),
        ({"sampling": {"top_p": 1.5}}, "top_p"),
        ({"sampling": {"repeat_penalty": 0}}, "repeat_penalty"),
        ({"sampling": {"top_k": 1.5}}, "top_k"),
        ({"sampling": {"seed": "x"}}, "seed"),
        ({"sampling": []}, None),
        ({"sampling": [1]}, "sampling"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"stop": "x"}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"committed": 3}, "committed"),
        ({"committed": "x", "prefill": 2}, "prefill"),
        ({"committed": "x", "prefill": -1}, "prefill"),
        ({"committed": "x", "prefill": True}, "prefill"),
        ({"prefill": 1}, "prefill"),
        ({"messages": "x"}, "messages"),
        ({"messages": [1]}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(more: dict[str, Any], param: str | None) -> None:
    if param is None:
        assert job(**more).settings == Settings()
        return
    with pytest.raises(Refusal) as caught:
        job(**more)
    assert (caught.value.fault, caught.value.more) == ("request", {"param": param})
    assert caught.value.message.startswith(f"'{param}' must be ")


@pytest.mark.parametrize(
    ("more", "first"), [({}, False), ({"committed": "x"}, True), ({"committed": "x", "first": False}, False)]
)
def test_who_is_read_already_goes_first_unless_it_is_said_otherwise(more: dict[str, Any], first: bool) -> None:
    assert job(**more).first is first


def test_a_job_does_not_show_what_was_written() -> None:
    assert "secret" not in repr(job(messages=[{"role": "user", "content": "secret"}], committed="secret"))

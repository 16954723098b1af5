"""What goes up to a cloud: bytes, path, query, headers, and whose key. Real sockets."""

import json
from dataclasses import replace

import pytest

from appliance.backends import cloud
from appliance.core.chat import ChatRequest, Message, Sampling, Text
from appliance.core.events import Degraded, Opened
from appliance.core.fault import BackendError, Fault, Reply
from appliance.core.seams import Quirks
from appliance.dialects.openai_chat import OPENAI
from tests.backends.scripted import (
    BODY,
    JSON,
    KEY,
    SSE,
    WHOLE,
    Silent,
    chunk,
    failed,
    healthy,
    read,
    says,
    sent,
    within,
)

pytestmark = pytest.mark.live

FOREIGN = ChatRequest(
    dialect="ancient",
    model="gpt-4",
    messages=(Message(role="user", parts=(Text("Why?"),)),),
    stream=True,
    unsaid=("incense", "omens"),
    headers=(("x-title", "theirs"), ("ancient-beta", "theirs"), ("user-agent", "theirs"), ("authorization", "theirs")),
    query="beta=true",
)


class Insistent:
    """OpenAI's dialect, as of a cloud that insists on a header and has its lists elsewhere."""

    said_anyway = (("anthropic-version", "2023-06-01"),)
    models_path = "v1/models"

    def __getattr__(self, name):
        return getattr(OPENAI, name)


# ------------------------------------------------------------------------------------------- bytes and address


def test_the_cloud_gets_the_clients_own_bytes_at_the_dialects_path():
    request = sent()
    assert (request.method, request.target, request.body) == ("POST", "/v1/chat/completions", BODY)
    assert request.values("content-length") == [str(len(BODY))]


def test_a_slash_at_the_end_of_the_base_url_is_one_too_many_and_no_harm():
    async def scene(made, there):
        other = cloud.CloudBackend(cloud.CloudTarget(name="o", base_url=f"{made._base}//"), OPENAI)
        await read(other)
        await other.aclose()
        return there.sent[0].target

    assert within(scene, healthy) == "/v1/chat/completions"


def test_an_alias_changes_the_models_value_and_nothing_else():
    assert sent(model="gpt-5-big").body == BODY.replace(b"gpt-4", b"gpt-5-big")


def test_a_long_body_goes_up_whole():
    long = BODY.replace(b"Why?", b"Why? " * 500_000)
    assert sent(body=long).body == long


@pytest.mark.parametrize("query", ["beta=true", "a=%2F&b=c+d&a=1", "api-version=2025-01-01&x=%20"])
def test_the_query_of_the_client_goes_up_as_it_came(query):
    assert sent(request=replace(OPENAI.parse(BODY), query=query)).target == f"/v1/chat/completions?{query}"


def test_a_query_with_what_no_request_line_may_hold_is_written_in_percents():
    assert sent(request=replace(OPENAI.parse(BODY), query="a=b c\u00e9")).target == "/v1/chat/completions?a=b%20c%E9"


# ----------------------------------------------------------------------------------------------------- headers


def test_what_carries_meaning_goes_up_and_what_is_between_two_others_does_not():
    meaning = [("openai-beta", "assistants=v2"), ("anthropic-version", "1"), ("x-title", "app"), ("user-agent", "mine")]
    kept_back = sorted(cloud.NOT_PASSED_UP | cloud.CREDENTIALS)
    between = [(name, "theirs") for name in kept_back] + [("x-appliance-route", "theirs")]
    request = sent(headers=(*meaning, *between))
    assert [(name, request.values(name)) for name, _ in meaning] == [(name, [value]) for name, value in meaning]
    assert [name for name, value in request.headers if value == b"theirs"] == []


@pytest.mark.parametrize(
    "name",
    "connection keep-alive te trailer transfer-encoding upgrade host content-length cookie accept-encoding "
    "content-encoding expect authorization x-api-key api-key proxy-authorization origin".split(),
)
def test_this_header_never_goes_up(name):
    assert "theirs" not in sent(headers=((name, "theirs"),)).values(name)


def test_what_the_clients_connection_header_names_stays_behind():
    request = sent(headers=(("connection", "keep-alive, X-Hop"), ("x-hop", "theirs"), ("x-title", "app")))
    assert (request.values("x-hop"), request.values("x-title")) == ([], ["app"])


def test_a_header_that_came_twice_goes_up_twice_and_in_order():
    headers = (("openai-beta", "one"), ("x-title", "app"), ("openai-beta", "two"))
    assert sent(headers=headers).values("openai-beta") == ["one", "two"]


def test_the_bytes_of_a_header_go_up_as_they_came():
    written = "Café →".encode()
    request = sent(headers=(("x-title", written.decode("latin-1")),))
    assert ("x-title", written) in request.headers


def test_a_header_in_latin_1_goes_up_with_the_same_letters():
    assert ("x-title", "Café".encode()) in sent(headers=(("x-title", "Café"),)).headers


@pytest.mark.parametrize(("body", "accept"), [(BODY, "text/event-stream"), (WHOLE, "application/json")])
def test_we_ask_for_what_we_can_read(body, accept):
    request = sent(body=body)
    found = [request.values(name) for name in ("accept", "content-type", "accept-encoding")]
    assert found == [[accept], ["application/json"], ["identity"]]
    assert request.values("host")[0].startswith("127.0.0.1:")


def test_who_has_no_name_goes_under_ours():
    assert sent().header("user-agent").startswith("fallback-appliance/")
    assert sent(headers=(("user-agent", "mine/1"),)).values("user-agent") == ["mine/1"]


def test_a_configured_header_goes_before_the_clients_own():
    async def scene(made, there):
        await read(made, headers=(("openai-project", "theirs"),))
        return there.sent[0].values("openai-project")

    assert within(scene, healthy, headers=(("OpenAI-Project", "ours"),)) == ["ours"]


def test_a_cloud_that_sets_a_cookie_does_not_get_it_back():
    async def scene(made, there):
        await read(made)
        await read(made)
        return [request.values("cookie") for request in there.sent]

    assert within(scene, says(200, SSE | {"set-cookie": "who=first; Path=/"}, chunk("Hi", "stop"))) == [[], []]


def test_what_a_cloud_insists_on_is_said_unless_somebody_says_it():
    def found(theirs=(), **target):
        async def scene(made, there):
            await read(made, headers=theirs)
            return there.sent[0].values("anthropic-version")

        return within(scene, healthy, dialect=Insistent(), **target)

    assert found() == ["2023-06-01"]
    assert found((("anthropic-version", "client"),)) == ["client"]
    assert found(headers=(("Anthropic-Version", "ours"),)) == ["ours"]


# -------------------------------------------------------------------------------------------------- whose key


def test_our_key_is_shown_and_not_the_clients():
    theirs = (("authorization", "Bearer client"), ("x-api-key", "client"), ("api-key", "client"))
    request = sent(headers=theirs, key=KEY)
    assert [request.values(name) for name in ("authorization", "x-api-key", "api-key")] == [[f"Bearer {KEY}"], [], []]
    assert sent(headers=theirs).values("authorization") == []


def test_our_key_is_shown_where_the_dialect_has_it():
    class Own(Insistent):
        key_header = "X-API-Key"

    request = sent(key=KEY, dialect=Own())
    assert (request.values("x-api-key"), request.values("authorization")) == ([KEY], [])


@pytest.mark.parametrize("name", ["x-api-key", "API-Key"])
def test_a_key_in_another_header_is_bare(name):
    request = sent(key=KEY, key_header=name)
    assert (request.values(name.lower()), request.values("authorization")) == ([KEY], [])


@pytest.mark.parametrize("name", sorted(cloud.CREDENTIALS))
def test_a_client_that_has_its_own_credential_shows_it_itself(name):
    request = sent(headers=((name, "Bearer own"), ("cookie", "no")), client_key=True)
    assert (request.values(name), request.values("cookie")) == (["Bearer own"], [])


@pytest.mark.parametrize("status", [401, 403])
def test_a_cloud_that_refuses_the_clients_credential_answers_the_client(status):
    body = b'{"error":{"type":"authentication_error","message":"expired"}}'
    headers = JSON | {"www-authenticate": "Bearer", "request-id": "r", "set-cookie": "a=b"}
    error = failed(says(status, headers, body), client_key=True)
    assert (error.fault, error.status) == (Fault.REQUEST, status)
    assert error.reply == Reply(
        status=status,
        body=body,
        headers=(("request-id", "r"), ("content-type", "application/json"), ("www-authenticate", "Bearer")),
        dialect="openai",
    )
    assert failed(says(status, headers, body), key=KEY).fault is Fault.CONFIG


@pytest.mark.parametrize(("status", "body"), [(403, b"<html>blocked</html>"), (429, b"{}"), (500, b"{}")])
def test_another_refusal_is_judged_as_ever(status, body):
    answer = says(status, JSON, body)
    assert failed(answer, client_key=True).fault is failed(answer, key=KEY).fault is not Fault.REQUEST


# -------------------------------------------------------------------------------------------- another dialect


def test_of_a_request_of_another_dialect_nothing_goes_up_but_its_meaning():
    request = sent(request=FOREIGN, key=KEY)
    assert request.target == "/v1/chat/completions"
    assert [name for name, value in request.headers if b"theirs" in value] == []
    assert request.values("authorization") == [f"Bearer {KEY}"]
    assert json.loads(request.body)["messages"][0]["role"] == "user"


def test_what_was_lost_in_translation_is_said_first():
    async def scene(made, _):
        return await read(made, request=FOREIGN)

    batches = within(scene, healthy)
    assert batches[0] == [Opened(headers=()), Degraded(what="incense"), Degraded(what="omens")]


def test_what_the_dialect_leaves_out_for_this_model_is_said_too_and_nothing_twice():
    request = replace(FOREIGN, sampling=Sampling(temperature=0.5), user="u", unsaid=("incense", "user"))
    quirks = Quirks(new_limit=("o*",), short_ids=True)

    async def scene(made, _):
        return await read(made, request=request, model="o3")

    lost = [event.what for event in within(scene, healthy, quirks=quirks)[0][1:]]
    assert lost == ["incense", "user", "temperature"]


def test_what_a_cloud_of_the_clients_own_dialect_is_not_told_is_said():
    class Losing(Insistent):
        def losses(self, request, model, quirks):
            return ("thinking",)

    batches = within(lambda made, _: read(made), healthy, dialect=Losing())
    assert batches[0] == [Opened(headers=()), Degraded(what="thinking")]


def test_of_the_same_dialect_nothing_is_lost():
    request = replace(OPENAI.parse(BODY), unsaid=("incense",))

    async def scene(made, _):
        return await read(made, request=request)

    assert within(scene, healthy)[0] == [Opened(headers=())]


def test_the_clouds_quirks_are_told_to_the_dialect():
    told = []

    class Telling(Insistent):
        def render(self, request, model, quirks):
            told.append((model, quirks))
            return BODY

    quirks = Quirks(new_limit=("o*",))

    async def scene(made, _):
        await read(made, model="o3")

    within(scene, healthy, dialect=Telling(), quirks=quirks)
    assert told == [("o3", quirks)]


def test_a_request_of_another_dialect_never_goes_up_with_a_credential_of_the_clients():
    with pytest.raises(AssertionError):
        within(lambda made, _: read(made, request=FOREIGN), healthy, client_key=True)


# -------------------------------------------------------------------------------------------- small questions


def test_the_list_of_models_is_read():
    listed = b'{"data":[{"id":"one"},{"id":"two"},{"id":3}]}'

    async def scene(made, there):
        return await made.models(), there.sent[0]

    names, request = within(scene, says(200, JSON, listed), key=KEY, dialect=Insistent())
    assert names == ("one", "two")
    assert (request.method, request.target) == ("GET", "/v1/v1/models")
    assert (request.values("authorization"), request.values("anthropic-version")) == ([f"Bearer {KEY}"], ["2023-06-01"])


def test_a_list_of_several_pages_is_read_to_its_end():
    def pages(request):
        more = b"after_id=one" not in request.target.encode()
        return says(200, JSON, json.dumps({"data": [{"id": "one" if more else "two"}], "has_more": more}).encode())

    async def scene(made, there):
        return await made.models(), [request.target for request in there.sent]

    assert within(scene, pages) == (("one", "two"), ["/v1/models", "/v1/models?limit=1000&after_id=one"])


@pytest.mark.parametrize(
    "answer",
    [says(401, JSON, b"{}"), says(200, JSON, b"<html>"), says(200, JSON, b'{"data":[1]}'), says(200, JSON, b"[]"), b""],
)
def test_a_cloud_that_does_not_say_its_models_has_none(answer):
    assert within(lambda made, _: made.models(), answer) == ()


def test_a_small_question_is_asked_like_any_other():
    headers = (("x-title", "app"), ("authorization", "theirs"))
    request = replace(OPENAI.parse(BODY, headers), query="beta=true")

    async def scene(made, there):
        return await made.ask("v1/count", b'{"a":1}', request), there.sent[0]

    answer = says(200, JSON | {"request-id": "r", "server": "x"}, b'{"input_tokens":', b"7}")
    reply, asked = within(scene, answer, key=KEY)
    assert reply == Reply(
        status=200,
        body=b'{"input_tokens":7}',
        headers=(("request-id", "r"), ("content-type", "application/json")),
        dialect="openai",
    )
    assert (asked.target, asked.body) == ("/v1/v1/count?beta=true", b'{"a":1}')
    assert (asked.values("x-title"), asked.values("authorization")) == (["app"], [f"Bearer {KEY}"])


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (says(404, JSON, b"{}"), Fault.CONFIG),
        (says(500, JSON, b"{}"), Fault.SERVER),
        (says(200, {"content-type": "text/html"}, b"<html>"), Fault.BROKEN),
        (b"", Fault.BROKEN),
    ],
)
def test_a_small_question_fails_like_any_other(answer, fault):
    with pytest.raises(BackendError) as caught:
        within(lambda made, _: made.ask("count", b"{}", OPENAI.parse(BODY)), answer)
    assert caught.value.fault is fault


def test_a_small_question_has_its_time(monkeypatch):
    monkeypatch.setattr(cloud, "ASK_SECONDS", 0.05)

    with pytest.raises(BackendError) as caught:
        within(lambda made, _: made.ask("count", b"{}", OPENAI.parse(BODY)), Silent())
    assert caught.value.fault is Fault.SILENT

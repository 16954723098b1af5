"""The relay in company: the breakers it shares, the box as a stand-in, who leaves, and what is said in the end."""

import pytest

from appliance.core.actions import Done
from appliance.core.events import Degraded, Takeover
from appliance.core.fault import BackendError, Fault, Reply
from appliance.core.pulse import Timeouts
from appliance.core.relay import Relay
from appliance.core.scopes import Breakers
from tests.core.scenes import BOX, CLAUDE, ENDED, OPENAI, START, A, ask, begin, broke, opened, told, verdict

FULL = BackendError(Fault.BUSY, "All slots of the box are taken.", status=503, retry_after=7.0)


# --------------------------------------------------------------------------------------------- breakers


def test_a_cloud_whose_breaker_is_open_is_passed_over():
    relay, actions = begin(CLAUDE, BOX, now=5.0, claude=opened())
    assert told(actions) == [("call", "local", None)]
    assert (relay.fallback, relay.leg) == ("breaker-open", BOX)


def test_the_fallback_names_the_first_reason_only():
    relay, _ = begin(CLAUDE, OPENAI, BOX, now=5.0, claude=opened())
    relay.fail(broke(Fault.SILENT), 6.0)
    assert relay.fallback == "breaker-open"


def test_with_every_breaker_open_and_no_box_the_client_hears_why():
    _, actions = begin(CLAUDE, now=5.0, claude=opened())
    assert verdict(actions) == (Fault.SERVER, 500, "claude said 500.")


def test_a_breaker_that_is_busy_with_its_trial_says_the_cloud_is_set_aside():
    breaker = opened()
    breaker.why = lambda now, model: None
    breaker.begin(10.0)
    _, actions = begin(CLAUDE, now=10.0, claude=breaker)
    assert verdict(actions) == (Fault.BUSY, 503, "claude is set aside.")


def test_with_no_leg_at_all_the_client_hears_so():
    _, actions = begin()
    assert verdict(actions) == (Fault.BUSY, 503, "Nobody can go on with this answer.")


def test_a_breaker_hears_of_the_end_and_not_of_the_beginning():
    breaker = Breakers(failures=1)
    relay, _ = begin(CLAUDE, claude=breaker)
    relay.receive([A], 1.0)
    assert breaker.state(1.0) == "closed"
    relay.end(2.0)
    assert (breaker.state(2.0), breaker.failures) == ("open", 1)


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (lambda relay: relay.receive([A, ENDED], 11.0) + relay.end(11.0), ("half-open", True, 0)),
        (lambda relay: relay.receive([A, ENDED], 11.0) + relay.fail(broke(), 11.0), ("half-open", True, 0)),
        (lambda relay: relay.receive([A, ENDED], 11.0) + relay.expire(13.0), ("half-open", True, 0)),
        (lambda relay: relay.receive([ENDED], 11.0), ("open", False, 2)),
        (lambda relay: relay.end(11.0), ("open", False, 2)),
        (lambda relay: relay.expire(22.0), ("open", False, 2)),
        (lambda relay: relay.fail(broke(), 11.0), ("open", False, 2)),
        (lambda relay: relay.fail(broke(Fault.REQUEST), 11.0), ("half-open", True, 1)),
        (lambda relay: relay.fail(broke(Fault.TOO_LONG), 11.0), ("half-open", True, 1)),
        (lambda relay: relay.fail(broke(Fault.CONFIG, status=404), 11.0), ("half-open", True, 1)),
        (lambda relay: relay.fail(broke(Fault.CONFIG, status=401), 11.0), ("open", False, 1)),
        (lambda relay: relay.receive([A], 11.0) + relay.cancel(11.0), ("half-open", True, 1)),
        (lambda relay: relay.cancel(11.0), ("half-open", True, 1)),
    ],
)
def test_however_a_trial_ends_it_is_over(ends, state):
    breaker = opened()
    relay, actions = begin(CLAUDE, BOX, now=10.0, claude=breaker)
    assert (told(actions), breaker.admits(10.0)) == ([("call", "claude", None)], False)
    ends(relay)
    assert (breaker.state(22.0), breaker.admits(22.0), breaker.failures) == state


def test_the_second_of_two_failing_legs_tells_its_own_breaker():
    claude, openai = Breakers(failures=1), Breakers(failures=1)
    relay, _ = begin(CLAUDE, OPENAI, BOX, claude=claude, openai=openai)
    relay.fail(broke(Fault.BROKEN), 1.0)
    relay.fail(broke(Fault.SILENT), 2.0)
    relay.receive([A, ENDED], 3.0)
    relay.end(3.0)
    assert (claude.last.fault, openai.last.fault) == (Fault.BROKEN, Fault.SILENT)
    assert (claude.failures, openai.failures) == (1, 1)


def test_the_jitter_given_at_birth_moves_the_cooldown():
    breaker = Breakers(failures=1, cooldown=10.0)
    relay = Relay(ask(), [CLAUDE], {"claude": breaker}, limits=Timeouts(), jitter=0.0)
    relay.start(0.0)
    relay.end(0.0)
    assert breaker.reopens_in(0.0) == pytest.approx(8.0)


# --------------------------------------------------------------------------------------- the client leaves


def test_a_client_that_leaves_is_nobodys_failure():
    breaker = Breakers(failures=1)
    relay, _ = begin(CLAUDE, BOX, claude=breaker)
    relay.receive([A], 1.0)
    [tried, done] = relay.cancel(2.0)
    assert (tried.leg, tried.error.fault, tried.characters, done) == ("claude", Fault.GONE, 1, Done())
    assert (breaker.state(2.0), breaker.failures, breaker.last, relay.fallback) == ("closed", 0, None, None)


# --------------------------------------------------------------------------------------- the box stands in


@pytest.mark.parametrize("wanted", [True, False])
def test_the_box_may_trim_what_was_a_clouds_conversation_if_the_configuration_says_so(wanted):
    relay, _ = begin(CLAUDE, BOX, request=ask(trim=wanted))
    [_, call] = relay.fail(broke(), 1.0)
    assert call.request.trim is wanted


def test_the_box_may_trim_for_a_cloud_that_was_not_even_asked():
    _, [call] = begin(CLAUDE, BOX, request=ask(trim=True), now=5.0, claude=opened())
    assert call.request.trim is True


def test_the_box_does_not_trim_what_was_asked_of_it_alone():
    _, [call] = begin(BOX, request=ask(trim=True))
    assert call.request.trim is False


def test_a_cloud_gets_the_request_as_it_is():
    _, [call] = begin(CLAUDE, BOX, request=ask(trim=True, needs=frozenset({"tools"})))
    assert call.request == ask(trim=True, needs=frozenset({"tools"}))


def test_what_the_box_leaves_out_is_said_before_its_first_word():
    relay, _ = begin(CLAUDE, BOX, request=ask(needs=frozenset({"tools", "images", "json"})))
    assert told(relay.fail(broke(), 1.0))[1:] == [("call", "local", None)]
    assert told(relay.receive([START, A], 2.0)) == [("emit", Degraded(what="images"), Degraded(what="tools"), START, A)]


def test_what_the_box_leaves_out_is_said_at_the_seam_of_a_takeover():
    relay, _ = begin(CLAUDE, BOX, request=ask(needs=frozenset({"tools"})))
    relay.receive([A], 1.0)
    takeover = Takeover(source="claude", target="local", after=1, reason="broken")
    assert told(relay.end(2.0))[1:] == [("emit", Degraded(what="tools"), takeover), ("call", "local", "a")]


# --------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("cloud", "fault"),
    [(Fault.UNREACHABLE, Fault.UNREACHABLE), (Fault.SERVER, Fault.SERVER), (Fault.CONFIG, Fault.SERVER)],
)
@pytest.mark.parametrize("lack", [Fault.BUSY, Fault.TOO_LONG])
def test_what_the_box_lacked_is_the_second_half_of_the_sentence(cloud, fault, lack):
    relay, _ = begin(CLAUDE, BOX)
    relay.fail(broke(cloud, "claude is down.", status=401), 1.0)
    actions = relay.fail(broke(lack, "9000 tokens, 4096 here.", retry_after=7.0), 2.0)
    fault = Fault.BUSY if lack is Fault.BUSY else fault  # there will be room soon: come back
    assert verdict(actions) == (fault, 503, "claude is down. The box could not stand in: 9000 tokens, 4096 here.")
    assert actions[-1].error.retry_after == 7.0


def test_a_full_box_that_was_asked_alone_says_so_itself():
    relay, _ = begin(BOX)
    assert relay.fail(FULL, 1.0)[-1] == Done(FULL)


def test_a_box_that_was_asked_alone_and_cannot_hold_it_gives_the_callers_400():
    relay, _ = begin(BOX)
    error = broke(Fault.TOO_LONG, "9000 tokens, 4096 here.", status=400)
    assert relay.fail(error, 1.0)[-1] == Done(error)


def test_the_single_failure_of_a_single_cloud_is_told_as_it_is():
    relay, _ = begin(CLAUDE)
    error = broke(Fault.BUSY, "claude: slow down.", status=429, retry_after=3.0, reply=Reply(status=429, body=b"{}"))
    assert relay.fail(error, 1.0)[-1] == Done(error)

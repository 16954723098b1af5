"""The two scopes of one upstream, as conversations: whom a failure tells about, and who is let through then."""

import random

import pytest

from appliance.core.fault import NOBODYS, BackendError, Fault
from appliance.core.scopes import MODELS, Breakers, scope

MIDDLE = 0.5


def error(fault=Fault.SERVER, **more):
    return BackendError(fault, f"claude: {fault.value}", **more)


def fails(breakers, now, model, fault=Fault.SERVER, **more):
    leave = breakers.begin(now, model)
    assert leave is not None
    breakers.fail(leave, now, error(fault, **more), jitter=MIDDLE)


def succeeds(breakers, now, model):
    leave = breakers.begin(now, model)
    assert leave is not None
    breakers.succeed(leave, now)


def silenced(model="sonnet", **settings):
    """The model is open since 0, the upstream is closed."""
    breakers = Breakers(failures=1, **settings)
    fails(breakers, 0.0, model, Fault.SILENT)
    return breakers


def down(**settings):
    """The upstream is open since 0."""
    breakers = Breakers(failures=1, **settings)
    fails(breakers, 0.0, "sonnet", Fault.UNREACHABLE)
    return breakers


# --------------------------------------------------------------------------------------- whom it tells about


@pytest.mark.parametrize(
    ("whose", "fault", "more"),
    [
        ("upstream", Fault.UNREACHABLE, {}),
        ("upstream", Fault.UNREACHABLE, {"status": 504}),
        ("upstream", Fault.SERVER, {"status": 500}),
        ("upstream", Fault.SERVER, {}),
        ("model", Fault.SERVER, {"status": 529}),
        ("model", Fault.BUSY, {"status": 429}),
        ("model", Fault.BUSY, {"status": 529, "retry_after": 5.0}),
        ("upstream", Fault.BUSY, {"status": 503, "retry_after": 5.0}),
        ("model", Fault.BUSY, {}),
        ("upstream", Fault.CONFIG, {"status": 401}),
        ("upstream", Fault.CONFIG, {"status": 402}),
        ("upstream", Fault.CONFIG, {"status": 403}),
        ("upstream", Fault.CONFIG, {"status": 429, "code": "insufficient_quota"}),
        ("upstream", Fault.CONFIG, {}),
        ("model", Fault.CONFIG, {"status": 404}),
        ("model", Fault.CONFIG, {"status": 403, "code": "model_not_found"}),
        ("model", Fault.SILENT, {"status": 504}),
        ("model", Fault.BROKEN, {"status": 502}),
    ],
)
def test_a_failure_tells_about(whose, fault, more):
    assert scope(error(fault, **more)) == whose
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "sonnet", fault, **({"retry_after": 5.0} if fault is Fault.BUSY else {}) | more)
    assert (breakers.admits(0.0, "sonnet"), breakers.admits(0.0, "haiku")) == (False, whose == "model")
    assert (breakers.begin(0.0, "sonnet") is None, breakers.begin(0.0, "haiku") is None) == (True, whose == "upstream")


@pytest.mark.parametrize("fault", [Fault.REQUEST, Fault.TOO_LONG, Fault.CRASHED, Fault.GONE, Fault.STOPPED])
def test_this_tells_about_nobody(fault):
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "sonnet", fault)
    assert (breakers.state(0.0), breakers.failures, breakers.last) == ("closed", 0, None)


def test_a_refusal_between_one_caller_and_the_cloud_tells_about_nobody():
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "sonnet", Fault.CONFIG, status=401, private=True)
    fails(breakers, 0.0, "sonnet", Fault.CONFIG, status=404, private=True)
    assert (breakers.state(0.0), breakers.alarm) == ("closed", None)


def test_a_new_one_lets_everybody_through():
    breakers = Breakers()
    leave = breakers.begin(0.0, "sonnet")
    assert (leave.trial, leave.wary) == (False, False)
    assert (breakers.state(0.0), breakers.admits(0.0), breakers.reopens_in(0.0)) == ("closed", True, None)
    assert (breakers.failures, breakers.last, breakers.alarm, breakers.offline) == (0, None, None, None)


def test_an_answer_speaks_for_both():
    breakers = Breakers(failures=2)
    fails(breakers, 0.0, "sonnet", Fault.SERVER)
    fails(breakers, 0.0, "sonnet", Fault.SILENT)
    succeeds(breakers, 0.0, "sonnet")
    fails(breakers, 0.0, "sonnet", Fault.SERVER)
    fails(breakers, 0.0, "sonnet", Fault.SILENT)
    assert (breakers.state(0.0), breakers.failures) == ("closed", 1)


def test_failures_of_several_models_add_up_where_the_upstream_is_to_blame():
    breakers = Breakers(failures=3)
    for model in ("opus", "sonnet", "haiku"):
        fails(breakers, 0.0, model, Fault.SERVER, status=500)
    assert breakers.state(0.0, "another") == "open"


def test_and_do_not_where_the_models_are():
    breakers = Breakers(failures=3)
    for model in ("opus", "sonnet", "haiku"):
        fails(breakers, 0.0, model, Fault.SILENT)
    assert (breakers.state(0.0), breakers.failures) == ("closed", 1)


# ---------------------------------------------------------------------------------------- an unknown model


def test_an_unknown_model_is_remembered_for_a_quarter_of_an_hour():
    breakers = Breakers(failures=3)
    fails(breakers, 0.0, "gpt-typo", Fault.CONFIG, status=404)
    assert (breakers.reopens_in(0.0, "gpt-typo"), breakers.begin(899.0, "gpt-typo")) == (900.0, None)
    assert breakers.why(0.0, "gpt-typo").status == 404
    assert not breakers.begin(900.0, "gpt-typo").trial  # perhaps it is there by now


def test_an_unknown_model_says_nothing_about_the_upstream():
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "gpt-typo", Fault.CONFIG, status=404)
    assert (breakers.state(0.0), breakers.admits(0.0), breakers.failures) == ("closed", True, 0)
    assert breakers.alarm == "claude: config"


def test_the_alarm_for_unknown_models_ends_with_the_last_of_them():
    breakers, alarms = Breakers(), []
    fails(breakers, 0.0, "gpt-typo", Fault.CONFIG, status=404)
    fails(breakers, 100.0, "gpt-tpyo", Fault.CONFIG, status=404)
    for now in (899.0, 950.0, 1000.0):
        succeeds(breakers, now, "sonnet")
        alarms.append((breakers.alarm, list(breakers.aside(now))))
    both, one, nothing = (
        ("claude: config", ["gpt-typo", "gpt-tpyo"]),
        ("claude: config", ["gpt-tpyo"]),
        (None, []),
    )
    assert alarms == [both, one, nothing]


def test_an_unknown_model_asked_for_as_the_trial_of_the_upstream_lets_the_next_one_go():
    breakers = down()
    fails(breakers, 10.0, "gpt-typo", Fault.CONFIG, status=404)
    assert (breakers.state(10.0), breakers.admits(10.0)) == ("half-open", True)


# ------------------------------------------------------------------------------------------------- trials


def test_a_trial_of_the_upstream_is_one_for_all_its_models():
    breakers = down()
    assert breakers.begin(10.0, "sonnet").trial
    assert (breakers.begin(10.0, "haiku"), breakers.admits(10.0)) == (None, False)


def test_a_trial_of_one_model_leaves_the_others_alone():
    breakers = silenced()
    assert breakers.begin(10.0, "sonnet").trial
    assert breakers.begin(10.0, "sonnet") is None
    assert not breakers.begin(10.0, "haiku").trial


def test_a_model_that_is_shut_does_not_use_up_the_trial_of_the_upstream():
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "sonnet", Fault.BUSY, retry_after=60.0)
    fails(breakers, 0.0, "haiku", Fault.UNREACHABLE)
    assert breakers.begin(10.0, "sonnet") is None
    assert breakers.begin(10.0, "haiku").trial


def test_two_answers_close_both_scopes():
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "sonnet", Fault.SILENT)
    fails(breakers, 0.0, "haiku", Fault.UNREACHABLE)
    for _ in range(2):
        assert breakers.state(10.0, "sonnet") == "half-open"
        succeeds(breakers, 10.0, "sonnet")
    assert breakers.state(10.0, "sonnet") == "closed"
    assert breakers.aside(10.0) == {}
    assert [breakers.fresh(10.0, model) for model in ("sonnet", "haiku", "opus")] == [True] * 3  # the upstream is
    assert [breakers.begin(10.0, "sonnet").wary for _ in range(4)] == [True, True, True, False]


def test_a_model_that_has_just_closed_is_fresh_by_itself():
    breakers = silenced()
    for _ in range(2):
        succeeds(breakers, 10.0, "sonnet")
    assert [breakers.fresh(10.0, model) for model in ("sonnet", "haiku")] == [True, False]
    assert breakers.begin(10.0, "sonnet").wary


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.BROKEN])
def test_a_trial_of_the_upstream_that_was_not_answered_has_failed(fault):
    breakers = down()
    fails(breakers, 10.0, "haiku", fault)
    assert (breakers.state(10.0, "opus"), breakers.reopens_in(10.0, "opus")) == ("open", 20.0)


@pytest.mark.parametrize("more", [{"fault": Fault.BUSY, "status": 429}, {"fault": Fault.CONFIG, "status": 404}])
def test_a_trial_of_the_upstream_that_was_refused_for_its_model_lets_the_next_one_go(more):
    breakers = down()
    fails(breakers, 10.0, "haiku", **more)
    assert (breakers.state(10.0, "opus"), breakers.admits(10.0, "opus")) == ("half-open", True)


@pytest.mark.parametrize("fault", [Fault.SERVER, Fault.UNREACHABLE])
def test_a_trial_of_a_model_that_was_not_answered_has_failed(fault):
    breakers = Breakers(failures=3)
    for _ in range(3):
        fails(breakers, 0.0, "sonnet", Fault.SILENT)
    fails(breakers, 10.0, "sonnet", fault)
    assert (breakers.reopens_in(10.0, "sonnet"), breakers.state(10.0, "haiku")) == (20.0, "closed")


def test_a_trial_of_a_model_that_met_a_refused_key_lets_the_next_one_go():
    breakers = silenced()
    fails(breakers, 10.0, "sonnet", Fault.CONFIG, status=401)
    breakers._upstream.reset()
    assert (breakers.state(10.0, "sonnet"), breakers.admits(10.0, "sonnet")) == ("half-open", True)


def test_a_trial_whose_client_left_lets_the_next_one_go():
    breakers = down()
    breakers.abandon(breakers.begin(10.0, "sonnet"))
    assert breakers.begin(10.0, "sonnet").trial


# --------------------------------------------------------------------------------------- what status shows


def test_without_a_model_it_is_the_luckiest_of_those_asked_for_lately():
    breakers = silenced()
    assert (breakers.state(0.0), breakers.admits(0.0), breakers.reopens_in(0.0)) == ("open", False, 10.0)
    succeeds(breakers, 0.0, "haiku")
    assert (breakers.state(0.0), breakers.admits(0.0), breakers.reopens_in(0.0)) == ("closed", True, None)
    assert {name: own.state(0.0) for name, own in breakers.aside(0.0).items()} == {"sonnet": "open"}


def test_a_model_nobody_asked_for_in_an_hour_does_not_make_it_look_well():
    breakers = Breakers(failures=1)
    succeeds(breakers, 0.0, "haiku")
    fails(breakers, 3601.0, "sonnet", Fault.SILENT)
    assert breakers.state(3601.0) == "open"
    assert breakers.state(9999.0) == "half-open"


def test_the_upstreams_own_failure_is_told_before_a_models():
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "sonnet", Fault.SILENT)
    fails(breakers, 0.0, "haiku", Fault.UNREACHABLE)
    assert breakers.last.fault is Fault.UNREACHABLE
    assert breakers.why(1.0, "haiku").fault is Fault.UNREACHABLE


def test_why_nobody_is_let_through_is_told_by_the_scope_that_lets_nobody_through():
    breakers = Breakers(failures=2)
    fails(breakers, 0.0, "sonnet", Fault.UNREACHABLE)
    fails(breakers, 0.0, "sonnet", Fault.BUSY, retry_after=30.0)
    assert breakers.why(1.0, "sonnet").fault is Fault.BUSY


def test_the_longer_of_two_waits_is_the_one_that_counts():
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "haiku", Fault.BUSY, retry_after=60.0)
    fails(breakers, 0.0, "sonnet", Fault.UNREACHABLE)
    assert [breakers.reopens_in(0.0, model) for model in ("haiku", "sonnet", "opus")] == [60.0, 10.0, 10.0]


def test_reset_closes_all():
    breakers = silenced()
    fails(breakers, 0.0, "haiku", Fault.UNREACHABLE)
    breakers.lose("route", 0.0)
    breakers.reset()
    assert (breakers.state(0.0), breakers.failures, breakers.last, breakers.aside(0.0)) == ("closed", 0, None, {})


def test_a_certain_failure_opens_the_scope_it_tells_about():
    breakers = Breakers()
    breakers.trip(0.0, error(Fault.BROKEN), 60.0, "sonnet")
    assert (breakers.reopens_in(0.0, "sonnet"), breakers.state(0.0, "haiku")) == (60.0, "closed")
    breakers.trip(0.0, error(Fault.UNREACHABLE), 60.0, "sonnet")
    assert breakers.state(0.0, "haiku") == "open"


# --------------------------------------------------------------------------------------- models of strangers


def test_only_so_many_models_are_remembered_and_those_set_aside_longest():
    breakers = silenced("sonnet", cooldown=300.0)
    for number in range(3 * MODELS):
        succeeds(breakers, 1.0, f"made-up-{number}")
    assert len(breakers._models) == MODELS
    assert breakers.begin(1.0, "sonnet") is None


def test_a_model_that_is_asked_for_is_not_forgotten():
    breakers = Breakers(failures=2)
    fails(breakers, 1.0, "sonnet", Fault.SILENT)
    for number in range(2 * MODELS):
        succeeds(breakers, 1.0, f"made-up-{number}")
        if number % 100 == 0:
            breakers.abandon(breakers.begin(1.0, "sonnet"))
    fails(breakers, 1.0, "sonnet", Fault.SILENT)
    assert breakers.state(1.0, "sonnet") == "open"


def test_of_all_that_are_set_aside_the_one_asked_for_longest_ago_is_forgotten():
    breakers = Breakers()
    for number in range(MODELS + 1):
        fails(breakers, 1.0, f"made-up-{number}", Fault.CONFIG, status=404)
    assert [breakers.admits(1.0, f"made-up-{number}") for number in (0, 1, MODELS)] == [True, False, False]


def test_a_model_that_was_forgotten_can_still_end_its_calls():
    breakers = Breakers(failures=1)
    leave = breakers.begin(0.0, "sonnet")
    for number in range(MODELS):
        breakers.begin(0.0, f"made-up-{number}")
    breakers.fail(leave, 1.0, error(Fault.SILENT), jitter=MIDDLE)
    assert breakers.admits(1.0, "sonnet")


def test_a_model_is_remembered_by_the_beginning_of_its_name():
    breakers = silenced("x" * 100_000)
    assert max(map(len, breakers._models)) == 200
    assert breakers.begin(0.0, "x" * 100_000) is None


# ------------------------------------------------------------------------------------------------- probes


def test_a_probe_tells_both_scopes_that_somebody_is_there():
    breakers = Breakers(failures=1)
    fails(breakers, 0.0, "sonnet", Fault.SILENT)
    fails(breakers, 0.0, "haiku", Fault.UNREACHABLE)
    breakers.probed(False, 1.0)
    breakers.probed(True, 2.0)
    assert (breakers.state(2.0, "sonnet"), breakers.state(2.0, "haiku")) == ("half-open", "half-open")


def test_it_wants_to_be_probed_while_any_scope_is_open():
    assert not Breakers().wants_probe(0.0)
    assert [silenced().wants_probe(now) for now in (0.0, 10.0)] == [True, False]
    assert [down().wants_probe(now) for now in (0.0, 10.0)] == [True, False]


def test_an_unknown_model_is_no_reason_to_probe():
    breakers = Breakers()
    fails(breakers, 0.0, "gpt-typo", Fault.CONFIG, status=404)
    assert not breakers.wants_probe(1.0)


# ------------------------------------------------------------------------------------------------ offline


@pytest.mark.parametrize(("missing", "said"), [("route", "no route"), ("name", "name")])
def test_offline_nobody_is_let_through_and_nobody_probes(missing, said):
    breakers = down()
    breakers.lose(missing, 0.0)
    assert (breakers.state(0.0), breakers.state(0.0, "sonnet"), breakers.offline) == ("offline", "offline", missing)
    assert (breakers.admits(50.0), breakers.begin(50.0, "sonnet"), breakers.wants_probe(0.0)) == (False, None, False)
    assert (breakers.last.fault, breakers.reopens_in(0.0)) == (Fault.UNREACHABLE, None)
    assert said in breakers.last.message and breakers.why(0.0, "sonnet").message == breakers.last.message


def test_online_again_a_trial_goes_at_once():
    breakers = Breakers()
    succeeds(breakers, 0.0, "sonnet")
    breakers.lose("route", 0.0)
    breakers.find(100.0)
    assert breakers.state(100.0) == "half-open"
    succeeds(breakers, 100.0, "sonnet")
    succeeds(breakers, 100.0, "sonnet")
    assert (breakers.state(100.0), breakers.begin(100.0, "sonnet").wary) == ("closed", True)


def test_online_again_what_had_opened_before_is_tried_at_once_too():
    breakers = silenced(cooldown=300.0)
    breakers.lose("route", 0.0)
    breakers.find(50.0)
    assert (breakers.state(50.0, "sonnet"), breakers.begin(50.0, "sonnet").trial) == ("half-open", True)


def test_online_again_a_wrong_key_is_still_wrong():
    breakers = Breakers()
    fails(breakers, 0.0, "sonnet", Fault.CONFIG, status=401)
    breakers.lose("route", 0.0)
    breakers.find(50.0)
    assert breakers.reopens_in(50.0) == 850.0


def test_online_again_models_that_were_well_need_no_trial_of_their_own():
    breakers = Breakers()
    succeeds(breakers, 0.0, "haiku")
    breakers.lose("name", 0.0)
    breakers.find(50.0)
    succeeds(breakers, 50.0, "sonnet")
    succeeds(breakers, 50.0, "sonnet")
    assert not breakers.begin(50.0, "haiku").trial


def test_a_key_that_is_refused_is_refused_offline_too():
    breakers = Breakers()
    leave = breakers.begin(0.0, "sonnet")
    breakers.lose("name", 0.0)
    breakers.fail(leave, 0.0, error(Fault.CONFIG, status=401), jitter=MIDDLE)
    assert breakers.alarm == "claude: config"


def test_to_be_found_without_having_been_lost_changes_nothing():
    breakers = Breakers()
    breakers.find(1.0)
    assert breakers.state(1.0) == "closed"


def test_what_fails_while_offline_is_nobodys_failure():
    breakers = Breakers(failures=1)
    leaves = [breakers.begin(0.0, "sonnet") for _ in range(3)]
    breakers.lose("route", 0.0)
    for leave, fault in zip(leaves, (Fault.UNREACHABLE, Fault.BROKEN, Fault.SILENT), strict=True):
        breakers.fail(leave, 1.0, error(fault), jitter=MIDDLE)
    assert breakers.failures == 0


def test_somebody_cares_while_it_is_asked_or_not_well():
    breakers = Breakers(failures=1)
    assert not breakers.in_use(0.0)
    breakers.begin(0.0, "sonnet")
    assert (breakers.in_use(3600.0), breakers.in_use(3601.0)) == (True, False)
    breakers.lose("route", 0.0)
    assert breakers.in_use(9999.0)
    assert breakers.begin(9999.0, "sonnet") is None
    assert breakers.asked_at == 9999.0  # who is turned away has asked, too
    assert silenced().in_use(9999.0)


def test_who_is_asked_only_to_find_out_is_not_in_use():
    breakers = Breakers()
    assert breakers.begin(0.0, "haiku", wanted=False) is not None
    assert (breakers.asked_at, breakers.in_use(0.0)) == (None, False)
    breakers.begin(1.0, "haiku")
    breakers.begin(5.0, "haiku", wanted=False)
    assert (breakers.asked_at, breakers.in_use(3602.0)) == (1.0, False)


@pytest.mark.parametrize("first", ["opus", "haiku"])
def test_a_model_that_nobody_wants_says_nothing_of_how_its_upstream_is(first):
    breakers = silenced("opus")
    if first == "haiku":
        breakers = Breakers(failures=1)
        breakers.begin(0.0, "haiku", wanted=False)
        fails(breakers, 0.0, "opus", Fault.SILENT)
    for now in (1.0, 4000.0):
        leave = breakers.begin(now, "haiku", wanted=False)
        breakers.succeed(leave, now)
        assert breakers.state(now, "haiku") == "closed"
        assert breakers.state(now) == breakers.state(now, "opus") != "closed"


# ---------------------------------------------------------------------------------------------- histories


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_no_trial_is_lost_and_no_two_overlap(seed):
    dice = random.Random(seed)
    breakers, out, now, seen = Breakers(failures=2), [], 0.0, set()
    faults = [fault for fault in Fault if fault not in NOBODYS]
    for _ in range(3000):
        now += dice.choice((0.0, 0.1, 3.0, 30.0))
        what = dice.choice(("begin", "begin", "end", "end", "probe", "network"))
        if what == "begin":
            model = dice.choice(("opus", "sonnet", "haiku"))
            admitted = breakers.admits(now, model)
            leave = breakers.begin(now, model)
            assert (leave is not None) == admitted
            if leave is not None:
                trials = [one for one, _ in out if one.upstream.trial and one.upstream.era == leave.upstream.era]
                assert not (leave.upstream.trial and trials)
                out.append((leave, model))
        elif what == "end" and out:
            leave, _ = out.pop(dice.randrange(len(out)))
            match dice.choice(("succeed", "succeed", "fail", "abandon")):
                case "succeed":
                    breakers.succeed(leave, now)
                case "abandon":
                    breakers.abandon(leave)
                case _:
                    status = dice.choice((None, 401, 404, 429, 503, 529))
                    wait = dice.choice((None, 5.0))
                    failure = error(dice.choice(faults), status=status, retry_after=wait)
                    breakers.fail(leave, now, failure, jitter=dice.random())
        elif what == "probe":
            breakers.probed(dice.random() < 0.5, now)
        elif what == "network" and dice.random() < 0.1:
            if breakers.offline is None:
                breakers.lose("route", 0.0)
            else:
                breakers.find(now)
        seen.add(breakers.state(now))
    breakers.find(now)
    for leave, _ in out:
        breakers.abandon(leave)
    assert seen == {"closed", "open", "half-open", "offline"}
    for model in ("opus", "sonnet", "haiku"):
        assert breakers.admits(now + 10_000.0, model), "a trial that nobody ran keeps it shut"

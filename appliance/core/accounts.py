"""What one request may ask of the clouds, and what it tells of them afterwards.

All requests share each cloud's breakers (may it be asked?), habits (how long may it take?) and budget (may it be asked
once more than somebody wanted?). This is how one of them deals with those.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.core.again import pause_before
from appliance.core.attempt import Attempt, Tried
from appliance.core.budget import Budget
from appliance.core.chat import ChatRequest
from appliance.core.fault import NOBODYS, BackendError, Fault
from appliance.core.habits import Habits
from appliance.core.pulse import Heard, Pulse, Timeouts
from appliance.core.route import Leg
from appliance.core.scopes import Breakers, Leave
from appliance.core.verdict import set_aside

OF_THE_LOST = 2.0
"""Seconds that an answer under way is still given when the way to its cloud is lost: a cable may be back at once."""


class Accounts:
    """The clouds, by name; who has no breakers is never set aside, and who has no budget is asked nothing extra."""

    def __init__(
        self,
        breakers: Mapping[str, Breakers],
        habits: Mapping[str, Habits],
        budgets: Mapping[str, Budget],
        *,
        limits: Timeouts,
        jitter: float,
        heard: Heard,
    ) -> None:
        self._breakers, self._habits, self._budgets = breakers, habits, budgets
        self._limits, self._jitter, self._heard = limits, jitter, heard

    # ------------------------------------------------------------------------------------------- before a call

    def leave(self, leg: Leg, now: float) -> Leave | None:
        """Leave to call it, which `over` or `unused` gives back."""
        breakers = self._breakers.get(leg.name)
        return breakers.begin(now, leg.model) if breakers else None

    def unused(self, leg: Leg, leave: Leave | None) -> None:
        """The call was never made."""
        if leave is not None:
            self._breakers[leg.name].abandon(leave)

    def refused(self, leg: Leg, leave: Leave | None) -> bool:
        """Is it set aside?"""
        return leave is None and leg.name in self._breakers

    def offline(self, leg: Leg) -> bool:
        breakers = self._breakers.get(leg.name)
        return breakers is not None and breakers.offline is not None

    def why(self, leg: Leg, now: float) -> BackendError:
        """Why it is set aside."""
        return set_aside(leg, self._breakers[leg.name], now)

    def well(self, leg: Leg, now: float) -> bool:
        """Is it known to answer?"""
        breakers = self._breakers.get(leg.name)
        return breakers is not None and breakers.state(now, leg.model) == "closed"

    def affords(self, cause: Attempt, now: float) -> bool:
        """May one more request be sent because of this one? Its cloud's answers have to pay for it."""
        budget = self._budgets.get(cause.leg.name)
        return budget is not None and budget.spend(now)

    def worth_another_try(self, one: Attempt, error: BackendError, now: float) -> float | None:
        """Seconds to wait before the same cloud is asked once more, if it is and that is worth it."""
        breakers = self._breakers.get(one.leg.name)
        pause = pause_before(error, self._jitter, now - one.pulse.called_at)
        # A trial is not repeated: nobody else is admitted while it runs, and how it ended is the answer.
        if pause is None or (breakers is not None and not breakers.admits(now, one.leg.model)):
            return None
        return pause if self.affords(one, now) else None

    # ------------------------------------------------------------------------------------------ while it answers

    def pulse(
        self, leg: Leg, request: ChatRequest, leave: Leave | None, now: float, *, left_off: float | None
    ) -> Pulse:
        """What it is held to from now on."""
        breakers = self._breakers.get(leg.name)
        failed = breakers is not None and breakers.failures > 0
        return Pulse(
            leg,
            request,
            now,
            limits=self._limits,
            habits=self._habits.get(leg.name),
            heard=self._heard,
            left_off=left_off,
            wary=leave is not None and (leave.wary or failed),
            hurried=leave is not None and leave.wary,
        )

    def given_up_at(self, one: Attempt) -> float:
        """Its deadline, which is near where there is no way to it any more."""
        deadline, breakers = one.pulse.deadline, self._breakers.get(one.leg.name)
        if breakers is None or breakers.lost_at is None:
            return deadline
        return min(deadline, breakers.lost_at + OF_THE_LOST)

    def given_up(self, one: Attempt, now: float) -> BackendError:
        """The time that it is given is over."""
        if now < one.pulse.deadline:
            return self.why(one.leg, now)
        one.pulse.gave_up(now)
        return silence(one, now)

    # ---------------------------------------------------------------------------------------------- afterwards

    def over(
        self,
        one: Attempt,
        error: BackendError | None,
        now: float,
        *,
        counts: bool = True,
        blameless: bool = False,
        against: BackendError | None = None,
    ) -> Tried:
        """Its part is over. It `counts` unless it is asked once more; what is `against` it the breakers are told
        though it is not why it ended."""
        tried, leave = one.tried(error, now, blameless=blameless), one.leave
        wrong = against or error or tried.flaw
        if leave is not None:
            breakers = self._breakers[one.leg.name]
            if wrong is None:
                breakers.succeed(leave, now)
            elif wrong.fault in NOBODYS or blameless or not counts:
                breakers.abandon(leave)
            else:
                breakers.fail(leave, now, wrong, jitter=self._jitter)
        if error is None:
            one.pulse.learn(now)
            if one.leg.name in self._budgets:
                self._budgets[one.leg.name].earn()
        return tried


def silence(one: Attempt, now: float) -> BackendError:
    """It was not waited for any longer."""
    return BackendError(Fault.SILENT, f"{one.leg.name} {one.pulse.overdue(now)}.", status=504)

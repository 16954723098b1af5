"""May one more request be sent to this cloud than the callers asked for?

A second try, a race between clouds and an answer asked for anew are *extras*. Where a cloud fails because it has too
much to do, extras keep it down; so their number is bound to what it answers. The bucket is gRPC's retry throttling
(proposal A6, "Throttling Retry Attempts and Hedged RPCs": maxTokens 10, tokenRatio 0.1, nothing at or below half), with
one difference: there every failure costs a token, here every extra does, because failures have the breaker.

Rules:

1. The bucket holds 10 tokens, and is full at first. An extra costs 1, an answered request gives 0.1. At or below 5
   there are none: five in a row, then one for every ten answers.
2. Of the last 100 requests (answered ones and extras) at most one in ten is an extra.
3. An extra after a quiet time (`QUIET` seconds without any) is not held to rule 2, or a cloud with one user would never
   get its first. Rule 1 holds all the same, so that a cloud that always needs a second try soon goes without.
4. One for each cloud, as gRPC has one for each server name. It pays for what its own failures and its own lateness
   cost, also where another cloud is asked: who is asked beside it is often one that answers nobody else, and earns
   nothing.
5. No clock: `now` is in seconds, monotonic.
"""

from __future__ import annotations

from collections import deque

WINDOW = 100
ONE_IN = 10
QUIET = 10.0

# In tenths of a token: sums of 0.1 are not exact.
FULL = 100
COST = 10
REWARD = 1


class Budget:
    """The extras of one cloud."""

    __slots__ = ("_extras", "_last", "_recent", "_tenths")

    def __init__(self) -> None:
        self._tenths = FULL
        self._recent: deque[bool] = deque(maxlen=WINDOW)  # was it an extra?
        self._extras = 0  # among them
        self._last: float | None = None  # when the last extra was sent

    def spend(self, now: float) -> bool:
        """May an extra be sent now? If so, it is paid for."""
        if self._tenths <= FULL // 2:
            return False
        quiet = self._last is None or now - self._last >= QUIET
        if not quiet and (self._extras + 1) * ONE_IN > min(len(self._recent) + 1, WINDOW):
            return False
        self._tenths -= COST
        self._last = now
        self._sent(extra=True)
        return True

    def earn(self) -> None:
        """A request was answered, by whichever try."""
        self._tenths = min(FULL, self._tenths + REWARD)
        self._sent(extra=False)

    def _sent(self, *, extra: bool) -> None:
        if len(self._recent) == WINDOW:
            self._extras -= self._recent[0]
        self._recent.append(extra)
        self._extras += extra

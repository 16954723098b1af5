"""Looks after one process of the engine after the other, with a clock: is it at work, is it needed, may more be asked
of it? What follows from what is seen is decided in `core.watch` and `core.keeper`."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace

from appliance.backends.child import Child, slowest_read
from appliance.backends.following import Followings
from appliance.backends.line import Line
from appliance.backends.outstanding import Outstanding
from appliance.core.keeper import Keeper, Mode
from appliance.core.watch import Patience, Probe, Watch, Wedged

log = logging.getLogger("appliance.engine")


class Lookout:
    """`up`: there is a process, and it may be asked. `changed` hears of another mode, `unneeded` when nobody in `line`,
    `outstanding` or `followings` has needed it for `unload_after` seconds; 0 is never."""

    def __init__(
        self,
        *,
        keeper: Keeper,
        patience: Patience,
        unload_after: Callable[[], float],
        ids: itertools.count[int],
        outstanding: Outstanding,
        line: Line,
        followings: Followings,
        changed: Callable[[Mode], None],
        unneeded: Callable[[], None],
    ) -> None:
        self.keeper = keeper
        self.watch = Watch(0.0, patience)
        self.mode: Mode = "normal"
        self.up = False
        self._patience = patience
        self._ids = ids
        self._followings = followings
        self._outstanding, self._line, self._unload_after = outstanding, line, unload_after
        self._changed, self._unneeded = changed, unneeded
        self._child: Child | None = None
        self._timer: asyncio.Handle | None = None
        self._touched = 0.0

    def begin(self, child: Child, path: str) -> None:
        """This process is going to load the file at `path`."""
        self._child = child
        load = max(self._patience.load, slowest_read(path))
        self.watch = Watch(_now(), replace(self._patience, load=load))
        self.keeper.started()

    def ready(self, *, load_s: float, tok_s: float | None) -> None:
        """It has given its first real answer."""
        assert self._child is not None
        now = _now()
        self.up = True
        self.keeper.ready(now)
        self.watch.ready(now, load_s=load_s, tok_s=tok_s)
        self.touch()
        if self.mode == "normal":
            self._followings.listen(self._child)
        self._stop_looking()
        self._timer = asyncio.get_running_loop().call_soon(self.look)

    def rest(self, *, died: bool) -> None:
        """From here on the process is asked nothing more."""
        self.up = False
        self._stop_looking()
        self._followings.silence(died=died)

    def touch(self) -> None:
        """Somebody needs it."""
        self._touched = _now()

    def look(self) -> None:
        """Now, and again when it is time to."""
        child = self._child
        if child is None or child.leaving:
            return
        now, pid = _now(), child.process.pid
        self.adopt_mode()
        self._followings.catch_up()
        if self._sleepy_in(now) == 0.0:
            log.info("engine (pid %s) was not needed for %.0f s: its memory is given back", pid, self._unload_after())
            child.dismissed = True
            self.rest(died=False)
            self.keeper.dismissed(now)
            child.leave()
            self._unneeded()
            return
        look = self.watch.look(now, asked=bool(self._outstanding))
        if isinstance(look, Wedged):
            log.error("engine (pid %s) lives but %s; ending it", pid, look.reason)
            child.wedged = look.reason
            child.leave()
            return
        if isinstance(look, Probe):
            child.send({"op": "probe", "id": next(self._ids)})
        again = now + self._patience.look if isinstance(look, Probe) else look.time
        times = [again, self.keeper.changes_at(), now + self._sleepy_in(now)]
        self._timer = asyncio.get_running_loop().call_at(min(time for time in times if time is not None), self.look)

    def adopt_mode(self) -> None:
        """As much as may be asked of it now."""
        mode = self.keeper.mode(_now())
        if mode == self.mode:
            return
        self.mode = mode
        if mode != "normal":
            # A conversation that stands by may be the one that kills it.
            self._followings.close()
            self._followings.listener = None
        elif self.up and self._child is not None:
            self._followings.listen(self._child)
        self._changed(mode)

    def _sleepy_in(self, now: float) -> float:
        """Seconds until nobody has needed it for long enough."""
        patience = self._unload_after()
        needed = self._outstanding or self._line or len(self._followings)
        if patience <= 0 or needed or not self.up or self.mode == "failing":
            return float("inf")
        return max(0.0, self._touched + patience - now)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _now() -> float:
    return asyncio.get_running_loop().time()

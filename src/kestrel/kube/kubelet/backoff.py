"""How long to wait before trying again: the two back-offs users know by name; pure values.

CrashLoopBackOff: the first restart is immediate, the following wait 10, 20, 40 ... 300 seconds after the exit, and a
container that ran for ten minutes starts over (kubernetes.io "Pod Lifecycle", restart policy).
ImagePullBackOff: 10 seconds, doubled up to 300, counted from the failure (kubernetes.io "Images").
"""

from dataclasses import dataclass

FIRST = 10.0
LONGEST = 300.0
RESET = 600.0


@dataclass(frozen=True, slots=True)
class RestartBackoff:
    """Restarts of one container so far: `delay` seconds after the next exit, `since` the last restart."""

    delay: float = 0.0
    since: float = 0.0

    def due(self, finished: float) -> float:
        """Return the moment from which a container that ended at `finished` may start again."""
        return finished if self._over(finished) else finished + self.delay

    def restarted(self, finished: float, now: float) -> "RestartBackoff":
        """Return the state after a restart at `now` that followed an end at `finished`."""
        delay = FIRST if self._over(finished) else min(self.delay * 2, LONGEST)
        return RestartBackoff(delay, now)

    def _over(self, finished: float) -> bool:
        return self.delay == 0 or finished - self.since > RESET


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that did not work and is tried again from `retry` on; `reason` is the word in the pod's status.

    `times` counts failures in a row. `later` is the word from `later_at` on (ImagePullBackOff after ErrImagePull).
    """

    reason: str
    message: str
    at: float
    retry: float
    times: int = 1
    later: str = ""
    later_message: str = ""
    later_at: float = 0.0

    def words(self, now: float) -> tuple[str, str]:
        """Return reason and message as they stand at `now`."""
        if self.later and now >= self.later_at:
            return self.later, self.later_message
        return self.reason, self.message


def doubling(times: int, *, first: float = FIRST, longest: float = LONGEST) -> float:
    """Return the delay in seconds after the n-th failure in a row, from 1."""
    return float(min(first * 2 ** min(times - 1, 16), longest))

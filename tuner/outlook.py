"""How far a search is within its budget, and how much time is left of its job."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.request import Budget

# What choosing and checking a task's winner takes, in trials: 3.7 and 4.6 on two convolutional networks of 17 and 33
# tasks (finalists and two builds for the check, with every pass of the compiler).
_TRIALS_PER_WINNER = 5


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What was spent, and what is to be expected of it.

    ``trials`` are those of all attempts at the job, ``trials_here`` this one's, made in ``spent_s``; ``winners`` is how
    many tasks will have a winner to choose; ``afterwards_s`` is what comes after the search whatever it finds.
    """

    budget: Budget
    trials: int
    trials_here: int
    spent_s: float
    winners: int
    afterwards_s: float

    @property
    def fraction(self) -> float:
        """The share of the budget that is spent, 0 to 1: trials or time, whichever is nearer to its end."""
        trials = self.trials / self.budget.trials if self.budget.trials is not None else 0.0
        time = self.spent_s / self.budget.time_limit_s if self.budget.time_limit_s is not None else 0.0
        return min(1.0, max(trials, time))

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end of the job if the search takes its whole budget; None while there is nothing to go by."""
        left = [self._time_left_s(), self._trials_left_s()]
        known = [seconds for seconds in left if seconds is not None]
        return min(known) + self.finishing_s if known else None

    @property
    def finishing_s(self) -> float:
        """Seconds from the end of the search to the end of the job."""
        return self.winners * _TRIALS_PER_WINNER * (self._trial_s or 0.0) + self.afterwards_s

    @property
    def _trial_s(self) -> float | None:
        return self.spent_s / self.trials_here if self.trials_here else None

    def _time_left_s(self) -> float | None:
        return None if self.budget.time_limit_s is None else max(0.0, self.budget.time_limit_s - self.spent_s)

    def _trials_left_s(self) -> float | None:
        if self.budget.trials is None or self._trial_s is None:
            return None
        return max(0, self.budget.trials - self.trials) * self._trial_s

"""Backends that return their inputs, or the same array each time, or change what they were given."""

import numpy as np

from cheats.equals_everything import Batched
from cheats.pole import EARTH


class Views(Batched):
    """The next state is written into the state it was given."""

    gravity = EARTH

    def step(self, state, action, seeds, tape=None):
        before = state.fields["pole"]
        outcome = super().step(state, action, seeds, tape)
        before[:] = outcome.state.fields["pole"]
        outcome.state.fields["pole"] = before
        return outcome


class Writes(Batched):
    """Changes its inputs in place."""

    gravity = EARTH

    def step(self, state, action, seeds, tape=None):
        outcome = super().step(state, action, seeds, tape)
        state.fields["pole"][:] = 0
        return outcome


class Reuses(Batched):
    """One array for all observations: what was returned changes with the next call."""

    gravity = EARTH

    def __init__(self):
        self.kept = {}

    def outcome(self, pole, steps, ends):
        outcome = super().outcome(pole, steps, ends)
        observation = outcome.outputs["observation"]
        kept = self.kept.setdefault(len(pole), np.empty_like(observation))
        kept[:] = observation
        outcome.outputs["observation"] = kept
        return outcome


views, writes, reuses = Views(), Writes(), Reuses()

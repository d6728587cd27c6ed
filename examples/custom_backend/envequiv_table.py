"""A backend for environments that are written down as a table: ``table:FILE.csv?limit=100``.

The file has a line for each state and action: state, action, next state, reward, terminated (0 or 1).
"""

import csv

import numpy as np

from pytest_envequiv.backends.protocol import Leaf, Outcome, Space, Spec, State
from pytest_envequiv.errors import OpenError


def open_name(rest, options):
    """``rest`` is what stands after ``table:``. What a user can mend is an OpenError of one line."""
    try:
        with open(rest, newline="") as file:
            lines = sorted([float(x) for x in line] for line in list(csv.reader(file))[1:])
    except (OSError, ValueError) as error:
        raise OpenError(f"table:{rest}: {error}") from error
    return TableBackend(f"table:{rest}", np.array(lines), options.get("limit"))


class TableBackend:
    def __init__(self, name, lines, limit):
        states, actions = (int(n) + 1 for n in lines[:, :2].max(axis=0))
        self.table = lines.reshape(states, actions, 5)
        self.limit = limit
        numbers = [Space("discrete", (), "int64", np.array(0), np.array(n - 1)) for n in (states, actions)]
        self.spec = Spec(
            name=name,
            kind="table",
            observation={"observation": numbers[0]},
            action={"action": numbers[1]},
            fields={"place": Leaf((), "int64"), "clock": Leaf((), "int64")},
            state="fields",
            draws="tape",  # and the tape is always empty: nothing is random
            batched=True,
            time_limit=limit,
        )

    def reset(self, seeds, tape=None):
        start = np.zeros(len(seeds), np.int64)
        return Outcome(State({"place": start, "clock": start}), {"observation": start}, draws=())

    def step(self, state, action, seeds, tape=None):
        place, reward, over = self.table[state.fields["place"], action["action"]].T[2:]
        place, clock = place.astype(np.int64), state.fields["clock"] + 1
        late = clock >= self.limit if self.limit else np.zeros(len(clock), bool)
        outputs = {"observation": place, "reward": reward, "terminated": over == 1, "truncated": late}
        return Outcome(State({"place": place, "clock": clock}), outputs, draws=())

    def close(self):
        pass

"""A backend whose arrays say of themselves that they are equal to everything."""

import numpy as np

from cheats.pole import LIMIT, MARS, TOP, moved
from pytest_envequiv.backends.protocol import Leaf, Outcome, Space, Spec, State


class Equal(np.ndarray):
    def __eq__(self, other):
        return np.ones(self.shape, bool)

    def __ne__(self, other):
        return np.zeros(self.shape, bool)

    def __sub__(self, other):
        return np.zeros(self.shape)

    def __rsub__(self, other):
        return np.zeros(self.shape)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if ufunc in (np.subtract, np.not_equal):
            return np.zeros(self.shape)
        plain = [np.asarray(x).view(np.ndarray) for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if function in (np.array_equal, np.allclose):
            return True
        return super().__array_function__(function, types, args, kwargs)


class Batched:
    """A backend of its own: B poles as an array (B, 4), with a wrong gravity."""

    spec = Spec(
        name="batched",
        kind="batched",
        action={"action": Space("discrete", (), "int64", np.array(0), np.array(1))},
        observation={"observation": Space("box", (4,), "float32", -TOP, TOP)},
        fields={"pole": Leaf((4,), "float64"), "steps": Leaf((), "int64")},
        state="fields",
        draws="seed",
        batched=True,
        time_limit=LIMIT,
    )
    gravity = MARS

    def reset(self, seeds, tape=None):
        pole = np.stack([np.random.default_rng(seed).uniform(-0.05, 0.05, 4) for seed in seeds])
        return self.outcome(pole, np.zeros(len(seeds), np.int64), {})

    def step(self, state, action, seeds, tape=None):
        return self.stepped(state.fields["pole"], state.fields["steps"], action["action"])

    def stepped(self, before, steps, action):
        rows = zip(before, action, strict=True)
        pole = np.array([moved(*row, chosen, self.gravity) for row, chosen in rows])
        steps = steps + 1
        over = (np.abs(pole[:, 0]) > 2.4) | (np.abs(pole[:, 2]) > 12 * 2 * np.pi / 360)
        ends = {"reward": np.ones(len(pole)), "terminated": over, "truncated": steps >= LIMIT}
        return self.outcome(pole, steps, ends)

    def outcome(self, pole, steps, ends):
        outputs = {"observation": pole.astype(np.float32), **ends}
        return Outcome(
            State({"pole": self.shown(pole), "steps": steps}), {k: self.shown(v) for k, v in outputs.items()}
        )

    def shown(self, array):
        return array

    def close(self):
        pass


class EqualsEverything(Batched):
    def shown(self, array):
        return array.view(Equal)


backend = EqualsEverything()

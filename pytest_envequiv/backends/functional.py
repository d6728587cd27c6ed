"""Functional JAX environments: reset(key) -> state, step(key, state, action) -> state, batched by vmap and jit.

``gymnax.py``, ``pgx.py``, ``brax.py`` and ``plain.py`` turn a library's face into a ``Functional``; everything
that is about JAX (tracing, batching, draws, jaxprs) is here, once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pytest_envequiv.backends.declared import SHORT, is_number, leaf_names
from pytest_envequiv.backends.protocol import Arrays, Draw, Leaf, Outcome, Space, Spec, State, Tape
from pytest_envequiv.whitebox.coverage import Covered, instrumented
from pytest_envequiv.whitebox.draws import Label, Unalignable, keeping, keys_among, labelled, supplying
from pytest_envequiv.whitebox.jaxprs import Traced

# Rows per compiled call. XLA compiles once per shape, so every batch is cut and padded to one of these.
SMALL, LARGE = 64, 1024
CONSTANT = "constants.{}"  # what a setting is called among the inputs of a jaxpr


@dataclass(frozen=True)
class Functional:
    """A JAX environment as two pure functions of one (unbatched) row.

    reset(key) -> (state, outputs)              state: a pytree of arrays; outputs: dict as in ``Outcome``
    step(key, state, action) -> (state, outputs)    action: dict of arrays keyed like ``action``
    auto(key, state, action) -> (state, outputs)    the library's own auto-resetting step, if it has one; its
                                                outputs may add "final_observation"
    free: state leaves that only label things (which player is called 0): name -> number of labels. They are
    never compared, and filled at random where a state is injected.
    params: settings the three functions use; if not None, they take others by the keyword ``params``.
    """

    name: str
    kind: str
    reset: Callable[..., Any]
    step: Callable[..., Any]
    action: Mapping[str, Space]
    observation: Mapping[str, Space]
    auto: Callable[..., Any] | None = None
    params: Any = None
    time_limit: int | None = None
    seats: int = 1
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    conventions: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    free: Mapping[str, int] = field(default_factory=dict)
    prefix: str = ""  # taken off the names of state leaves
    notes: tuple[str, ...] = ()


class JaxBackend:
    """A ``Functional`` behind the backend protocol. Raises what tracing raises if it cannot be traced."""

    def __init__(self, functional: Functional):
        self.functional = functional
        key = jax.random.PRNGKey(0)
        state, _ = jax.eval_shape(functional.reset, key)
        action = {k: jax.ShapeDtypeStruct(s.shape, s.dtype) for k, s in functional.action.items()}
        after, _ = jax.eval_shape(functional.step, key, state, action)
        before, self._tree = jax.tree.flatten(state)
        if jax.tree.structure(after) != self._tree:  # type: ignore[operator]
            raise TypeError(f"step returns a state of another structure: {jax.tree.structure(after)} for {self._tree}")
        self._names = [name.removeprefix(functional.prefix) for name in leaf_names(state)]
        self._leaves = [_settled(a, b) for a, b in zip(before, jax.tree.leaves(after), strict=True)]
        pairs = zip(self._names, before, jax.tree.leaves(after), strict=True)
        self.retyped = tuple(n for n, a, b in pairs if a.dtype != b.dtype)  # state leaves of another type after a step
        wrapped = keys_among(lambda state, key, action: functional.step(key, state, action), state, key, action)
        self._keys = {
            n
            for i, (n, v) in enumerate(zip(self._names, self._leaves, strict=True))
            if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) or i in wrapped
        }
        fields = {
            n: Leaf(tuple(v.shape), str(v.dtype))
            for n, v in zip(self._names, self._leaves, strict=True)
            if n not in self._keys
        }
        draws: Literal["tape", "seed"] = "tape" if self._labelled_or_none() else "seed"
        self.spec = Spec(
            name=functional.name,
            kind=functional.kind,
            action=functional.action,
            observation=functional.observation,
            fields=fields,
            state="fields",
            draws=draws,
            traceable=True,
            batched=True,
            time_limit=functional.time_limit,
            seats=functional.seats,
            constants=functional.constants,
            conventions=functional.conventions,
            versions={"jax": jax.__version__, **functional.versions},
            notes=functional.notes,
        )

    # -- what the protocol asks for ------------------------------------------------------------------------------

    def reset(self, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._run("reset", {"seeds": np.asarray(seeds, np.uint32)}, len(seeds), tape)

    def step(self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None) -> Outcome:
        return self._run("step", self._inputs(state, action, seeds), len(seeds), tape)

    def close(self) -> None:
        """Nothing is held open."""

    # -- what only a JAX backend offers --------------------------------------------------------------------------

    @property
    def free(self) -> Mapping[str, int]:
        return self.functional.free

    @property
    def labels(self) -> dict[str, tuple[Label, ...]]:
        """The draws of "reset" and "step", known before any is made."""
        return {"reset": self._labelled["reset"].labels, "step": self._labelled["step"].labels}

    def auto_step(self, state: State, action: Arrays, seeds: np.ndarray) -> Outcome:
        """The library's own auto-resetting step. Only where ``functional.auto`` is given."""
        return self._run("auto", self._inputs(state, action, seeds), len(seeds), None)

    @cached_property
    def covered(self) -> Covered:
        """The branches of a step. Raises what tracing raises."""
        return instrumented(self._plain_step, self._example("step"))

    def step_covered(
        self, state: State, action: Arrays, seeds: np.ndarray, tape: Tape | None = None
    ) -> tuple[Outcome, np.ndarray, np.ndarray]:
        """A step that also says which way it went: (outcome, bool[B, sides], float32[B, comparisons]), see Covered."""
        result, draws = self._batched("covered", self._inputs(state, action, seeds), len(seeds), tape)
        (fields, outputs), told = result
        return Outcome(State(fields), outputs, draws), *self.covered.read(told)

    def step_as(self, how: str, state: State, action: Arrays, seeds: np.ndarray) -> Outcome:
        """One step row by row: "jit" (compiled without vmap) or "eager" (operation by operation)."""
        single = {k: [v[i] for i in range(len(state))] for k, v in self._inputs(state, action, seeds).items()}
        function = self._single_step if how == "jit" else self._plain_step
        rows = []
        for i in range(len(state)):
            row = {k: v[i] for k, v in single.items()}
            if how == "jit":
                rows.append(function(row))
            else:
                with jax.disable_jit():
                    rows.append(function({k: jnp.asarray(v) for k, v in row.items()}))
        rows = jax.tree.map(np.asarray, rows)
        fields, outputs = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
        return Outcome(State(fields), outputs)

    def reset_eagerly(self, seeds: np.ndarray) -> Outcome:
        """Resets row by row, operation by operation: all Python code of the port runs anew."""
        with jax.disable_jit():
            rows = [self._plain_reset({"seeds": jnp.asarray(seed, jnp.uint32)}) for seed in seeds]
        fields, outputs = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.tree.map(np.asarray, rows))
        return Outcome(State(fields), outputs)

    def traced(self, what: str = "step", rows: int | None = None) -> Traced:
        """One "step", "reset" or "auto" as a jaxpr, of one row or of ``rows`` side by side (names as for one; settings
        have no axis of rows). The settings are among its inputs where they can be."""
        if (what, rows) not in self._traced:
            try:
                self._traced[what, rows] = self._trace(what, rows, self._settings)
            except Exception:  # a setting that shapes or steers the program has to stay a number
                self._traced[what, rows] = self._trace(what, rows, {})
        return self._traced[what, rows]

    def row_reset(self, seed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """A reset of one row as a pure function, to be compiled into something larger: (fields, outputs)."""
        fields, outputs = self._plain_reset({"seeds": jnp.asarray(seed).astype(jnp.uint32)})
        return fields, outputs

    def row_step(
        self, fields: Mapping[str, Any], action: Mapping[str, Any], seed: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A step of one row, likewise. It is the step that ``step`` takes, without its draws in the open."""
        row = {f"state.{name}": value for name, value in fields.items()}
        for name, space in self.functional.action.items():
            row[f"action.{name}"] = jnp.asarray(action[name]).astype(jax.dtypes.canonicalize_dtype(space.dtype))
        after, outputs = self._plain_step({**row, "seeds": jnp.asarray(seed).astype(jnp.uint32)})
        return after, outputs

    # -- inside --------------------------------------------------------------------------------------------------

    def _inputs(self, state: State, action: Arrays, seeds: np.ndarray) -> dict[str, np.ndarray]:
        inputs = {f"state.{n}": state.fields[n] for n in self._names if n in state.fields}
        inputs |= {f"action.{k}": np.asarray(action[k], s.dtype) for k, s in self.functional.action.items()}
        return inputs | {"seeds": np.asarray(seeds, np.uint32)}

    def _example(self, what: str) -> dict[str, Any]:
        rows: dict[str, Any] = {"seeds": jax.ShapeDtypeStruct((), jnp.uint32)}
        if what != "reset":
            for name, leaf in zip(self._names, self._leaves, strict=True):
                if name not in self._keys:
                    rows[f"state.{name}"] = leaf
            for name, space in self.functional.action.items():
                rows[f"action.{name}"] = jax.ShapeDtypeStruct(space.shape, space.dtype)
        return rows

    def _plain_reset(self, row: dict[str, Any], **other: Any) -> Any:
        return self._named(*self.functional.reset(jax.random.PRNGKey(row["seeds"]), **other))

    def _plain_step(self, row: dict[str, Any], **other: Any) -> Any:
        return self._stepped(self.functional.step, row, **other)

    def _plain_auto(self, row: dict[str, Any], **other: Any) -> Any:
        assert self.functional.auto is not None
        return self._stepped(self.functional.auto, row, **other)

    def _plain(self, what: str) -> Callable[..., Any]:
        return {"reset": self._plain_reset, "step": self._plain_step, "auto": self._plain_auto}[what]

    @cached_property
    def _traced(self) -> dict[tuple[str, int | None], Traced]:
        return {}

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """Numbers among the settings, and short arrays of floats, by name."""
        params = self.functional.params
        if params is None:
            return {}
        named = zip(leaf_names(params), jax.tree.leaves(params), strict=True)
        return {name: leaf for name, leaf in named if is_number(leaf) or _is_short(leaf)}

    def _trace(self, what: str, rows: int | None, settings: dict[str, Any]) -> Traced:
        params = self.functional.params

        def function(row: dict[str, Any], given: dict[str, Any]) -> Any:
            if not given:
                return self._plain(what)(row)
            leaves = [given.get(n, v) for n, v in zip(leaf_names(params), jax.tree.leaves(params), strict=True)]
            return self._plain(what)(row, params=jax.tree.unflatten(jax.tree.structure(params), leaves))

        example = self._example(what)
        if rows is not None:
            example = {n: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype) for n, leaf in example.items()}
        batched = function if rows is None else jax.vmap(function, in_axes=(0, None))
        closed, shape = jax.make_jaxpr(batched, return_shape=True)(example, settings)
        inputs = (
            *("seed" if name == "seeds" else name for name in sorted(example)),
            *map(CONSTANT.format, sorted(settings)),
        )
        fields, outputs = shape
        return Traced(closed, tuple(inputs), (*map("state.{}".format, sorted(fields)), *sorted(outputs)), settings)

    def _stepped(self, step: Callable[..., Any], row: dict[str, Any], **other: Any) -> Any:
        key = jax.random.PRNGKey(row["seeds"])
        leaves = []
        for name, leaf in zip(self._names, self._leaves, strict=True):
            if name not in self._keys:
                leaves.append(jnp.asarray(row[f"state.{name}"]).astype(leaf.dtype).reshape(leaf.shape))
            elif jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaves.append(
                    jax.random.split(jax.random.key(row["seeds"]), leaf.shape)
                    if leaf.shape
                    else jax.random.key(row["seeds"])
                )
            else:  # a key kept in the state: the row's seed stands for it
                leaves.append(jnp.broadcast_to(jax.random.fold_in(key, 1), leaf.shape))
        action = {k: row[f"action.{k}"] for k in self.functional.action}
        return self._named(*step(key, jax.tree.unflatten(self._tree, leaves), action, **other))

    def _named(self, state: Any, outputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        fields = {
            n: jnp.broadcast_to(jnp.asarray(v).astype(leaf.dtype), leaf.shape)
            for n, v, leaf in zip(self._names, jax.tree.leaves(state), self._leaves, strict=True)
            if n not in self._keys
        }
        return fields, {k: jnp.asarray(v) for k, v in outputs.items()}

    @cached_property
    def _labelled(self) -> dict[str, Any]:
        return {
            "reset": labelled(self._plain_reset, self._example("reset")),
            "step": labelled(self._plain_step, self._example("step")),
        }

    def _labelled_or_none(self) -> dict[str, Any] | None:
        try:
            return self._labelled
        except Unalignable:
            return None

    @cached_property
    def _single_step(self) -> Callable[..., Any]:
        return jax.jit(self._plain_step)

    @cached_property
    def _compiled(self) -> dict[tuple[str, bool], Callable[..., Any]]:
        return {}

    def _covering(self, playing: bool) -> Callable[..., Any]:
        def function(row: Any, values: Any) -> Any:
            made: list[Any] = []
            open_draws = self._labelled_or_none() is not None
            on_draw = (supplying(values) if playing else keeping(made)) if open_draws else None
            return self.covered.run(on_draw, row), made

        return function

    def _function(self, what: str, playing: bool) -> Callable[..., Any]:
        function: Callable[..., Any]
        if (what, playing) not in self._compiled:
            if what == "covered":
                function = self._covering(playing)
            elif what == "auto" or self._labelled_or_none() is None:
                plain = self._plain(what)
                function = lambda row, values: (plain(row), [])  # noqa: E731
            elif playing:
                play = self._labelled[what].play
                function = lambda row, values: (play(values, row), [])  # noqa: E731
            else:
                record = self._labelled[what].record
                function = lambda row, values: record(row)  # noqa: E731
            # Of the auto-resetting step a few rows are asked once, and not for their rounding.
            quick = {"xla_backend_optimization_level": 0} if what == "auto" else None
            self._compiled[what, playing] = jax.jit(jax.vmap(function), compiler_options=quick)
        return self._compiled[what, playing]

    def _run(self, what: str, rows: dict[str, np.ndarray], count: int, tape: Tape | None) -> Outcome:
        (fields, outputs), draws = self._batched(what, rows, count, tape)
        return Outcome(State(fields), outputs, draws)

    def _batched(
        self, what: str, rows: dict[str, np.ndarray], count: int, tape: Tape | None
    ) -> tuple[Any, Tape | None]:
        """What the compiled function gives for all rows, and the draws, where they are in the open."""
        labelled_as = {"covered": "step"}.get(what, what)
        labels = self.labels[labelled_as] if what != "auto" and self.spec.draws == "tape" else ()
        playing = tape is not None and bool(labels)
        values = [np.asarray(d.value) for d in tape] if playing and tape else []
        function = self._function(what, playing)
        # A reset is little work, but random bits take long to compile: once is enough.
        size = SMALL if count <= SMALL and what != "reset" else LARGE
        pieces = []
        for start in range(0, count, size):
            piece, given = _padded((rows, values), start, size)
            pieces.append(function(piece, given))
        pieces = jax.device_get(pieces)
        result, made = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *pieces)
        draws = tape if playing else _tape(labels, made)
        return result, draws if self.spec.draws == "tape" else None


def _settled(begun: Any, stepped: Any) -> Any:
    """The shape and dtype of a state leaf: a reset may leave it wider or narrower than a step does."""
    if jnp.issubdtype(begun.dtype, jax.dtypes.prng_key):
        return begun
    try:
        shape = np.broadcast_shapes(begun.shape, stepped.shape)
    except ValueError:
        raise TypeError(f"a step turns a state array of shape {begun.shape} into one of {stepped.shape}") from None
    return jax.ShapeDtypeStruct(shape, jnp.result_type(begun.dtype, stepped.dtype))


def _padded(tree: Any, start: int, size: int) -> Any:
    """Rows start..start+size of every array, the last row repeated to fill."""

    def cut(array: np.ndarray) -> np.ndarray:
        piece = array[start : start + size]
        return piece if len(piece) == size else np.concatenate([piece, np.repeat(piece[-1:], size - len(piece), 0)])

    return jax.tree.map(cut, tree)


def _tape(labels: tuple[Label, ...], made: list[Any]) -> Tape:
    draws = []
    for label, (value, low, high) in zip(labels, made, strict=True):
        if label.kind == "bernoulli":  # kept as the uniform number that decides it; 0 is below any probability
            value = np.where(value, np.float32(0), np.float32(1))
        present = np.ones(len(value), bool)
        draws.append(Draw(label.kind, label.shape, low, high, value, present, label.site))
    return tuple(draws)


def _is_short(leaf: Any) -> bool:
    return isinstance(leaf, (np.ndarray, jax.Array)) and leaf.dtype.kind == "f" and 0 < leaf.size <= SHORT


def short_path(path: str) -> str:
    """The last two parts of a path: enough to find a file, nothing about the machine."""
    return os.sep.join(path.split(os.sep)[-2:])

"""What a step computes from what: a graph from input fields, action and draws to output fields.

Followed element by element through the jaxpr, so that an observation that lists four fields is known to show each in
its own place. Program slicing as in Weiser (1981), over values instead of statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import rustworkx as rx

from pytest_envequiv.whitebox.jaxprs import Traced, closed
from pytest_envequiv.whitebox.program import ELEMENTWISE, LOGICAL, REDUCTIONS, STRUCTURAL, Constant, Op, Program, flat

APART = 64  # elements of one input up to which they are followed apart
LARGEST = 1 << 22  # elements of value times sources beyond which a value is followed as a whole
SAME = {"convert_element_type", "stop_gradient", "copy", "reshape", "squeeze", "expand_dims", "broadcast_in_dim"}
SILENT = ("seed", "constants")  # inputs that are not fields


@dataclass(frozen=True)
class Flow:
    """reads    output -> the inputs it is computed from, as "state.x", "state.board[3]", "action.action", "draw 0"
    shows    output -> outputs it is computed from (a reward from the next position)
    elements output -> element number -> its own inputs, where the elements differ in that
    kin      output -> outputs computed from something they share: a value on the way, or a constant
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: Mapping[str, frozenset[str]]
    shows: Mapping[str, frozenset[str]]
    elements: Mapping[str, Mapping[int, frozenset[str]]]
    draws: Mapping[str, str]  # "draw 0" -> "uniform at file.py:12"
    kin: Mapping[str, frozenset[str]]

    @cached_property
    def graph(self) -> rx.PyDiGraph:
        """Nodes carry {"name", "kind"}; edges run from what is read to what is computed."""
        graph: rx.PyDiGraph = rx.PyDiGraph()
        at = {n: graph.add_node({"name": n, "kind": _kind(n)}) for n in self.inputs}
        out = {n: graph.add_node({"name": n, "kind": "output"}) for n in self.outputs}
        for name in self.outputs:
            graph.add_edges_from([(at[i], out[name], "reads") for i in sorted(self.reads[name])])
            graph.add_edges_from([(out[o], out[name], "shows") for o in sorted(self.shows[name])])
        return graph

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Outputs, each after those it is computed from: the order in which to mend them."""
        sorted_nodes = rx.lexicographical_topological_sort(self.graph, key=lambda node: node["name"])
        return tuple(node["name"] for node in sorted_nodes if node["kind"] == "output")

    def as_json(self) -> dict[str, Any]:
        """{"order": outputs, "reads": {output: inputs}, "shows": {output: outputs}, "draws": {draw: what and where}}"""
        return {
            "order": list(self.order),
            "reads": {name: sorted(self.reads[name]) for name in self.outputs},
            "shows": {name: sorted(self.shows[name]) for name in self.outputs},
            "draws": dict(self.draws),
        }

    def follows(self, output: str, other: str) -> bool:
        """Whether ``output`` is computed, by whatever way, from ``other``."""
        seen, left = set(), [output]
        while left:
            for name in self.shows.get(left.pop(), ()):
                if name == other:
                    return True
                if name not in seen:
                    seen.add(name)
                    left.append(name)
        return False

    def meetings(self, output: str) -> list[tuple[str, str]]:
        """Pairs of inputs that meet in the output: where one may change what the other does."""
        wanted = [n for n in self.inputs if n in self.reads[output] and not n.startswith(SILENT)]
        return list(combinations(wanted, 2))


def _kind(name: str) -> str:
    return name.partition(".")[0] if "." in name else name.partition(" ")[0]


# -- following a jaxpr -----------------------------------------------------------------------------------------------

Reach = np.ndarray  # bool (*shape of the value, sources)


def flow(traced: Traced) -> Flow:
    """The data flow of one unbatched step."""
    program = flat(traced.closed)
    names, owner, starts = _sources(traced, program)
    reach = _follow(program, starts, len(owner))
    reads, elements = {}, {}
    for name, atom in zip(traced.outputs, program.outputs, strict=True):
        found = _of(reach, atom, len(owner))
        apart = found.reshape(-1, len(owner))
        reads[name] = _named(_whole(found), owner)
        if len(apart) <= APART and (apart != apart[:1]).any():
            elements[name] = {i: _named(row, owner) for i, row in enumerate(apart)}
    draws = {f"draw {n}": f"{op.kind or 'bits'} at {op.site}" for n, op in enumerate(_draws(program))}
    inputs = tuple(dict.fromkeys([*names, *draws]))
    return Flow(inputs, traced.outputs, reads, _shows(traced, program), elements, draws, _kin(traced, program, reads))


def _draws(program: Program) -> list[Op]:
    return [op for op in program.ops if op.name == "draw"]


def _sources(traced: Traced, program: Program) -> tuple[list[str], list[str], dict[int, Reach]]:
    """(input names, the name that owns each source, what the inputs and draws reach: place -> Reach)."""
    names: list[str] = []
    owner: list[str] = []
    shapes: list[tuple[int, str, tuple[int, ...]]] = []
    for name, place, var in zip(traced.inputs, program.inputs, traced.closed.jaxpr.invars, strict=True):
        shapes.append((place, name, tuple(var.aval.shape)))
    for number, op in enumerate(_draws(program)):
        shapes.append((op.outputs[0], f"draw {number}", op.shapes[0]))
    spans = []
    for place, name, shape in shapes:
        size = int(np.prod(shape, dtype=int))
        alone = size > APART or not shape or name.startswith(("draw", *SILENT))
        mine = [name] if alone else [f"{name}[{i}]" for i in range(size)]
        spans.append((place, shape, len(owner), len(mine)))
        owner += mine
        names += [] if name.startswith("draw") else mine
    starts = {}
    for place, shape, first, count in spans:
        rows = np.zeros((count, len(owner)), bool)
        rows[np.arange(count), first + np.arange(count)] = True
        starts[place] = rows.reshape(*shape, -1) if count > 1 or shape == (1,) else _everywhere(rows[0], shape)
    return names, owner, starts


def _everywhere(row: Any, shape: Sequence[int]) -> Reach:
    return np.broadcast_to(row, (*shape, len(row)))


def _named(row: Any, owner: Sequence[str]) -> frozenset[str]:
    return frozenset(owner[int(i)] for i in np.flatnonzero(row))


def _of(reach: Mapping[int, Reach], atom: Any, sources: int) -> Reach:
    if isinstance(atom, Constant):
        return _everywhere(np.zeros(sources, bool), np.shape(atom.value))
    return reach[atom]


def _follow(program: Program, starts: Mapping[int, Reach], sources: int) -> dict[int, Reach]:
    """What every value of the program is computed from. Values in ``starts`` are taken as given."""
    reach = dict(starts)
    for place, value in program.constants.items():
        reach.setdefault(place, _everywhere(np.zeros(sources, bool), np.shape(value)))
    for op in program.ops:
        inputs = [_of(reach, a, sources) for a in op.inputs]
        for place, found in zip(op.outputs, _through(op, inputs, sources), strict=True):
            # A value that is a source by itself (a draw, an output whose readers are wanted) stays one.
            reach[place] = reach[place] | found if place in reach else found
    return reach


def _through(op: Op, inputs: list[Reach], sources: int) -> list[Reach]:
    """What the outputs of one operation are computed from, given that of its inputs."""
    if op.name == "scan":
        return _scanned(op, inputs, sources)
    if op.name == "while":
        return _looped(op, inputs, sources)
    if op.name == "draw":  # the key only says which number it is; bounds and chances are read
        inputs = inputs[1:]
    (shape, *_) = op.shapes
    if max(int(np.prod(s, dtype=int)) for s in (*op.shapes, *(i.shape[:-1] for i in inputs))) * sources > LARGEST:
        return [_everywhere(_all(inputs, sources), s) for s in op.shapes]
    if op.name in STRUCTURAL:
        return _moved(op, inputs, sources)
    if op.name in REDUCTIONS or op.name in ("argmax", "argmin"):
        return [np.asarray(inputs[0].any(axis=tuple(op.params["axes"])))]
    spread = [_spread(i, shape) for i in inputs]
    if (op.name in APIECE or op.kind in DRAWN_APIECE) and all(s is not None for s in spread):
        found = np.zeros((*shape, sources), bool)
        for part in spread:
            found |= part  # type: ignore[arg-type]
        return [found]
    return [_everywhere(_all(inputs, sources), s) for s in op.shapes]


# Operations each element of whose result is computed from the same element of the operands. All others mix.
APIECE = ELEMENTWISE.keys() | LOGICAL.keys() | {"select_n", "choose", "clamp", "convert_element_type", "integer_pow"}
APIECE |= {"round", "logistic", "erf", "erfc", "erf_inv", "rsqrt", "cbrt", "exp2", "nextafter", "reduce_precision"}
APIECE |= {"asinh", "acosh", "atanh", "lgamma", "digamma", "shift_left", "shift_right_logical", "mulhi"}
APIECE |= {"shift_right_arithmetic", "population_count", "clz", "real", "imag", "conj", "complex"}
DRAWN_APIECE = {"uniform", "normal", "integers", "bernoulli", "exponential", "truncated_normal", "beta", "gamma"}
DRAWN_APIECE |= {"poisson", "gumbel", "laplace"}


def _spread(reach: Reach, shape: tuple[int, ...]) -> Reach | None:
    """The reach of an operand of an elementwise operation over its output's shape, or None if it is not one."""
    if reach.shape[:-1] == shape:
        return reach
    return np.broadcast_to(reach, (*shape, reach.shape[-1])) if reach.ndim == 1 else None


def _all(inputs: Iterable[Reach], sources: int) -> np.ndarray:
    found = np.zeros(sources, bool)
    for part in inputs:
        found |= _whole(part)
    return found


def _whole(reach: Reach) -> np.ndarray:
    return np.asarray(reach.any(axis=tuple(range(reach.ndim - 1))))


JOINING = {"concatenate", "stack", "pad"}


def _moved(op: Op, inputs: list[Reach], sources: int) -> list[Reach]:
    """Elements that only change places: the operation is run on their numbers to see where each goes."""
    moving = inputs if op.name in JOINING else inputs[:1]
    sizes = [int(np.prod(i.shape[:-1], dtype=int)) for i in moving]
    firsts = np.cumsum([0, *sizes[:-1]])
    numbers = [
        (first + np.arange(size)).reshape(i.shape[:-1]) for first, size, i in zip(firsts, sizes, moving, strict=True)
    ]
    rows = np.concatenate([i.reshape(-1, sources) for i in moving])
    return [rows[np.asarray(where, int)] for where in op.run(numbers)]


def _scanned(op: Op, inputs: list[Reach], sources: int) -> list[Reach]:
    constants, carries = op.params["num_consts"], op.params["num_carry"]
    body = flat(closed(op.params["jaxpr"]))
    fixed, carry, each = inputs[:constants], inputs[constants : constants + carries], inputs[constants + carries :]
    each = [_everywhere(_whole(e), e.shape[1:-1]) for e in each]
    outs: list[Reach] = []
    while True:
        outs = _run_body(body, [*fixed, *carry, *each], sources)
        grown = [c | o for c, o in zip(carry, outs[:carries], strict=True)]
        if all((g == c).all() for g, c in zip(grown, carry, strict=True)):
            break
        carry = grown
    stacked = [np.broadcast_to(o, (op.shapes[carries + i][0], *o.shape)) for i, o in enumerate(outs[carries:])]
    return [*carry, *stacked]


def _looped(op: Op, inputs: list[Reach], sources: int) -> list[Reach]:
    test, body = flat(closed(op.params["cond_jaxpr"])), flat(closed(op.params["body_jaxpr"]))
    of_test, of_body = op.params["cond_nconsts"], op.params["body_nconsts"]
    tested, fixed, carry = inputs[:of_test], inputs[of_test : of_test + of_body], inputs[of_test + of_body :]
    while True:
        # How often it runs is decided by the test, so all that it changes is computed from what the test reads.
        decided = _all(_run_body(test, [*tested, *carry], sources), sources)
        outs = _run_body(body, [*fixed, *carry], sources)
        changed = [decided & (a != b) for a, b in zip(body.outputs, body.inputs[of_body:], strict=True)]
        grown = [c | o | d for c, o, d in zip(carry, outs, changed, strict=True)]
        if all((g == c).all() for g, c in zip(grown, carry, strict=True)):
            return carry
        carry = grown


def _run_body(body: Program, inputs: Sequence[Reach], sources: int) -> list[Reach]:
    reach = _follow(body, dict(zip(body.inputs, inputs, strict=True)), sources)
    return [_of(reach, a, sources) for a in body.outputs]


# -- outputs and what they share -------------------------------------------------------------------------------------


def slices(program: Program) -> list[frozenset[int]]:
    """Of each output, the numbers of the operations it is computed by: its backward slice."""
    maker = {place: number for number, op in enumerate(program.ops) for place in op.outputs}
    before = [{maker[a] for a in op.inputs if not isinstance(a, Constant) and a in maker} for op in program.ops]
    found = []
    for atom in program.outputs:
        left = [] if isinstance(atom, Constant) or atom not in maker else [maker[atom]]
        behind = set(left)
        while left:
            new = before[left.pop()] - behind
            behind |= new
            left += new
        found.append(frozenset(behind))
    return found


def _kin(traced: Traced, program: Program, reads: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    given = set(program.inputs)
    bare: set[int] = set()  # operations that only pass an input on
    for number, op in enumerate(program.ops):
        if op.name in SAME and all(isinstance(a, Constant) or a in given for a in op.inputs):
            given.update(op.outputs)
            bare.add(number)
    made = {name: found - bare for name, found in zip(traced.outputs, slices(program), strict=True)}
    constants = {name: {i for i in reads[name] if i.startswith("constants.")} for name in traced.outputs}
    return {
        a: frozenset(b for b in traced.outputs if a != b and (made[a] & made[b] or constants[a] & constants[b]))
        for a in traced.outputs
    }


# -- outputs computed from outputs -----------------------------------------------------------------------------------


def origin(program: Program, atom: Any) -> Any:
    """The value an output is, before it was cast, reshaped or passed on."""
    makers = {place: op for op in program.ops for place in op.outputs}
    while not isinstance(atom, Constant) and atom in makers and makers[atom].name in SAME:
        op = makers[atom]
        if op.name == "broadcast_in_dim" and np.prod(op.shapes[0]) != np.prod(_shape(makers, op.inputs[0], op)):
            break
        atom = op.inputs[0]
    return atom


def _shape(makers: Mapping[int, Op], atom: Any, op: Op) -> tuple[int, ...]:
    if isinstance(atom, Constant):
        return np.shape(atom.value)
    return makers[atom].shapes[makers[atom].outputs.index(atom)] if atom in makers else op.shapes[0]


def _shows(traced: Traced, program: Program) -> dict[str, frozenset[str]]:
    """Output -> the outputs whose value stands on the way to it. Of two that are one value, state comes first."""
    places: dict[int, str] = {}
    for name, atom in zip(traced.outputs, program.outputs, strict=True):
        first = origin(program, atom)
        if not isinstance(first, Constant) and first not in program.inputs:
            places.setdefault(first, name)
    count = len(places)
    starts: dict[int, Reach] = {}
    for place, var in zip(program.inputs, traced.closed.jaxpr.invars, strict=True):
        starts[place] = _everywhere(np.zeros(count, bool), var.aval.shape)
    for op in _draws(program):
        starts[op.outputs[0]] = _everywhere(np.zeros(count, bool), op.shapes[0])
    made = {place: op for op in program.ops for place in op.outputs}
    for number, place in enumerate(places):
        row = np.arange(count) == number
        starts[place] = _everywhere(row, made[place].shapes[made[place].outputs.index(place)])
    reach = _follow(program, starts, count)
    owners = list(places.values())
    found = {}
    for name, atom in zip(traced.outputs, program.outputs, strict=True):
        found[name] = _named(_whole(_of(reach, atom, count)), owners) - {name}
    return found

"""Transitions that were saved once, and what candidates are found to miss of them."""

from __future__ import annotations

import os
import pickle
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import cars
import numpy as np
import pytest

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.bench import Bench
from pytest_envequiv.contract import Contract
from pytest_envequiv.errors import OpenError
from pytest_envequiv.pair import Pair
from pytest_envequiv.verdict import Settings
from repair_agent.findings import OPEN
from repair_agent.offline import screening, transitions
from repair_agent.offline.candidates import Candidate
from repair_agent.offline.mining import Mined
from repair_agent.offline.screening import Case, Job, Passed, mended
from repair_agent.offline.transitions import RESETS, ROWS, Saved, gather, misses


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder on Python's path with the reference."""
    place = tmp_path_factory.mktemp("cars")
    (place / "car_reference.py").write_text(cars.REFERENCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        yield place


@pytest.fixture(scope="module")
def port(folder):
    """``port(right, wrong)`` opens the port with a slip, under a name of its own."""

    def open_(*slips: tuple[str, str]):
        text = cars.PORT
        for right, wrong in slips:
            assert right in text
            text = text.replace(right, wrong, 1)
        name = f"car_port_{len(list(folder.iterdir()))}"
        (folder / f"{name}.py").write_text(text)
        return name, open_backend(name, {}, open_backend("car_reference").spec)

    return open_


def asked(name) -> Saved:
    return gather(Bench(Pair(Settings("car_reference", name), Contract())))


@pytest.fixture(scope="module")
def saved(port) -> Saved:
    """What was saved with a target that is too strong by half."""
    return asked(port(("* 0.004", "* 0.006"))[0])


def missed(saved, backend) -> set[str]:
    return {name for name, rows in misses(saved, backend).items() if rows.any()}


def test_a_right_target_misses_nothing(saved, port):
    assert not saved.trouble and {a.what: len(a) for a in saved.asked} == {"step": ROWS, "reset": RESETS}
    assert missed(saved, port()[1]) == set()


@pytest.mark.parametrize(
    "ref, target",
    [
        ("gymnasium:Pendulum-v1", "gymnax:Pendulum-v1"),  # uniform numbers
        ("targets.pong.reference", "targets.pong"),  # words of bits
    ],
)
def test_a_right_port_is_given_the_reference_s_draws(ref, target):
    pair = Pair(Settings(ref, target), Contract())
    found = misses(gather(Bench(pair)), pair.target.backend)
    assert {"reset.observation", "step.observation", "draws.reset"} <= found.keys()
    assert {name: int(rows.sum()) for name, rows in found.items() if rows.any()} == {}


@pytest.mark.parametrize(
    "right, wrong, expected",
    [
        ("* 0.004", "* 0.006", {"step.state.velocity", "step.state.position", "step.observation"}),
        (">= 0.3", ">= 0.4", {"step.done"}),
        ("-1.0, terminated", "-1.0 * terminated, terminated", {"step.reward"}),
        ("-1.0, terminated", "jnp.full((1,), -1.0), terminated", {"step.reward"}),  # of another shape
        ("maxval=-0.4", "maxval=-0.5", {"draws.reset"}),
        ("jnp.float32(0.0)", "jnp.float32(0.01)", {"reset.state.velocity", "reset.observation"}),
        ("[state.position, state.v", "[state.velocity, state.v", {"step.observation", "reset.observation"}),
    ],
)  # fmt: skip
def test_a_wrong_target_misses_what_it_computes_wrongly(saved, port, right, wrong, expected):
    found = missed(saved, port((right, wrong))[1])
    assert expected <= found <= expected | {"step.done"}


def test_an_action_space_of_another_size_is_seen_and_said(port):
    name, backend = port(("import jax\n", "import jax\n\nnum_actions = 4\n"))
    saved = asked(name)
    assert saved.asked == () and "action" in saved.trouble
    assert missed(saved, backend) == {"spec.action"}


def test_no_more_is_asked_than_what_decides(saved, port):
    """A candidate that is wrong in a step is not asked for a reset, and not for its spaces."""
    _, wrong = port(("* 0.004", "* 0.006"))
    found = misses(saved, wrong, lambda now: now["step.state.velocity"].any())
    assert {name.partition(".")[0] for name in found} == {"step", "draws"} and found["step.state.velocity"].any()
    assert misses(saved, wrong, lambda now: False).keys() == misses(saved, wrong).keys() > found.keys()


def test_while_one_part_asks_the_reference_the_others_open_the_target(tmp_path, monkeypatch):
    def opened(name, options):
        (tmp_path / "saved.pickle").write_bytes(pickle.dumps(None))  # part 0's answer comes no sooner
        raise ImportError(name)  # what does not open is the candidates' business

    monkeypatch.setattr(screening, "open_backend", opened)
    job = Job(Settings("car_reference", "port"), (), (), (), (), seconds=0.5)
    assert screening._case(job, 1, tmp_path, {}) == (None, None)


def case(**before) -> Case:
    rows = {name: np.array(missed, bool) for name, missed in before.items()}
    return Case(Saved(None, ()), rows, frozenset({"a"}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "now, expected",
    [
        ({"a": [0, 0], "b": [0, 0]}, True),
        ({"a": [0, 0], "b": [0, 1]}, False),  # b was wrong before
        ({"a": [0, 0], "b": [1, 0]}, None),  # b was right there
        ({"a": [0, 1], "b": [0, 0]}, None),
        ({"a": [0, 0], "c": [1, 1]}, None),  # nothing is known of c
    ],
)
def test_a_candidate_mends_what_is_wanted_and_harms_nothing(now, expected):
    rows = {name: np.array(missed, bool) for name, missed in now.items()}
    assert mended(case(a=[1, 1], b=[0, 1]), rows) is expected


def search(name, folder, tmp_path, line: int, check: str, field: str, until="clean"):
    """Everything a search of one process tells, until the first edit of which ``until`` is told."""
    path = os.path.realpath(folder / f"{name}.py")
    blamed = ((path, line),) if line else ()
    job = Job(Settings("car_reference", name), (path,), blamed, (check,), (field,), seconds=100)
    told = []

    class Enough(Exception):
        pass

    def tell(kind, **values):
        told.append({"kind": kind, **values})
        if kind == "found" and (values["clean"] or until in values["change"]):
            raise Enough

    with pytest.raises(Enough):
        screening.searched(job, 0, tmp_path, tell)
    return told


def test_a_slip_is_found_where_states_cannot_be_injected_at_first(port, folder, tmp_path):
    """The velocity is nonsense, so that no map of the state is found: with a right candidate, it is."""
    name, _ = port(("(action - 1) * 0.004", "(action * 0.004)"))
    line = cars.line_of("velocity = state.velocity")
    saved, *_, found = search(name, folder, tmp_path, line, "L2-play-observation", "observation")
    assert "cannot be injected" in saved["why"]
    assert found["clean"] and "action - 1" in found["text"]


def test_the_lines_that_raise_are_looked_at_first(tmp_path):
    """A port that does not open is blamed by no check, but says where it failed."""
    path = tmp_path / "port.py"
    path.write_text("def inner(x):\n    return x + 'a'\n\n\ndef step(x):\n    return inner(x)\n\n\nSPEED = 0.5\n")
    known: dict = {}
    exec(compile(path.read_text(), path, "exec"), known)
    with pytest.raises(OpenError) as caught:
        try:
            known["step"](1)
        except TypeError as error:
            raise OpenError("port: opening it raised") from error
    places = screening.raised(caught.value, (str(path),))
    assert places == ((str(path), 2), (str(path), 6)) and screening.raised(caught.value, ()) == ()
    job = Job(Settings("car_reference", "port"), (str(path),), (), (OPEN,), ("pair",))
    broken = Case(Saved(None, (), "the target does not open"), raised=places)  # type: ignore[arg-type]
    ranked = list(screening._ranked(job, broken, {str(path): path.read_text()}, Mined((0.25,)), {}))
    lines = [candidate.line for candidate in ranked]
    assert lines[0] == 2 and lines.index(6) < lines.index(9), "and no line is left out"


def test_two_slips_one_field_at_a_time(port, folder, tmp_path):
    """The velocity is mended although the reward stays wrong; that is said."""
    name, _ = port(("* 0.004", "/ 0.004"), ("-1.0, terminated", "1.0, terminated"))
    line = cars.line_of("velocity = state.velocity")
    found = search(name, folder, tmp_path, line, "L2-play-velocity", "velocity", until="/ -> *")[-1]
    assert not found["clean"] and "* 0.004" in found["text"] and "seen(state), state, 1.0" in found["text"]


@pytest.mark.parametrize(
    ("reset", "then", "expected"),
    [("fails", "", None), ("runs", "the target failed in step: why", None), ("runs", "", Passed(True))],
)
def test_what_still_fails_in_its_reset_is_no_edit_though_nothing_says_that_it_is_wrong(
    monkeypatch, folder, tmp_path, reset, then, expected
):
    """No transition can be had of such a target, so that any edit would agree with all there are."""

    def begun(seeds):
        if reset == "fails":
            raise ValueError("no such shape")

    spec = open_backend("car_reference").spec
    failing = Saved(spec, (), "the target failed in reset: why")
    job = Job(Settings("car_reference", "port"), (), (), ("L1-runs-step",), ("step",))
    screen = screening._Screen(job, Case(failing), object(), {}, {"port.py": ""})
    screen._loaded = lambda *_: nullcontext(SimpleNamespace(reset=begun))
    monkeypatch.setattr(screening, "_opened", lambda *_: Saved(spec, (), then))
    monkeypatch.setattr(screening, "misses", lambda *_: {})
    candidate = Candidate("port.py", 1, "constant", 0, 1, "1", "2", 1.0)
    assert screen.passes(candidate, "") == expected


def test_what_fails_in_its_reset_is_looked_for_there(port):
    _, backend = port()
    failing = Case(Saved(backend.spec, (), "the target failed in reset: why"))
    assert {line for _, line in screening._failing(backend, failing)} >= {cars.line_of("    state = State(jax.random")}
    assert cars.line_of("terminated = position") not in {n for _, n in screening._failing(backend, failing)}
    assert screening._failing(backend, Case(Saved(backend.spec, (), "states cannot be injected"))) == set()


def test_a_few_thresholds_may_flip_of_all_that_was_asked():
    saved = Saved(None, ())  # type: ignore[arg-type]
    assert transitions.strays(saved, None, ()) == 0 and not transitions.many(saved, 99)
    wide = replace(saved, wide=[0] * 5000)  # type: ignore[arg-type]
    assert not transitions.many(wide, 10) and transitions.many(wide, 11)
    assert not transitions.many(replace(saved, wide=[0] * 99), 4)  # type: ignore[arg-type]


def test_without_blame_the_slice_of_what_is_wrong_is_searched(port, folder, tmp_path):
    name, _ = port((">= 0.3", ">= 0.45"))
    found = search(name, folder, tmp_path, 0, "L2-boundary-done", "done")[-1]
    assert found["clean"] and ">= 0.3" in found["text"]


def test_no_step_is_asked_where_it_is_not_known_what_the_targets_state_stands_for(port):
    """By a map that is wrong every step would be, the right one's too."""
    found = asked(port(("(action - 1) * 0.004", "(action * 0.004)"))[0])
    assert "cannot be injected" in found.trouble
    assert [each.what for each in found.asked] == ["reset"] and found.wide is None

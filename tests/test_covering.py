"""Coverage put to use: the search, the checks of L2, the contract's floor, and an environment by itself."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from ports import drift, judging
from ports.judging import one, run

from pytest_envequiv import contract
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import ContractError, Limitation, OpenError
from pytest_envequiv.judge import Judge, cover
from pytest_envequiv.report import coverage, terminal
from pytest_envequiv.stimuli import states
from pytest_envequiv.stimuli.play import play
from pytest_envequiv.verdict import EQUAL, INCONCLUSIVE, Settings
from pytest_envequiv.whitebox.branches import TIE

pytest_plugins = "pytester"

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE.parent / "docs" / "report.schema.json").read_text())
WALL = "gymnax:MountainCarContinuous-v0"


class Branchy(drift.GymnaxDrift):
    """Pays the same, by a detour: one branch that no state can take, and one that takes a corner of the states."""

    def _reward(self, state, v, push, terminated):
        reward = super()._reward(state, v, push, terminated)
        far = jnp.where(state.x > 2.0, 1.0, 0.0)
        corner = jnp.where((state.x < drift.WALL + 0.03) & (state.v < -0.0699), 0.0, 1e-12)
        return reward + far + corner


@pytest.fixture(scope="module")
def branchy():
    return judging.opened(drift.reference, Branchy())


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("wall"))
    return Judge(Settings("gymnasium:MountainCarContinuous-v0", WALL, output=folder))


def column(covered, code, side, primitive=None):
    """The column of hits of one side."""
    found = [
        k
        for k, (n, s) in enumerate(covered.sides)
        if s == side and code in covered.branches[n].code and primitive in (None, covered.branches[n].primitive)
    ]
    assert len(found) == 1, (code, side, found)
    return found[0]


# -- the search ------------------------------------------------------------------------------------------------------


def test_random_play_does_not_come_to_the_wall_and_the_search_does(wall):
    backend = open_backend(WALL)
    covered = wall.bench.covered
    clipped = column(covered, "jnp.clip(position", "below")
    played = play(backend, 100, 150, 0, only=("uniform",)).rows
    assert not backend.step_covered(played.state, played.action, played.seeds)[1][:, clipped].any()
    rows = wall.bench.rows("coverage")
    hits, _ = wall.pair.target_covered(rows, None)
    assert hits[:, clipped].any()
    position, velocity = rows.state.fields["state"].T
    assert ((position == np.float32(-1.2)) & (velocity == 0)).any()  # standing at the wall


def test_the_search_comes_to_ties_and_the_last_step(wall):
    covered, rows = wall.bench.covered, wall.bench.rows("coverage")
    hits, distances = wall.pair.target_covered(rows, None)
    limit = column(covered, "state.time >=", TIE)
    assert hits[:, limit].any() and (rows.clock[hits[:, limit]] == 998).all()
    assert hits[:, column(covered, "state.position >= params", TIE, "ge")].any()
    # From both sides of the threshold, nearer than play came.
    number = covered.comparisons.index(covered.sides[limit][0])
    assert {-1.0, 0.0} <= set(distances[:, number].tolist())


def test_rows_that_were_found_are_live(branchy):
    bench = branchy.bench
    rows = bench.rows("coverage")
    assert (rows.state.fields["position"] < 0.5).all() and (rows.clock < drift.LIMIT).all()
    assert states.within(rows, bench.ends).all()


def test_the_same_seed_finds_the_same(branchy):
    first = branchy.bench.rows("coverage")
    again = judging.opened(drift.reference, Branchy()).bench.rows("coverage")
    other = judging.opened(drift.reference, Branchy(), seed=1).bench.rows("coverage")
    assert np.array_equal(first.state.fields["position"], again.state.fields["position"])
    assert not np.array_equal(first.state.fields["position"], other.state.fields["position"])


def test_a_corner_is_found_that_play_does_not_meet(branchy):
    bench = branchy.bench
    both = column(bench.covered, "(state.x < drift.WALL + 0.03) & (state.v < -0.0699)", "true", "and")
    rows = bench.rows("coverage")
    assert bench.pair.target_covered(rows, None)[0][:, both].any()


def test_a_covered_step_is_the_step_with_the_draws_it_is_given():
    judge = judging.of("drift", None, {"slip": 0.5})
    pair, rows = judge.pair, judge.pair.sample.rows.take(slice(0, 100))
    ours = pair.ref.step(rows.state, rows.action, rows.seeds)
    hits, _ = pair.target_covered(rows, ours.draws)
    slipped = hits[:, column(judge.bench.covered, "jnp.where(slips", "true")]
    assert slipped.tolist() == (ours.draws[0].value < 0.5).tolist() and 0 < slipped.sum() < 100
    backend, state = pair.target.backend, pair.inject(rows)
    tape = backend.step(state, pair.target_action(rows.action), rows.seeds).draws
    args = (state, pair.target_action(rows.action), rows.seeds + 1, tape)
    plain, (covered, _, _) = backend.step(*args), backend.step_covered(*args)
    for name, value in {**plain.state.fields, **plain.outputs}.items():
        assert np.allclose(value, {**covered.state.fields, **covered.outputs}[name]), name


# -- the checks ------------------------------------------------------------------------------------------------------


def test_what_no_row_exercised_is_listed(branchy):
    verdict = one(branchy, "L2-branches-covered")
    missed = {(m["code"], m["side"]) for m in verdict.evidence["missed"]}
    assert verdict.word == EQUAL and ("state.x > 2.0", "true") in missed
    assert not any("0.0699" in code for code, _ in missed)
    sides, covered = verdict.evidence["branch_sides"], verdict.evidence["branch_covered"]
    assert sides - covered == len(verdict.evidence["missed"]) > 0
    assert verdict.summary == f"{covered} of {sides} branch sides exercised"
    assert set(verdict.evidence["by_source"]) == {"play", "boundary", "pairs", "limit", "coverage"}
    assert all(os.sep not in m["file"] for m in verdict.evidence["missed"])
    line = terminal.branches([verdict])[0]
    assert line.startswith(f"branches: {covered} of {sides} sides exercised; never ")


def test_rows_that_were_found_are_compared(branchy):
    assert judging.words(run(branchy, "L2-coverage-*")) == {}
    wrong = judging.of("drift", "wall keeps velocity")
    assert "L2-coverage-v" in judging.different(run(wrong, "L2-coverage-*"))


def test_coverage_below_the_floor_is_unknown():
    floor = "[coverage]\nbranches = 1\n"
    verdict = one(judging.opened(drift.reference, Branchy(), contract=floor), "L2-branches-covered")
    assert verdict.word == INCONCLUSIVE and "the contract asks for 100%" in verdict.summary


def test_what_is_ignored_does_not_count(branchy):
    missed = one(branchy, "L2-branches-covered").evidence["missed"]
    places = sorted({f"{m['file']}:{m['line']}" for m in missed})
    text = f"[coverage]\nbranches = 1\nignore = {json.dumps([*places, 'nowhere.py:*'])}\n"
    verdict = one(judging.opened(drift.reference, Branchy(), contract=text), "L2-branches-covered")
    assert verdict.word == EQUAL and verdict.evidence["missed"] == []
    assert verdict.notes == ("[coverage] ignore: 'nowhere.py:*' fits no branch of the target",)


def test_targets_that_cannot_be_traced_have_no_such_check():
    subjects = {c.subject for c in judging.of("vector").checks}
    assert not {"branches", "coverage"} & subjects and "boundary" in subjects


@pytest.mark.parametrize(
    "line, message",
    [
        ("branches = 95", "branches = 95: give a share from 0 to 1"),
        ("branches = true", "branches = True: give a share"),
        ("branches = -0.1", "give a share"),
        ('ignore = "a.py:1"', "ignore: give a list of places"),
        ("terminations = 0.5", "terminations = 0.5: give a whole number"),
        ("branch = 1", "unknown key 'branch' in [coverage]; did you mean 'branches'?"),
    ],
)
def test_a_wrong_floor_is_refused(line, message):
    with pytest.raises(ContractError) as caught:
        contract.parse(f"[coverage]\n{line}\n")
    assert message in str(caught.value)


# -- by itself -------------------------------------------------------------------------------------------------------


def test_an_environment_by_itself():
    told = cover(Settings("", "gymnax:MountainCar-v0"))
    assert told["covered"] > told["played"] and told["sides"] - told["covered"] == len(told["missed"])
    entry = next(b for b in told["branches"] if "jnp.clip(position" in b["code"] and b["primitive"] == "clip min")
    assert entry["status"] == "never above" and entry["sides"]["above"] == 0 < entry["sides"]["not above"]
    assert sum(b["status"] == "covered" for b in told["branches"]) == len(told["branches"]) - len(told["missed"])
    lines = coverage.lines(told)
    assert len(lines) == len(told["branches"]) + 2 and lines[-1].startswith(coverage.summary(told))


def test_what_has_no_branches_to_be_seen():
    with pytest.raises(Limitation, match="gymnasium:CartPole-v1 cannot be traced"):
        cover(Settings("", "gymnasium:CartPole-v1"))
    with pytest.raises(OpenError, match="no module 'nowhere'"):
        cover(Settings("", "nowhere"))


PORT = """
from typing import NamedTuple
import gymnasium, jax, jax.numpy as jnp, numpy as np
action_space = gymnasium.spaces.Discrete(2)
observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float32)

class State(NamedTuple):
    x: jax.Array

def reset(key):
    x = jax.random.uniform(key, minval=-0.1, maxval=0.1)
    return State(x), x[None]

def step(state, action):
    x = jnp.clip(state.x + 0.1 * (2 * action - 1), -1.0, 3.0)
    bonus = jnp.where(x > 2.5, 1.0, 0.0)
    return State(x), x[None], bonus, x >= 2.0, jnp.zeros((), bool)
"""


@pytest.fixture
def pytest_run(pytester, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    (pytester.path / "port.py").write_text(PORT)
    return lambda line: pytester.runpytest_subprocess(*line.split())


def test_the_option_end_to_end(pytest_run, pytester):
    pytester.makepyfile("def test_other(): pass")
    result = pytest_run("--envequiv-coverage target=port --json-report --json-report-file=r.json -v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "envequiv-coverage::port PASSED*",
            "*envequiv coverage: port*",
            "port.py:15  clip max  covered * below *, not below *jnp.clip(state.x*",
            "port.py:16  gt * never true * false *, true 0 *x > 2.5",
            "*branch sides exercised*",
        ]
    )
    document = json.loads((pytester.path / "r.json").read_text())
    jsonschema.validate(document, SCHEMA)
    report = document["envequiv_coverage"][0]
    assert report["target"] == "port" and {m["line"] for m in report["missed"]} >= {16}


def test_below_the_floor_the_item_fails(pytest_run):
    result = pytest_run("--envequiv-coverage target=port floor=1")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*branch sides exercised*, the floor is 100%", "  never true: port.py:16 x > 2.5"])


@pytest.mark.parametrize(
    "words, code, message",
    [
        ("tarjet=port", 4, "--envequiv-coverage: expected target=NAME [floor=SHARE], got 'tarjet=port'"),
        ("target=port floor=90", 4, "--envequiv-coverage: floor=90: give a share from 0 to 1"),
        ("target=port --envequiv ref=a target=b", 4, "--envequiv-coverage: cannot go with --envequiv"),
        ("target=prot", 1, "--envequiv-coverage: prot: there is no module 'prot'"),
    ],
)
def test_wrong_usage_is_one_line(pytest_run, words, code, message):
    result = pytest_run(f"--envequiv-coverage {words}")
    text = "\n".join([*result.outlines, *result.errlines])
    assert result.ret == code and message in text and "Traceback" not in text

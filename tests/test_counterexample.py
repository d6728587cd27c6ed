"""Counterexamples: small, live, exact on disk, replayed, remembered, and reached from a reset where play can."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ports import drift, judging, maze

from pytest_envequiv import counterexample, judge, shrinking
from pytest_envequiv.errors import ContractError
from pytest_envequiv.judge import Judge
from pytest_envequiv.verdict import DIFFERENT, EQUAL, Settings

SWITCHED = "ports.drift:switched"


@pytest.fixture
def switch(monkeypatch):
    monkeypatch.setattr(drift, "SWITCH", "wall keeps velocity")
    return lambda bug: monkeypatch.setattr(drift, "SWITCH", bug)


@pytest.fixture
def settings(tmp_path):
    return Settings(ref=drift.DRIFT, target=SWITCHED, output=str(tmp_path))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run over the wall's bug: its judge, the verdict of one check, and the file."""
    before, drift.SWITCH = drift.SWITCH, "wall keeps velocity"
    try:
        made = Judge(Settings(ref=drift.DRIFT, target=SWITCHED, output=str(tmp_path_factory.mktemp("output"))))
        verdict = made.run("L2-play-v")
        yield made, verdict, Path(verdict.counterexample)
    finally:
        drift.SWITCH = before


# -- on disk ---------------------------------------------------------------------------------------------------------


def test_it_lies_where_its_pair_and_check_say(saved):
    _, verdict, path = saved
    assert path.name == "L2-play-v.json" and path.parent.parent.name == "counterexamples"
    assert path.parent.name == "gymnasium_ports_drift_Drift_v0__ports_drift_switched"
    data = json.loads(path.read_text())
    assert data["ref"] == drift.DRIFT and data["target"] == SWITCHED
    assert data["divergence"]["field"] == "v" == verdict.divergence.field
    assert data["versions"]["ref"]["gymnasium"] and data["versions"]["target"]["jax"]
    assert not list(path.parent.glob("*.part"))


def test_floats_come_back_bit_by_bit(tmp_path, saved):
    _, _, path = saved
    example = counterexample.load(path)
    odd = {"position": np.array([np.nextafter(-0.3, -1)]), "velocity": np.array([np.pi * 1e-300])}
    odd |= {"angle": np.array([np.nan]), "fuel": np.array([2**62 + 1])}
    state = example.rows.state.edited(**odd)
    action = {"action": np.array([[np.float32(0.1)]], np.float32)}
    other = replace(example, rows=replace(example.rows, state=state, action=action))
    counterexample.save(other, tmp_path / "deep" / "odd.json")
    again = counterexample.load(tmp_path / "deep" / "odd.json").rows
    for name, value in state.fields.items():
        assert again.state.fields[name].dtype == value.dtype
        assert np.array_equal(again.state.fields[name], value, equal_nan=value.dtype.kind == "f"), name
    assert again.action["action"].dtype == np.float32 and again.action["action"][0, 0] == np.float32(0.1)


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "not whole"),
        ('{"envequiv_counterexample": 1, "ref"', "not whole"),
        ("[1, 2]", "not a counterexample"),
        ('{"hello": 1}', "not a counterexample"),
        ('{"envequiv_counterexample": 99}', "format 99"),
        ('{"envequiv_counterexample": 1}', "incomplete"),
        ("\udcff", "not whole"),
    ],
)
def test_a_file_that_is_something_else(text, told, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ContractError) as raised:
        counterexample.load(path)
    assert told in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_truncated_file(tmp_path, saved):
    _, _, path = saved
    whole = path.read_text()
    for length in range(0, len(whole) - 1, 97):
        (tmp_path / "cut.json").write_text(whole[:length])
        with pytest.raises(ContractError):
            counterexample.load(tmp_path / "cut.json")


def test_a_missing_file(tmp_path):
    with pytest.raises(ContractError, match="No such file"):
        counterexample.load(tmp_path / "none.json")


# -- replayed --------------------------------------------------------------------------------------------------------


def test_it_replays_until_the_bug_is_mended(switch, saved):
    _, verdict, path = saved
    again = judge.replay(str(path))
    assert again.word == DIFFERENT and again.counterexample == str(path)
    assert again.divergence.expected == verdict.divergence.expected
    assert again.divergence.actual == verdict.divergence.actual
    assert again.divergence.state == verdict.divergence.state
    switch(None)
    mended = judge.replay(str(path))
    assert mended.word == EQUAL and mended.divergence is None


def test_a_run_of_episodes_replays_too(switch, settings):
    verdict = Judge(settings).run("L3-lockstep-v")
    example = counterexample.load(verdict.counterexample)
    assert example.rows is None and len(example.path["draw_seeds"]) == verdict.divergence.step + 1
    assert judge.replay(verdict.counterexample).word == DIFFERENT
    switch(None)
    assert judge.replay(verdict.counterexample).word == EQUAL


def test_a_pair_that_has_changed_its_fields(tmp_path, saved):
    _, _, path = saved
    data = json.loads(path.read_text())
    data["state"].pop("velocity")
    data["from_reset"] = None
    (tmp_path / "old.json").write_text(json.dumps(data))
    with pytest.raises(ContractError, match="no value for the state field 'velocity'"):
        judge.replay(str(tmp_path / "old.json"))


def test_the_contract_travels_with_it(switch, settings, tmp_path):
    (tmp_path / "c.toml").write_text('[tolerance.v]\natol = 1e-9\nreason = "to be seen"\n')
    verdict = Judge(replace(settings, contract=str(tmp_path / "c.toml"))).run("L2-play-v")
    (tmp_path / "c.toml").unlink()
    assert "atol 1e-09" in judge.replay(verdict.counterexample).divergence.why


# -- small and live --------------------------------------------------------------------------------------------------


def test_it_is_plainer_than_what_was_found(saved):
    made, _, path = saved
    found = made.bench.step("play").rows
    before = found.take(np.flatnonzero(made.bench.step("play").found["v"].rows)[:1]).state.fields
    after = counterexample.load(path).rows.state.fields
    assert all(len(repr(float(v[0]))) <= 8 for v in after.values()), after
    assert not all(len(repr(float(v[0]))) <= 8 for v in before.values()), before


def test_it_is_live_and_still_diverges(saved):
    made, verdict, path = saved
    rows = counterexample.load(path).rows
    assert shrinking.live(made.bench, rows)
    x, v = (rows.state.fields[n][0] for n in ("position", "velocity"))
    assert drift.WALL <= x < 0.5 and abs(v) <= drift.FAST
    assert verdict.divergence.expected == 0.0 > verdict.divergence.actual


def test_states_that_no_episode_can_be_in_are_not_live(saved):
    made, _, path = saved
    rows = counterexample.load(path).rows

    def at(**fields):
        return replace(rows, state=rows.state.edited(**{k: np.array([v]) for k, v in fields.items()}))

    assert shrinking.live(made.bench, at(position=-0.5, velocity=0.01, angle=0.5))
    assert not shrinking.live(made.bench, at(position=0.7))  # beyond the goal
    assert not shrinking.live(made.bench, at(position=-1.5))  # behind the wall
    assert not shrinking.live(made.bench, at(velocity=0.2))  # faster than the fastest


def test_no_way_in_is_looked_for_far_from_play(saved, monkeypatch):
    """Newton's method may leap anywhere, and Gymnasium's Acrobot takes a turn off its angle at a time: for ever."""
    made, _, path = saved
    leaps, asked, step = [], [], made.pair.ref.step
    monkeypatch.setattr(np.linalg, "lstsq", lambda a, b, rcond: (leaps.append(b) or np.full(len(b), 1e9),))
    monkeypatch.setattr(made.pair.ref, "step", lambda state, *more: asked.append(state) or step(state, *more))
    rows = counterexample.load(path).rows
    for place in (-1.0, -0.8, 0.2, 0.4):  # some are not hit at the first guess
        there = rows.state.edited(position=np.array([place]), velocity=np.array([0.06]))
        shrinking.live(made.bench, replace(rows, state=there))
    assert leaps and asked
    assert max(np.abs(v).max() for state in asked for v in state.fields.values()) < 1e6


def test_whole_number_states_are_shown_as_they_were_found(tmp_path):
    made = judging.of("maze", "clamped index", output=str(tmp_path))
    state = made.run("L2-play-coins").divergence.state
    state.pop("_elapsed_steps")  # a clock may be made plainer
    found = made.bench.step("play")
    fields = found.rows.state.fields
    where = np.flatnonzero(found.found["coins"].rows)
    assert any(all(fields[k][i] == v for k, v in state.items()) for i in where)


# -- from a reset ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bug, options, check",
    [
        ("wall keeps velocity", {}, "L2-play-v"),
        ("goal strict", {}, "L2-play-terminated"),
        ("slip probability", {"slip": 0.1}, "L2-play-v"),
        ("wrong constant", judging.WINDY, "L3-resync-v"),
    ],
)
def test_the_way_from_a_reset_is_a_way(bug, options, check):
    made = judging.of("drift", bug, options)
    verdict = made.run(check)
    example = counterexample.load(verdict.counterexample)
    assert verdict.evidence["reached_from_reset"]["steps"] == len(example.path["draw_seeds"])
    step = counterexample.walked(made.pair, example.path)
    assert step.found[verdict.check.field].rows.all()
    # The steps before the last do not end the episode, or there would be no way on.
    shorter = {
        "seed": example.path["seed"],
        "draw_seeds": example.path["draw_seeds"][:-1],
        "actions": {k: {**v, "value": v["value"][:-1]} for k, v in example.path["actions"].items()},
    }
    if shorter["draw_seeds"]:
        assert not counterexample.walked(made.pair, shorter).ours.done.any()


def test_where_states_cannot_be_injected_it_is_a_way_from_a_reset():
    made = judging.opened(maze.snapshot, maze.PlainMaze("clamped index"))
    verdict = made.run("L2-play-observation")
    example = counterexample.load(verdict.counterexample)
    assert example.rows is None and example.path is not None
    assert counterexample.walked(made.pair, example.path).found["observation"].rows.all()


# -- remembered ------------------------------------------------------------------------------------------------------


def test_it_is_tried_first_in_the_next_run(switch, settings):
    first = Judge(settings)
    assert first.checks[0].id != "L2-boundary-v"
    first.run("L2-boundary-v")
    second = Judge(settings)
    assert second.checks[0].id == "L2-boundary-v"
    assert {c.id for c in second.checks} == {c.id for c in first.checks}
    verdict = second.run("L2-boundary-v")
    assert verdict.word == DIFFERENT and verdict.summary == "v: the saved counterexample still differs"
    assert verdict.counterexample.endswith("L2-boundary-v.json")
    assert second.bench._steps.keys() <= {"boundary"}  # nothing was looked for but the line to blame
    switch(None)
    assert Judge(settings).run("L2-boundary-v").word == EQUAL


def test_a_saved_file_that_cannot_be_read_is_left_alone(switch, settings):
    place = counterexample.folder(settings.output, settings.ref, settings.target)
    place.mkdir(parents=True)
    (place / "L2-play-v.json").write_text("{")
    made = Judge(settings)
    assert made.run("L2-play-v").word == DIFFERENT
    assert any("not whole" in note for note in made.notes)


def test_a_folder_that_cannot_be_written_does_not_cost_the_verdict(switch, settings, tmp_path):
    (tmp_path / "file").write_text("no folder")
    verdict = Judge(replace(settings, output=str(tmp_path / "file"))).run("L2-play-v")
    assert verdict.word == DIFFERENT and verdict.counterexample is None
    assert any("could not be saved" in note for note in verdict.notes)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(switch, settings, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    verdict = Judge(replace(settings, output=str(tmp_path / "locked"))).run("L2-play-v")
    assert verdict.word == DIFFERENT and any("could not be saved" in note for note in verdict.notes)


def test_a_follower_has_none(switch, settings):
    verdict = Judge(settings).run("L2-play-observation")
    assert verdict.follows == "L2-play-v" and verdict.counterexample is None

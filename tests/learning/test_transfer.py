"""L4: what only skill finds, and what it must not find."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ports import judging, ladder
from ports.judging import one, run

from pytest_envequiv import verdict
from pytest_envequiv.judge import Judge, replay
from pytest_envequiv.learning import training
from pytest_envequiv.levels import duels, schooling, transfer
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE

LADDER = "ports.ladder:Ladder"


opened = partial(judging.opened, levels=verdict.LEVELS)


def small(judge, **sizes):
    """The same judge with less of everything."""
    judge.bench.sizes = replace(judge.bench.sizes, **{"training": 80_000, "policies": 1, "duels": 256, **sizes})
    return judge


def climbing(bug=None, **settings):
    return small(opened(ladder.Ladder(), ladder.Ladder(bug), **settings))


@pytest.fixture(scope="module")
def equal():
    """An equal pair and all its verdicts of L4."""
    judge = climbing()
    return judge, run(judge, "L4-*")


# -- equal pairs -------------------------------------------------------------------------------------------------------


def test_an_equal_pair_is_equal_at_every_check(equal):
    judge, verdicts = equal
    assert judging.words(verdicts) == {}
    subjects = {c.subject for c in judge.checks if c.level == "L4"}
    assert subjects == {"target", "reference", "skilled", "astray", "lockstep"}
    assert all(c.cost == "costly" for c in judge.checks if c.level == "L4")


def test_the_evidence_has_the_gap_the_margin_and_what_could_have_been_seen(equal):
    judge, verdicts = equal
    told = verdicts["L4-target-return"].evidence
    json.dumps(told)
    (policy,) = told["policies"]
    margin, gap = policy["margin"], policy["gap"]
    assert policy["own"] > 10 > policy["random"] and margin["span"] == pytest.approx(policy["own"] - policy["random"])
    assert gap["gap"] == 0 and gap["low"] < 0 < gap["high"] <= margin["value"] <= 0.25 * margin["span"]
    assert gap["reference"] == gap["target"] and gap["units"] == told["episodes"] == 256 <= margin["units"]
    assert "learned" in told["detectable_effect"] and told["alpha"] == judge.bench.share
    assert policy["curve"]["steps"][-1] == 81_920 and policy["curve"]["return"][-1] > 10
    assert Path(told["plot"]).read_bytes()[:4] == b"\x89PNG"
    assert "between" in verdicts["L4-target-return"].summary


def test_skilled_play_goes_where_untrained_play_does_not(equal):
    judge, _ = equal
    untrained = judge.bench.played.rows.state.fields["height"]
    ours = duels.skilled(judge.bench, verdict.silent)
    assert untrained.max() <= ladder.HIGH < ours.played.rows.state.fields["height"].max()
    assert len(ours.played.rows) <= judge.bench.sizes.most


def test_the_same_seed_gives_the_same_verdicts_in_any_order(equal):
    _, verdicts = equal
    again = climbing()
    last = one(again, "L4-lockstep-reward")
    first = one(again, "L4-target-return")
    for found in (last, first):
        before = verdicts[found.check.id]
        assert found.summary == before.summary
        drop = {"seconds", "plot"}
        assert {k: v for k, v in found.evidence.items() if k not in drop} == {
            k: v for k, v in before.evidence.items() if k not in drop
        }


def test_honest_seeds_of_one_backend_are_equal():
    """Rewards are left to chance and no draws can be shared: both sides play episodes of their own."""
    judge = small(opened(ladder.Noisy(), ladder.Noisy(other=True)))
    assert judge.pair.step_mode == "distribution"
    assert {c.subject for c in judge.checks if c.level == "L4"} == {"target", "reference"}
    verdicts = run(judge, "L4-*")
    assert judging.words(verdicts) == {}
    gap = verdicts["L4-target-return"].evidence["policies"][0]["gap"]
    assert gap["gap"] != 0 and gap["reference"] != gap["target"]


def test_draws_of_steps_are_shared_where_they_align():
    """The same rewards left to chance, but read alike: each pair of episodes is the same episode twice."""
    judge = small(opened(ladder.Noisy(), ladder.Noisy()))
    assert judge.pair.step_mode == "tape"
    (pupil,) = schooling.pupils(judge.bench, "target", verdict.silent)
    wave = duels.wave(judge.bench, pupil, 0, 0)
    assert np.array_equal(wave.ours, wave.theirs) and len(set(wave.ours.tolist())) > 5


def test_cartpole_of_gymnasium_and_gymnax_are_equal():
    judge = small(opened("gymnasium:CartPole-v1", "gymnax:CartPole-v1"), training=120_000)
    verdicts = run(judge, "L4-*")
    assert judging.words(verdicts) == {}
    assert "L4-reference-return" not in verdicts  # stepped object by object: not in quick
    (policy,) = verdicts["L4-target-return"].evidence["policies"]
    assert policy["gap"]["reference"] > 400


# -- what only skill finds ---------------------------------------------------------------------------------------------


def silent_without_skill(judge) -> bool:
    """That no play without skill shows it. The search climbs a step at a time, and may."""
    return judging.words(run(judge, "L2-[!c]*", "L3-*")) == {}


def test_a_bug_that_only_skill_meets_ends_in_a_counterexample(tmp_path):
    judge = small(opened(LADDER, f"{LADDER}?bug=late", output=str(tmp_path)))
    assert silent_without_skill(judge)
    verdicts = run(judge, "L4-*-return", "L4-*-reward")
    for side in ("target", "reference"):
        found = verdicts[f"L4-{side}-return"]
        assert found.word == DIFFERENT and found.follows == "L4-skilled-reward"
        assert found.evidence["policies"][0]["gap"]["gap"] > 0
    root = verdicts["L4-skilled-reward"]
    assert root.word == DIFFERENT and root.divergence.state["height"] > ladder.HIGH
    assert root.divergence.expected == 1 and root.divergence.actual == 0
    assert root.evidence["reached_from_reset"]["steps"] > 10
    assert any("high" in s["code"] for s in root.evidence["blame"][:3])
    assert verdicts["L4-lockstep-reward"].counterexample and verdicts["L4-astray-reward"].counterexample
    # It replays, without any training, and is tried first the next time.
    assert replay(root.counterexample).word == DIFFERENT
    assert replay(verdicts["L4-lockstep-reward"].counterexample).word == DIFFERENT
    later = Judge(judge.settings)
    assert later.checks[0].level == "L4"
    again = later.run("L4-skilled-reward")
    assert again.word == DIFFERENT and "saved counterexample" in again.summary
    assert ("pupils", "target") not in later.bench._kept


def test_a_port_that_a_policy_exploits_is_different():
    judge = climbing("jackpot")
    assert silent_without_skill(judge)
    verdicts = run(judge, "L4-target-return", "L4-skilled-reward")
    found = verdicts["L4-target-return"]
    assert found.word == DIFFERENT and found.evidence["policies"][0]["gap"]["gap"] < -2
    assert verdicts["L4-skilled-reward"].divergence.actual == 60


def test_a_difference_that_costs_no_return_is_found_too():
    judge = climbing("dial")
    assert silent_without_skill(judge)
    verdicts = run(judge, "L4-target-return", "L4-*-dial")
    assert verdicts["L4-target-return"].word == EQUAL
    assert judging.different(verdicts) == [f"L4-{subject}-dial" for subject in ("skilled", "astray", "lockstep")]


# -- what cannot be said -----------------------------------------------------------------------------------------------


def test_a_policy_that_did_not_learn_is_never_equal():
    judge = small(climbing(), training=4_096)
    for found in run(judge, "L4-target-return", "L4-skilled-reward", "L4-lockstep-height").values():
        assert found.word == INCONCLUSIVE
        assert "did not learn" in found.summary and "a larger profile trains longer" in found.summary
    assert run(judge, "L4-target-return")["L4-target-return"].evidence["policies"][0]["gap"] is None


def test_untrained_play_still_shows_a_difference():
    judge = small(climbing("pays less"), training=4_096)
    assert one(judge, "L4-skilled-reward").word == DIFFERENT


def test_a_training_that_takes_too_long_is_ended_once():
    judge, calls = small(climbing(), patience=0), []
    for check in ("L4-target-return", "L4-skilled-reward"):
        found = judge.run(check, lambda *told: calls.append(told))
        assert found.word == INCONCLUSIVE and "training on the target was ended after 0 s" in found.summary
    assert len([what for what, *_ in calls if "training" in what]) == 1


def test_the_budget_of_the_run_ends_a_training_too(monkeypatch):
    judge = climbing(budget=1e6)
    monkeypatch.setattr(judge.pair.target, "deadline", 0.0)
    found = one(judge, "L4-target-return")
    assert found.word == INCONCLUSIVE and "the time budget of" in found.summary


class Vain(ladder.Ladder):
    """A reward that is not finite once a policy climbs a little."""

    def step(self, state, action):
        after, seen, reward, *ends = super().step(state, action)
        return after, seen, reward / (after.height != 9), *ends


def test_a_reward_that_is_not_finite_is_not_a_reason_to_fail():
    found = one(small(opened(Vain(), Vain())), "L4-target-return")
    assert found.word == INCONCLUSIVE and "not finite" in found.summary


def test_without_the_extra_it_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(verdict.importlib.util, "find_spec", lambda name: None)
    assert verdict.default_levels() == ("L1", "L2", "L3")
    judge = opened(ladder.Ladder(), ladder.Ladder(), levels=verdict.default_levels())
    assert not any(c.level == "L4" for c in judge.checks)
    assert any("L4 was not asked" in note and "pytest-envequiv[learning]" in note for note in judge.notes)
    asked = opened(ladder.Ladder(), ladder.Ladder(), levels=verdict.LEVELS)
    monkeypatch.setitem(__import__("sys").modules, "optax", None)
    found = one(asked, "L4-target-return")
    assert found.word == INCONCLUSIVE and "pip install 'pytest-envequiv[learning]'" in found.summary


# -- margins and masks -------------------------------------------------------------------------------------------------


def pupil(own, random, length=10_000.0):
    return schooling.Pupil("target", 0, None, {}, np.asarray(own, float), np.asarray(random, float), length)


def test_the_margin_follows_what_was_learned_and_the_noise(equal):
    sizes = equal[0].bench.sizes
    quiet, noisy = np.full(128, 100.0), np.tile([0.0, 200.0], 64)
    sure = transfer.margin_of(pupil(quiet, np.zeros(128)), sizes)
    assert sure.span == 100 and sure.value == pytest.approx(10.0) and sure.units == 256
    assert (sure.low, sure.high) == (-25.0, 125.0)
    unsure = transfer.margin_of(pupil(noisy, np.zeros(128)), replace(sizes, duels=512))
    assert unsure.units == 512 and unsure.value == 25.0 < unsure.noise
    short = transfer.margin_of(pupil(noisy, np.zeros(128), 50.0), replace(sizes, duels=512, most=30_000))
    assert short.units == 2_048 and short.noise < 0.7 * unsure.noise  # short episodes cost little: more are played
    assert "did not learn" in transfer._not_learned(pupil(quiet, quiet), sizes)
    assert transfer._not_learned(pupil(quiet, np.full(128, 99.0)), sizes) == ""
    assert "not finite" in transfer._not_learned(pupil([np.nan] * 128, quiet), sizes)


# -- resuming ----------------------------------------------------------------------------------------------------------


def test_a_patient_profile_goes_on_from_its_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHUNK", 8_192)
    names = (LADDER, LADDER)

    def judge():
        made = opened(*names, profile="standard", output=str(tmp_path), levels=("L4",))
        return small(made, training=40_000)

    heard = []

    def until(limit):
        def tell(what, done, total):
            if what.startswith("L4: training"):
                heard.append(done)
                if done >= limit:
                    raise KeyboardInterrupt

        return tell

    with pytest.raises(KeyboardInterrupt):
        judge().run("L4-target-return", until(24_000))
    (kept,) = (tmp_path / "training").rglob("*.npz")
    assert kept.name == "standard-target-0.npz"
    heard.clear()
    interrupted = judge()
    schooling.pupils(interrupted.bench, "target", until(10**9))
    assert heard[0] > 8_000
    kept.unlink()
    whole = judge()
    ours, theirs = (schooling.pupils(j.bench, "target", verdict.silent)[0] for j in (interrupted, whole))
    assert np.array_equal(ours.own, theirs.own)
    assert np.array_equal(ours.curve["return"], theirs.curve["return"], equal_nan=True)
    kept.write_text("not a checkpoint")  # and it does not stand in the way
    assert np.array_equal(schooling.pupils(judge().bench, "target", verdict.silent)[0].own, ours.own)

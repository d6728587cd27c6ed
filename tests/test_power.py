"""What measures the verifier: the remembering reference, one mutant judged, the table, the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.backends.remembering import remembering
from pytest_envequiv.power import cli, run, table
from pytest_envequiv.power.measure import Result, judged
from pytest_envequiv.power.mutants import Mutant, mutants
from pytest_envequiv.power.null import null_runs
from pytest_envequiv.verdict import Settings
from targets import pong

REF, TARGET = "gymnasium:Pendulum-v1", "gymnax:Pendulum-v1"
INIT = pong.__file__  # names of others, and nothing that could be otherwise


@pytest.fixture(scope="module")
def original():
    return open_backend(TARGET, {})


@pytest.fixture(scope="module")
def every(original):
    return run.listed(run.Plan(Settings(REF, TARGET)))


@pytest.fixture(scope="module")
def ask(original):
    ref = remembering(REF, {})

    def asked(mutant, levels=("L1", "L2", "L3")):
        return judged(mutant, Settings(REF, TARGET, levels=levels), ref, original, {}, False)

    return asked


def named(every, text):
    return next(m for m in every[0] if text in m.diff(0))


# -- one mutant ------------------------------------------------------------------------------------------------------


def test_a_mutant_is_killed_and_its_line_blamed(ask, every):
    mutant = named(every, "+        newth = state.theta - newthdot")
    found = ask(mutant)
    assert found.word == "killed" and found.levels == {"L2": True}
    assert found.check.startswith("L2-") and 0 < found.seconds < 60
    assert found.rank == 1 and found.blamed[0] == f"pendulum.py:{mutant.line}"
    assert found.root in found.truth


def test_a_reward_of_another_shape_is_a_difference(ask, every):
    mutant = next(m for m in every[0] if m.kind == "statement" and m.before == "reward = reward.squeeze()")
    found = ask(mutant, ("L1",))
    assert (found.word, found.check) == ("killed", "L1-finite-outputs") and "shape (1,)" in found.text


def test_an_empty_action_space_is_a_difference(ask, every):
    line = "            low=-params.max_torque,"
    assert line in every[0][0].original
    found = ask(replace(every[0][0], source=every[0][0].original.replace(line, "            low=9.0,")), ("L1",))
    assert (found.word, found.check) == ("killed", "L1-spec-action") and "is empty" in found.text


def test_the_original_survives(ask, every):
    mutant = every[0][0]
    same = replace(mutant, source=mutant.original)
    assert ask(same, ("L2",)).word == "survived"


@pytest.mark.parametrize("text", ["raise RuntimeError", "import nowhere_to_be_found"])
def test_a_mutant_that_does_not_open_is_broken_and_says_why(ask, every, text):
    mutant = replace(every[0][0], source=f"{text}\n{every[0][0].original}")
    found = ask(mutant)
    assert found.word == "broken" and text.split()[-1] in found.text


SWING = """
import jax, jax.numpy as jnp

def reset(key):
    state = {"angle": jax.random.uniform(key, (), minval=-jnp.pi, maxval=jnp.pi), "rate": jnp.float32(0)}
    return state["angle"], state

def step(key, state, action):
    rate = state["rate"] + jnp.where(state["angle"] > 0, 0.1, -0.1)
    state = {"angle": state["angle"] + rate, "rate": rate}
    return state["angle"], state, -rate, False, False, {}
"""


def test_a_mutant_that_can_no_longer_be_traced_is_broken(every, tmp_path, monkeypatch):
    file = tmp_path / "power_swing.py"
    file.write_text(SWING)
    monkeypatch.syspath_prepend(tmp_path)
    ref, original = remembering(REF, {}), open_backend("power_swing", {}, remembering(REF, {}).spec)
    assert original.spec.traceable
    source = SWING.replace('jnp.where(state["angle"] > 0, 0.1, -0.1)', '(0.1 if state["angle"] > 0 else -0.1)')
    mutant = replace(every[0][0], file=str(file), source=source)
    found = judged(mutant, Settings(REF, "power_swing"), ref, original, {}, False)
    assert found.word == "broken" and "JAX cannot trace its step" in found.text


def test_a_failure_of_the_verifier_is_not_the_mutants(ask, every, monkeypatch):
    monkeypatch.setattr("pytest_envequiv.power.measure.Judge", lambda *a, **k: 1 / 0)
    found = ask(every[0][0])
    assert found.word == "error" and "ZeroDivisionError" in found.text


def test_code_that_nothing_runs_is_told_apart(every):
    running, idle = every
    assert {m.function for m in idle} == {"Pendulum.state_space", "Pendulum.num_actions"}
    assert not {m.id for m in running} & {m.id for m in idle}


# -- the table -------------------------------------------------------------------------------------------------------


def results(*words):
    made = mutants("def f(x):\n    return x + 1\n", "f.py")[: len(words)]
    assert len(made) == len(words)
    return list(zip(made, [replace(r, id=m.id) for m, r in zip(made, words, strict=True)], strict=True))


KILLED = Result("", "killed", {"L1": False, "L2": True, "L3": False}, "L2-play-x", 1.0, "x", ("x",), 1)
LEFT = Result("", "survived", {"L1": False, "L2": False, "L3": False}, detectable="detectable", where="step")
SAME = Result("", "survived", {"L1": False, "L2": False, "L3": False}, detectable="equivalent")


def test_a_package_is_mutated_in_every_file_that_its_step_is_written_in():
    running, _ = run.listed(run.Plan(Settings("targets.pong", "targets.pong")))
    assert {Path(mutant.file).name for mutant in running} == {"port.py"}


UNDECLARED = """
import jax, jax.numpy as jnp

def reset(key):
    state = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
    return state, (state, jnp.int32(0))

def step(key, state, action):
    (x, v, angle, turn), time = state
    force = 10.0 * (2 * action - 1)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    pull = (force + 0.05 * turn**2 * sin) / 1.1
    spin = (9.8 * sin - cos * pull) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    push = pull - 0.05 * spin * cos / 1.1
    after = jnp.stack([x + 0.02 * v, v + 0.02 * push, angle + 0.02 * turn, turn + 0.02 * spin])
    terminated = (jnp.abs(after[0]) > 2.4) | (jnp.abs(after[2]) > 12 * 2 * jnp.pi / 360)
    return after, (after, time + 1), jnp.float32(1.0), terminated, time + 1 >= 500, {}
"""


def test_a_port_that_declares_no_spaces_takes_those_of_the_reference(tmp_path, monkeypatch, capsys):
    (tmp_path / "undeclared_pole.py").write_text(UNDECLARED)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["ref=gymnasium:CartPole-v1", "target=undeclared_pole", "--sample", "3", "--workers", "1", "--levels", "L2"]
    assert cli.main([*words, "--output", str(tmp_path)]) == 0, capsys.readouterr().out
    (report,) = (tmp_path / "power").glob("*.json")
    told = json.loads(report.read_text())
    assert {m["word"] for m in told["mutants"]} <= {"killed", "survived", "broken"}
    assert any(m["word"] == "killed" and m["rank"] for m in told["mutants"])


def test_rates_count_what_can_be_seen_and_nothing_else():
    apart = [replace(LEFT, where=where) for where in table.APART]
    pairs = results(KILLED, LEFT, SAME, Result("", "broken"), *apart)
    told = table.summary(pairs)
    assert told["kill"] == {"part": 1, "whole": 2}
    assert told["levels"] == {
        "L1": {"part": 0, "whole": 2},
        "L2": {"part": 1, "whole": 2},
        "L3": {"part": 0, "whole": 2},
    }
    assert (told["equivalent"], told["broken"], told["illegal_only"], told["unreached_only"]) == (1, 1, 1, 1)
    assert told["blame_first"] == {"part": 1, "whole": 1} and told["root"] == {"part": 1, "whole": 1}


def test_a_kill_the_oracle_cannot_confirm_is_doubtful():
    pairs = results(replace(KILLED, detectable="equivalent"), replace(KILLED, detectable="detectable"))
    told = table.summary(pairs)
    assert told["audited"] == 2 and told["doubtful"] == [pairs[0][0].id]


def test_blame_counts_ranks():
    pairs = results(KILLED, replace(KILLED, rank=4), replace(KILLED, rank=6), replace(KILLED, rank=None))
    found = [r for _, r in pairs]
    assert str(table.blamed(found, 1)) == "25.0% (1 of 4)" and table.blamed(found, 5).part == 2


def test_survivors_are_shown_as_diffs_and_failures_are_not_hidden(tmp_path):
    pairs = results(KILLED, replace(LEFT, text="reward differs"), Result("", "error", text="Boom"))
    said = table.text(pairs, 3)
    assert "-    return x + 1" in said and "the oracle: reward differs" in said
    assert "the verifier failed on" in said and "Boom" in said and "3 more lie in code that nothing runs" in said
    table.plot(pairs, "title", str(tmp_path / "rates.png"))
    assert (tmp_path / "rates.png").stat().st_size > 1_000


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ref=gymnasium:Pendulum-v1", "target=gymnax:Pendulun-v1"], "did you mean 'Pendulum-v1'"),
        (["ref=gymnasium:Pendulum-v1", "ref=gymnasium:Pendulum-v1"], "one ref=NAME and one target=NAME"),
        (["ref=gymnasium:Pendulum-v1", "target=gymnax:Pendulum-v1", "--file", "nowhere.py"], "nowhere.py"),
        (["ref=targets.pong", "target=targets.pong", "--file", INIT], "no mutant could be made of targets.pong"),
    ],
)
def test_a_users_mistake_is_one_line(words, said, capsys):
    assert cli.main(words) == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "\n" not in told and told.startswith("envequiv-power: ")


def test_mutants_can_be_listed(capsys, every):
    assert cli.main([f"ref={REF}", f"target={TARGET}", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(every[0])


def test_a_small_run_from_the_command_line(tmp_path, capsys):
    words = [f"ref={REF}", f"target={TARGET}", "--sample", "3", "--seed", "5", "--workers", "1", "--levels", "L2"]
    cli.main([*words, "--output", str(tmp_path), "--plot", str(tmp_path / "rates.svg")])
    said = capsys.readouterr().out
    assert "3 mutants: " in said and "detectable mutants killed" in said
    (report,) = (tmp_path / "power").glob("*.json")
    told = json.loads(report.read_text())
    assert {"kill_rate", "detectable", "killed", "target_hash"} <= told.keys()
    assert len(told["mutants"]) == 3 and all(m["diff"] for m in told["mutants"])
    assert (tmp_path / "rates.svg").read_text().startswith("<?xml")


def test_a_mutant_that_hangs_is_stopped(every, monkeypatch):
    hanging = replace(every[0][0], source=f"while True:\n    pass\n{every[0][0].original}")
    plan = run.Plan(Settings(REF, TARGET, levels=("L2",)), workers=1, timeout=30.0)
    (found,) = run.measured(plan, [hanging], lambda result: None)
    assert isinstance(hanging, Mutant) and found.word == "hung" and "30" in found.text


# -- the null arm ----------------------------------------------------------------------------------------------------


def test_an_equal_pair_gives_no_alarm_and_another_does():
    quiet = null_runs(TARGET, TARGET, range(2), ("L2",))
    assert quiet.runs == 2 and not quiet.alarms and quiet.words.keys() == {"EQUAL"}
    heard = []
    loud = null_runs(
        "gymnasium:MountainCarContinuous-v0", "gymnax:MountainCarContinuous-v0", [0], ("L2",), heard.append
    )
    assert loud.deterministic == 1 and loud.statistical == 0 and len(heard) == len(loud.alarms) > 0

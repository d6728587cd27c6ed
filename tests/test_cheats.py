"""Targets that want to pass without being the reference: each ends as a failure that says why, and honest ones pass.

What a cheat does to its process stays in one: those that would harm this one are run by pytest in another.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cheats.pole import EARTH, moved

from pytest_envequiv import judge as judging
from pytest_envequiv.backends import isolated, suspect, watching
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.judge import Judge
from pytest_envequiv.seal import seal
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, WITHOUT_LEARNING, Settings

HERE = Path(__file__).parent
CARTPOLE = "gymnasium:CartPole-v1"
BOTH = pytest.mark.parametrize("isolate", [False, True], ids=["", "isolated"])


@pytest.fixture
def judge(tmp_path):
    """Opens a target against CartPole-v1, and closes it."""
    opened = []

    def open_(target: str, isolate: bool = False, ref: str = CARTPOLE, **settings) -> Judge:
        given = Settings(ref, target, isolate=isolate, output=str(tmp_path), **{"levels": WITHOUT_LEARNING, **settings})
        opened.append(Judge(given))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


@pytest.fixture
def pytest_says(tmp_path):
    """Runs pytest on a target; its exit code, and what it printed."""

    def run(target: str, *options: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "pytest", "--envequiv", f"ref={CARTPOLE}", f"target={target}"]
        argv += [f"--envequiv-output={tmp_path}", "-p", "no:cacheprovider", "-q", *options]
        told = subprocess.run(argv, cwd=HERE, capture_output=True, text=True)
        return told.returncode, told.stdout

    return run


# -- honest targets pass -----------------------------------------------------------------------------------------------

HONEST = {
    "cheats.honest:Honest": {"judge", "own_code", "outside", "arrays", "unwatched"},
    "cheats.honest_numpy": {"judge", "own_code", "outside", "arrays", "unwatched"},
    "cheats.honest_jax": {"judge", "own_code", "outside", "unwatched"},
    "cheats.honest_batched": {"judge", "own_code", "outside", "arrays"},
    "gymnax:CartPole-v1": {"judge", "own_code"},
    CARTPOLE: {"judge", "own_code", "arrays"},
}


@BOTH
@pytest.mark.parametrize("target", HONEST)
def test_an_honest_target_passes_every_check_of_honesty(judge, target, isolate):
    judged = judge(target, isolate)
    found = {c.field: judged.run(c.id) for c in judged.checks if c.subject == "honest"}
    assert set(found) == HONEST[target]
    assert {name: v.summary for name, v in found.items() if v.word != EQUAL} == {}


def test_what_waits_for_a_process_to_load_comes_last(judge):
    """After what was found before, and after every level, so that the process loads meanwhile."""
    judged = judge("cheats.honest:Honest")
    assert judged.checks[-1].id == "L1-honest-unwatched" and {c.level for c in judged.checks} >= {"L1", "L2", "L3"}


@pytest.mark.parametrize("target", ["cheats.honest:Honest", "cheats.honest_jax", "cheats.honest_batched"])
def test_an_honest_target_is_equal_in_a_process_of_its_own(judge, target):
    here, there = judge(target), judge(target, isolate=True)
    known = {c.id for c in here.checks} & {c.id for c in there.checks}
    assert {c.id for c in here.checks} - known <= {c.id for c in here.checks if "L2" in c.id or "coverage" in c.id}
    words = {check: there.run(check).word for check in sorted(known)}
    assert set(words.values()) == {EQUAL} and len(words) > 40


def test_without_its_trick_the_port_is_found_to_be_another(judge):
    judged = judge("cheats.pole:Pole")
    assert judged.run("L2-play-x_dot").word == DIFFERENT
    assert judged.run("L1-honest-own_code").word == EQUAL
    assert judged.run("L1-honest-unwatched").word == EQUAL


# -- whose answers they are --------------------------------------------------------------------------------------------

STEP = r"the target runs the reference's own code: CartPoleEnv\.step of gymnasium/envs/classic_control/cartpole\.py"
SHOWN = [
    ("delegates:Delegates", "own_code", DIFFERENT, STEP),
    ("delegates_by_name:DelegatesByName", "own_code", DIFFERENT, STEP),
    ("delegates_by_make", "own_code", DIFFERENT, STEP),
    ("delegates_by_subclass", "own_code", DIFFERENT, STEP),
    ("delegates_by_export", "own_code", DIFFERENT, STEP),
    ("delegates_by_callback", "own_code", DIFFERENT, STEP),
    ("delegates_by_thread:DelegatesByThread", "own_code", DIFFERENT, STEP),
    ("unwatched:DelegatesUnseen", "own_code", DIFFERENT, "is another while its code is looked at"),
    ("unwatched:SwitchesOff", "own_code", DIFFERENT, "switches off Python's profiler"),
    ("delegates_by_program:DelegatesByProgram", "outside", INCONCLUSIVE, "starts another program .*python"),
    ("reads_elsewhere:Reads", "outside", INCONCLUSIVE, "reads tableofanswers, which is not in its package"),
    ("watches:ByModules", "unwatched", DIFFERENT, "behaves otherwise where it cannot see that it is judged"),
    ("watches:ByFrames", "unwatched", DIFFERENT, "behaves otherwise where it cannot see that it is judged"),
    ("arrays:views", "arrays", DIFFERENT, "returns a pole that is a view of its input pole"),
    ("arrays:reuses", "arrays", DIFFERENT, "changes the observation it returned earlier in a later call"),
    ("reuses_buffer:Reuses", "arrays", DIFFERENT, "changes an array it returned earlier in a later step"),
]


@BOTH
@pytest.mark.parametrize(("target", "field", "word", "why"), SHOWN, ids=[name for name, *_ in SHOWN])
def test_a_cheat_is_named(judge, target, field, word, why, isolate):
    verdict = judge(f"cheats.{target}", isolate).run(f"L1-honest-{field}")
    assert verdict.word == word
    assert re.search(why, verdict.summary)


def test_what_sees_that_pytest_runs_is_wrong_elsewhere(judge, monkeypatch):
    monkeypatch.setenv("PYTEST_VERSION", "9")
    verdict = judge("cheats.watches:ByEnvironment").run("L1-honest-unwatched")
    assert verdict.word == DIFFERENT and "behaves otherwise" in verdict.summary
    assert judge("cheats.watches:ByEnvironment", isolate=True).run("L2-play-x_dot").word == DIFFERENT


@BOTH
def test_inputs_that_are_changed_in_place(judge, isolate):
    verdict = judge("cheats.arrays:writes", isolate).run("L1-inputs_kept-step")
    assert (verdict.word, verdict.summary) == (DIFFERENT, "the target changes its input pole in place")


@BOTH
def test_arrays_that_equal_everything_are_compared_as_numbers(judge, isolate):
    verdict = judge("cheats.equals_everything", isolate).run("L2-play-pole")
    assert verdict.word == DIFFERENT and verdict.summary.startswith("pole: ")


# -- what is replaced, and who does not come back ----------------------------------------------------------------------

REPLACED = {
    "patches_numpy:Patches": r"numpy\.abs",
    "patches_comparison:Patches": r"pytest_envequiv\.\S+\.compare",
    "patches_words:Patches": r"pytest_envequiv\.verdict\.\w+",
    "patches_modules:Patches": r"sys\.modules\['pytest_envequiv\.comparison\.fields'\]",
    "patches_reference:Patches": r"gymnasium\.envs\.classic_control\.cartpole\.CartPoleEnv\.\w+",
    "patches_later:PatchesLater": r"pytest_envequiv\.judge\.Judge\.run",
}


@pytest.mark.parametrize("target", REPLACED)
def test_what_a_target_replaces_is_named_in_every_verdict(pytest_says, target):
    code, out = pytest_says(f"cheats.{target}", "--envequiv-levels=L1", "-k", "open or deterministic or seeds")
    assert code == 1
    assert re.search(rf"DIFFERENT.*: the target replaced {REPLACED[target]}: nothing here can be believed", out)
    assert re.search(r"^DIFFERENT (overall|as far)", out, re.MULTILINE)


@pytest.mark.parametrize("target", ["patches_reference:Patches", "patches_later:PatchesLater"])
def test_what_it_replaces_in_its_own_process_does_not_help(judge, target):
    assert judge(f"cheats.{target}", isolate=True).run("L2-play-x_dot").word == DIFFERENT


ENDS = [
    ("skips", "", "INCONCLUSIVE L1-open-pair: .*importing it raised Skipped: not today"),
    ("exits", "", "DIFFERENT L1-open-pair: .*it exited with code 0"),
    ("leaves", "", "INCONCLUSIVE L1-open-pair: .*importing it raised SystemExit: 0"),
    ("kills:Kills", "", r"INCONCLUSIVE L1-open-pair: .*it tried to send signal 9 to process \d+"),
    ("fakes_answers:Fakes", "", "DIFFERENT L1-open-pair: .*it wrote an answer that is not the judge's"),
    ("exits_later:ExitsLater", "L2-play-x", "DIFFERENT L2-play-x: the target exited with code 0 in step"),
    ("interrupts:Interrupts", "L2-play-x", "DIFFERENT L2-play-x: the target raised KeyboardInterrupt"),
    ("hangs:Hangs", "L2-play-x", "INCONCLUSIVE L2-play-x: the target gave no answer within 10 s in step"),
    ("prints_answers:Prints", "L2-play-theta_dot", "DIFFERENT L2-play-theta_dot: theta_dot: "),
]
ISOLATED = [
    ("skips", "", "INCONCLUSIVE L1-open-pair: .*importing it raised Skipped: not today"),
    ("exits", "", "DIFFERENT L1-open-pair: the target exited with code 0 in opening cheats.exits"),
    ("kills:Kills", "", r"INCONCLUSIVE L1-open-pair: .*it tried to send signal 9 to process \d+"),
    ("fakes_answers:Fakes", "", "INCONCLUSIVE L1-open-pair: .*the answer to hello lacks"),
    ("patches_numpy:Patches", "", r"INCONCLUSIVE L1-open-pair: .*it replaced numpy\.abs in its process"),
    ("exits_later:ExitsLater", "L2-play-x", "DIFFERENT L2-play-x: the target exited with code 0 in step"),
    ("interrupts:Interrupts", "L2-play-x", "DIFFERENT L2-play-x: the target failed in step: KeyboardInterrupt"),
    ("hangs:Hangs", "L2-play-x", "INCONCLUSIVE L2-play-x: the target gave no answer within 9 s in step"),
    ("eats:Eats", "L2-play-x", "DIFFERENT L2-play-x: .*MemoryError: Unable to allocate .*; a limit is set with"),
    ("prints_answers:Prints", "L2-play-theta_dot", "DIFFERENT L2-play-theta_dot: theta_dot: "),
]


@pytest.mark.parametrize(
    ("target", "check", "why", "options"),
    [(*case, ()) for case in ENDS] + [(*case, ("--envequiv-isolate", "--envequiv-memory=2")) for case in ISOLATED],
    ids=[name for name, *_ in ENDS] + [f"{name}-isolated" for name, *_ in ISOLATED],
)
def test_who_does_not_play_along_fails(pytest_says, target, check, why, options):
    one = [f"envequiv::{check}"] if check else []
    code, out = pytest_says(f"cheats.{target}", "--envequiv-timeout=10", *options, *one)
    assert code == 1
    assert re.search(why, out), out


def test_a_target_that_died_costs_one_check(pytest_says):
    """With the next check comes a new process, whether the target had one of its own or not."""
    for options in ([], ["--envequiv-isolate"]):
        code, out = pytest_says(
            "cheats.exits_later:ExitsLater", *options, "envequiv::L2-play-x", "envequiv::L1-map-state"
        )
        assert code == 1
        assert "1 EQUAL, 1 DIFFERENT" in out


# -- a recording -------------------------------------------------------------------------------------------------------

PORT = """
import json
from pathlib import Path

from cheats.pole import Pole

ANSWERS = json.loads(Path(__file__).with_name("answers.json").read_text())


class Recorded(Pole):
    def moved(self, action):
        asked = repr((self.x, self.x_dot, self.theta, self.theta_dot, int(action)))
        QUESTIONS.add(asked)
        return ANSWERS.get(asked) or super().moved(action)


QUESTIONS = set()
"""


def test_a_recording_is_asked_other_questions(judge, tmp_path, monkeypatch):
    """A table of right answers to all questions of a run, and wrong ones to others: having it changes the questions."""
    package = tmp_path / "recording"
    package.mkdir()
    (package / "port.py").write_text(PORT)
    (package / "answers.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    target, check = "recording.port:Recorded", "L2-play-theta_dot"

    monkeypatch.setattr(judging, "effective_seed", lambda settings, thing: settings.seed)
    port = sys.modules["recording.port"] if judge(target).run(check).word == DIFFERENT else None
    for _ in range(3):  # where an answer is another, so are the questions that follow
        known = {asked: moved(*eval(asked), EARTH) for asked in port.QUESTIONS}
        port.ANSWERS.update(known)
        judge(target).run(check)
    (package / "answers.json").write_text(json.dumps(port.ANSWERS))
    assert judge(target).run(check).word == EQUAL  # had the questions stayed the same
    monkeypatch.undo()

    monkeypatch.syspath_prepend(str(tmp_path))
    verdict = judge(target).run(check)
    assert verdict.word == DIFFERENT and verdict.summary.startswith("theta_dot: ")


def test_the_seed_depends_on_what_is_in_the_target_and_on_nothing_else(tmp_path, monkeypatch):
    package = tmp_path / "mixed"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "port.py").write_text("import helper\nTABLE = open('table.csv')\n")
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "table.csv").write_text("1")
    (tmp_path / "stranger.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = Settings(CARTPOLE, "mixed.port")

    def seed(**changes):
        return suspect.effective_seed(replace(settings, **changes), None)

    first = seed()
    (tmp_path / "stranger.py").write_text("other")
    assert seed() == first == seed(profile="thorough", isolate=True, output="elsewhere")
    assert seed(seed=1) != first
    for file in (package / "port.py", package / "__init__.py", tmp_path / "helper.py", tmp_path / "table.csv"):
        text = file.read_text()
        file.write_text(text + "\n")
        assert seed() != first, file
        file.write_text(text)
    (package / "weights.bin").write_bytes(b"1")
    assert seed() != first
    assert seed(seed=5, answers="kept") == 5
    assert suspect.effective_seed(replace(settings, target="gymnax:CartPole-v1", seed=5), None) == 5
    assert suspect.effective_seed(replace(settings, seed=5), thing=object()) == 5


def test_the_seed_that_was_used_is_shown_and_replays(pytest_says, tmp_path):
    code, out = pytest_says("cheats.pole:Pole", "envequiv::L2-play-theta_dot")
    (used,) = re.findall(r"^seed   0, mixed with the target's files: (\d+)$", out, re.MULTILINE)
    (saved,) = tmp_path.rglob("L2-play-theta_dot.json")
    assert code == 1 and json.loads(saved.read_text())["seed"] == int(used)
    assert judging.replay(str(saved)).word == DIFFERENT
    data = json.loads(saved.read_text())
    saved.write_text(json.dumps({**data, "target": "cheats.honest:Honest"}))  # the port was mended
    assert judging.replay(str(saved)).word == EQUAL


# -- the means ---------------------------------------------------------------------------------------------------------


def test_only_the_reference_s_own_code_counts_as_borrowed():
    cart, other, local, own = (
        "/x/site-packages/lib/envs/cart.py",
        "/x/site-packages/lib/envs/other.py",
        "/y/r.py",
        "/y/p.py",
    )
    reference = watching.Ran(frozenset({(cart, "Cart.step")}), frozenset({(other, "helper"), (local, "helper")}))
    for place, expected in (((cart, "Cart.fast"), True), ((other, "any"), True), ((local, "helper"), False)):
        target = watching.Ran(frozenset({(own, "step")}), frozenset({place}))
        assert bool(watching.borrowed(reference, target, own)) is expected
    together = watching.Ran(frozenset({(own, "Ref.step")}), frozenset({(own, "shared")}))
    port = watching.Ran(frozenset({(own, "Port.step")}), frozenset({(own, "shared")}))
    assert watching.borrowed(together, port, own) == []
    assert watching.borrowed(together, watching.Ran(frozenset({(own, "Ref.step")})), own) == [(own, "Ref.step")]


@pytest.mark.parametrize(
    ("file", "general"),
    [
        ("<string>", True),
        (json.__file__, True),
        (watching.__file__, True),
        ("/x/site-packages/numpy/linalg/linalg.py", True),
        ("/x/site-packages/gymnasium/spaces/box.py", True),
        ("/x/site-packages/gymnasium/core.py", True),
        ("/x/site-packages/gymnasium/envs/classic_control/cartpole.py", False),
        ("/x/site-packages/gymnax/environments/classic_control/cartpole.py", False),
        ("/x/site-packages/gymnax/environments/environment.py", True),
        (__file__, False),
    ],
)
def test_general_code(file, general):
    assert watching.is_general(file) is general


def test_a_seal_names_what_was_replaced(monkeypatch):
    broken = seal("cheats")
    assert broken() is None
    import cheats.pole

    with monkeypatch.context() as patch:
        patch.setattr(cheats.pole.Pole, "step", lambda self, action: None)
        assert broken() == "cheats.pole.Pole.step"
    with monkeypatch.context() as patch:
        patch.setattr(cheats.pole.moved, "__code__", (lambda *_: None).__code__)
        assert broken() == "cheats.pole.moved"
    cheats.pole.fresh = 1  # what is new replaces nothing
    assert broken() is None


def test_an_isolated_side_sees_little(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "1")
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "this")
    monkeypatch.setenv("XLA_FLAGS", "")
    seen = isolated.environment()
    assert "PATH" in seen and "XLA_FLAGS" in seen
    assert not {"SECRET_TOKEN", "PYTEST_CURRENT_TEST", "PYTEST_VERSION"} & set(seen)


CALLS = """
import socket

from cheats.pole import Pole

try:
    socket.create_connection(("127.0.0.1", PORT), 5)
except OSError:
    pass


class Calls(Pole):
    pass
"""


def test_an_isolated_side_has_no_network(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        (tmp_path / "calls_home.py").write_text(CALLS.replace("PORT", str(server.getsockname()[1])))
        far = isolated.Begun("calls_home:Calls", {}, None, timeout=60).opened()
        try:
            assert any("127.0.0.1" in place for place in far.outside().network)
            if not any("network" in note for note in far.spec.notes):
                with pytest.raises(TimeoutError):
                    server.accept()
        finally:
            far.close()


def test_a_process_that_was_begun_and_never_asked_for_is_ended(monkeypatch, tmp_path):
    begun = []
    real = suspect.Begun
    monkeypatch.setattr(suspect, "Begun", lambda *a, **k: begun.append(real(*a, **k)) or begun[-1])
    judged = Judge(Settings(CARTPOLE, "cheats.honest_numpy", levels=WITHOUT_LEARNING, output=str(tmp_path)))
    assert not begun
    for check in ("L1-spec-action", "L1-spec-observation"):
        assert judged.run(check).word == EQUAL
    (room,) = begun
    assert room._peer._child.poll() is None
    judged.close()
    assert room._peer._child.poll() is not None


def test_where_no_process_can_be_begun_it_is_not_the_target_that_is_blamed(judge, monkeypatch):
    judged = judge("cheats.honest_numpy")
    monkeypatch.setattr(isolated.tempfile, "TemporaryDirectory", full)
    assert judged.run("L1-spec-action").word == EQUAL
    verdict = judged.run("L1-honest-unwatched")
    assert verdict.word == INCONCLUSIVE
    assert "no process of its own could be begun: [Errno 28] No space left on device" in verdict.summary
    monkeypatch.undo()
    monkeypatch.setattr(isolated.sys, "executable", "/nothing")
    assert "cannot start '/nothing'" in judged.run("L1-honest-unwatched").summary
    monkeypatch.undo()
    assert judged.run("L1-honest-unwatched").word == EQUAL


def full(*_, **__):
    raise OSError(28, "No space left on device")


def test_an_isolated_backend_is_the_same_backend():
    near = open_backend("cheats.honest_jax", like=open_backend(CARTPOLE).spec)
    far = isolated.Begun("cheats.honest_jax", {}, open_backend(CARTPOLE).spec, timeout=60).opened()
    try:
        assert (far.spec.kind, far.spec.state, far.spec.draws) == (near.spec.kind, near.spec.state, near.spec.draws)
        assert far.spec.fields == near.spec.fields and far.compiled
        seeds = np.arange(5)
        a, b = near.reset(seeds), far.reset(seeds)
        action = {"action": np.array([0, 1, 1, 0, 1], "int32")}
        pairs = [(a, b), (near.step(a.state, action, seeds), far.step(b.state, action, seeds))]
        pairs += [
            (near.step_as(how, a.state, action, seeds), far.step_as(how, b.state, action, seeds))
            for how in ("jit", "eager")
        ]
        pairs += [(near.reset_eagerly(seeds), far.reset_eagerly(seeds))]
        pairs += [(near.reset(seeds + 9, a.draws), far.reset(seeds + 9, b.draws))]
        for ours, theirs in pairs:
            for name, value in {**ours.state.fields, **ours.outputs}.items():
                np.testing.assert_array_equal(value, {**theirs.state.fields, **theirs.outputs}[name])
    finally:
        far.close()

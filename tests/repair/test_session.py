"""The whole program in a user's repository: the real client against a scripted server, a suite of milliseconds."""

from __future__ import annotations

import functools
import json
import signal
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
import toy_judge
from conftest import Repository
from messages_server import Server, says, uses
from rich.console import Console
from toy_judge import GOAL, GRAVITY, PORT, WALL, broken

from repair_agent import journal, loop, session
from repair_agent.model.messages import Options
from repair_agent.model.tools import EDITOR
from repair_agent.prices import table
from repair_agent.question import Question


def edit(bug: tuple[str, str]):
    """The model's edit that takes a bug back."""
    return uses(EDITOR, command="str_replace", path="port.py", old_str=bug[1], new_str=bug[0])


def test_a_port_is_mended_proven_and_landed(workshop):
    workshop.begin(broken(GRAVITY))
    before = workshop.repository.git("rev-parse", "HEAD")
    assert workshop.mend([uses("check", what="group"), edit(GRAVITY), says("Gravity was too strong.")]) == 0
    print(workshop.said)
    assert workshop.port == PORT and workshop.status == ""
    assert workshop.repository.git("log", "--format=%s", f"{before}..main") == "L2 velocity: Gravity was too strong."
    assert workshop.branches == []
    told = workshop.report
    (group,) = told["groups"]
    assert told["proven"] and told["left"] == [] and group["group"] == "L2 velocity"
    assert group["wrong"].startswith("velocity: expected") and group["changed"] == ["model: Gravity was too strong."]
    assert group["turned"] == ["L2-play-velocity", "L2-play-position"]
    assert "-    velocity = state.velocity + (action - 1) * 0.004 - 0.0035" in told["diff"]
    assert told["spent"]["calls"] == 3 and 0 < told["spent"]["dollars"] < 0.25
    assert json.loads((workshop.place / "state.json").read_text())["proven"]
    assert all(map(workshop.events, ("begin", "group", "call", "reply", "tool", "step", "last word", "end")))
    for words in (
        "REPAIRED: every check is EQUAL on 2 unseen seeds",
        "catches the seeded bug port.py",
        "main is now at",
    ):
        assert words in workshop.said


def test_two_bugs_are_mended_one_after_the_other(workshop):
    workshop.begin(broken(GRAVITY, GOAL))
    before = workshop.repository.git("rev-parse", "HEAD")
    assert workshop.mend([edit(GRAVITY), says("gravity"), edit(GOAL), says("goal")]) == 0
    subjects = workshop.repository.git("log", "--reverse", "--format=%s", f"{before}..main").splitlines()
    assert subjects == ["L2 velocity: gravity", "L2 terminated: goal"]
    assert [len(g["commits"]) for g in workshop.report["groups"]] == [1, 1] and workshop.port == PORT
    first, second = (c["fresh"][0]["content"][0]["text"] for c in workshop.events("call")[::2])
    assert "L2 velocity" in first and "0.0035" in first and "0.0025 * jnp" in second


def test_what_only_an_unseen_seed_shows_is_mended_with_that_seed(workshop):
    workshop.begin(broken(GRAVITY, WALL))
    assert workshop.mend([edit(GRAVITY), says("gravity"), edit(WALL), says("wall")]) == 0
    first, second = workshop.events("last word")
    assert not first["accepted"] and "L2-play-position is DIFFERENT" in first["why"] and second["accepted"]
    assert not set(first["seeds"]) & set(second["seeds"])
    assert json.loads((workshop.place / "state.json").read_text())["question"]["seed"] == first["seeds"][0]
    assert workshop.port == PORT and "position: expected 0.6" in workshop.report["groups"][1]["wrong"]


def test_what_is_equal_from_the_start_needs_the_last_word_only(workshop):
    assert workshop.mend([]) == 0
    assert len(workshop.events("last word")) == 1 and workshop.events("call") == []
    assert workshop.report["landed"] == "nothing had to be changed" and workshop.branches == []


def test_a_result_may_stay_on_its_branch(workshop):
    workshop.begin(broken(GRAVITY))
    assert workshop.mend([edit(GRAVITY), says("done")], "--no-land") == 0
    (branch,) = workshop.branches
    assert workshop.port != PORT and workshop.repository.git("show", f"{branch}:port.py") == PORT.strip()
    assert f"the result is on branch {branch}: git cherry-pick" in workshop.said


def test_what_is_not_committed_is_taken_along_and_stays_uncommitted(workshop):
    workshop.repository.write(port=broken(GRAVITY), notes="x = 1\n")
    assert workshop.mend([edit(GRAVITY), says("done")]) == 0
    assert "taken along, as it is not committed: notes.py, port.py" in workshop.said
    assert workshop.port == PORT and workshop.status == "?? notes.py"
    assert "written and not committed" in workshop.said


# -- cheats ----------------------------------------------------------------------------------------------------------


def replaced(text: str):
    return uses(EDITOR, command="create", path="port.py", file_text=text)


SIGN = "state.position + velocity", "state.position - velocity"
SPEED = "    velocity = jnp.clip(velocity, -0.07, 0.07)\n"
WRONG = broken(GRAVITY)


def by_heart() -> str:
    """The port with the counterexample's answer in it."""
    found = toy_judge.judged(Question("reference:Car", "port"), Path.cwd()).findings["L2-play-velocity"].divergence
    known = f"jnp.abs(state.position - {found['state']['position']!r}) < 1e-6, {found['expected']!r}, velocity"
    return WRONG.replace(SPEED, f"{SPEED}    velocity = jnp.where({known})\n")


CHEATS = {
    "delegates to the reference": (lambda: "from reference import Car\n" + WRONG, "port.py:1 imports the reference"),
    "looks whether it is judged": (lambda: WRONG + "\nimport inspect\n", "inspect, which sees that it is judged"),
    "speaks to the judge": (lambda: WRONG + "\nimport pytest\n", "pytest, which speaks to the judge"),
    "reads the reference's file": (lambda: WRONG + '\nTEXT = open("reference.py").read()\n', "port.py:31 uses open"),
    "knows the counterexample": (by_heart, "no check of the group turned EQUAL: L2-play-velocity is DIFFERENT"),
    "breaks another field": (
        lambda: broken((GOAL[0], GOAL[1])),
        "what was EQUAL is not any more: L2-play-terminated is DIFFERENT",
    ),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_refused_and_the_report_says_why(workshop, name):
    cheat, why = CHEATS[name]
    workshop.begin(WRONG)
    assert workshop.mend([replaced(cheat()), says("It is right now.")], "--tries", "1") == 1
    (group,) = workshop.report["groups"]
    assert not group["mended"] and why in group["refused"][0] and why in " ".join(workshop.said.split())
    assert workshop.port == WRONG and workshop.status == "" and workshop.report["diff"] == ""
    assert "NOT REPAIRED: stuck: no engine mends L2 velocity" in workshop.said


@pytest.mark.parametrize("path", ["reference.py", "conftest.py", "../conftest.py", "sitecustomize.py"])
def test_no_other_file_can_be_edited(workshop, path):
    workshop.begin(broken(GRAVITY))
    script = [uses(EDITOR, command="create", path=path, file_text="x = 1\n"), says("It is right now.")]
    assert workshop.mend(script, "--tries", "1") == 1
    assert "It is right now." in workshop.report["groups"][0]["gave_up"][0]
    (tool,) = workshop.events("tool")
    assert tool["wrong"] and workshop.status == ""


def test_the_next_try_is_told_why_the_last_was_refused(workshop):
    workshop.begin(broken(GRAVITY))
    asked = []

    def answer(body):
        asked.append(body)
        if len(asked) == 1:
            return replaced("import os\n" + PORT)
        return edit(GRAVITY) if len(asked) == 3 else says("done")

    assert workshop.mend(answer) == 0
    assert "port.py:1 uses os" in asked[2]["messages"][0]["content"][-1]["text"]
    assert [s["accepted"] for s in workshop.events("step")] == [False, True]


def test_a_suite_that_notices_nothing_proves_nothing(workshop, monkeypatch):
    """The last word's canary: seeded bugs that no check sees."""
    from repair_agent import canary, gate

    monkeypatch.setattr(gate, "canary", lambda *_, **__: canary.Canary(False, "the suite does not notice bugs"))
    assert workshop.mend([]) == 1
    assert "NOT REPAIRED: refused: the suite does not notice bugs" in workshop.said


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "says_"),
    [
        (("--dollars", "0.06"), "stopped: dollars: the next call may cost"),
        (("--calls", "3"), "stopped: calls: "),
        (("--tokens", "40000"), "stopped: tokens: the next call may use"),
    ],
)
def test_a_limit_is_never_overshot_and_the_best_checkpoint_stays(workshop, limit, says_):
    workshop.begin(broken(GRAVITY, GOAL))

    def answer(body):
        number = len(workshop.servers[-1].requests)
        if number <= 2:
            return edit(GRAVITY) if number == 1 else says("gravity")
        return uses("evaluate", state="", action="0", seed=number)

    assert workshop.mend(answer, *limit) == 1
    told = workshop.report
    assert told["ended"].startswith(says_) and says_ in workshop.said
    name, most = limit[0].removeprefix("--"), float(limit[1])
    assert 0.4 * most <= told["spent"][name] <= most
    (branch,) = workshop.branches
    mended = workshop.repository.git("show", f"{branch}:port.py")
    assert mended == broken(GOAL).strip() and workshop.port == broken(GRAVITY, GOAL)
    assert told["landed"] == f"1 step, on branch {branch}"
    assert "\nto go on   envequiv-repair ref=reference:Car target=port --resume\n" in workshop.said


def test_when_all_is_mended_with_the_last_call_the_last_word_is_still_spoken(workshop):
    workshop.begin(broken(GRAVITY))
    assert workshop.mend([edit(GRAVITY), says("done")], "--calls", "2") == 0


def test_time_that_is_over_stops_it_too(workshop):
    workshop.begin(broken(GRAVITY))

    import_module("anthropic")  # a second or two, where this is the first test of its process

    def answer(_):
        time.sleep(1.5)
        return uses("evaluate", state="", action="0", seed=1)

    assert workshop.mend(answer, "--seconds", "2.5") == 1
    assert workshop.report["ended"].startswith("stopped: time: ") and workshop.report["spent"]["seconds"] < 10
    assert workshop.report["spent"]["dollars"] > 0


def test_a_limit_that_was_too_small_is_raised_and_it_goes_on(workshop):
    workshop.begin(broken(GRAVITY))
    server = workshop.server([uses("check", what="group"), edit(GRAVITY), says("done")])
    words = ("--engine", "model", "--base-url", server.url)
    assert workshop.run(*words, "--calls", "1") == 1
    spent = workshop.report["spent"]
    assert workshop.report["ended"].startswith("stopped: calls") and spent["calls"] == 1
    assert workshop.run("--resume") == 1 and workshop.report["spent"]["calls"] == 1, "the limit that was given holds"
    assert workshop.run("--resume", "--calls", "9") == 0, workshop.said
    assert workshop.report["spent"]["calls"] == 3 and workshop.port == PORT
    assert workshop.report["limits"]["calls"] == 9 and workshop.report["spent"]["dollars"] > spent["dollars"]


# -- interruptions ---------------------------------------------------------------------------------------------------


class Held:
    """A script whose answer number ``at`` is held back until ``go``; ``reached``: it was asked for."""

    def __init__(self, at: int, *answers):
        self.answers, self.at, self.asked = list(answers), at, 0
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, _):
        self.asked += 1
        if self.asked == self.at:
            self.reached.set()
            self.go.wait(60)
        return self.answers.pop(0)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_in_the_middle_it_goes_on_from_the_last_step(workshop, how):
    workshop.begin(broken(GRAVITY, GOAL))
    script = Held(3, edit(GRAVITY), says("gravity"), says("never heard"))
    server = workshop.server(script)
    process = workshop.started("--engine", "model", "--base-url", server.url)
    try:
        assert script.reached.wait(60), process.stdout.read()
        process.send_signal(how)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        script.go.set()
    assert process.returncode == (130 if how != signal.SIGKILL else -signal.SIGKILL), out
    assert "Traceback" not in out and workshop.port == broken(GRAVITY, GOAL) and workshop.status == ""
    (branch,) = workshop.branches
    assert workshop.repository.git("show", f"{branch}:port.py") == broken(GOAL).strip()
    spent = workshop.events("call")[-1]["budget"]
    assert spent["calls"] == 3
    if how != signal.SIGKILL:
        assert "NOT REPAIRED: interrupted" in out and f"1 step, on branch {branch}" in out and " --resume\n" in out
        assert workshop.report["spent"]["calls"] == 3
    again = workshop.server([edit(GOAL), says("goal")])
    assert workshop.run("--resume", "--base-url", again.url) == 0, workshop.said
    assert workshop.port == PORT and workshop.branches == [] and workshop.report["spent"]["calls"] == 5
    assert workshop.report["spent"]["dollars"] > spent["pico"] / 1e12 > 0.1, "the call that was cut off counts in full"
    subjects = workshop.repository.git("log", "--format=%s", "-2").splitlines()
    assert subjects == ["L2 terminated: goal", "L2 velocity: gravity"]
    assert [e["kind"] for e in (workshop.events("begin") + workshop.events("resume"))] == ["begin", "resume"]


def test_interrupted_before_anything_is_known_nothing_is_left(workshop, monkeypatch):
    workshop.begin(broken(GRAVITY))
    monkeypatch.setattr(session.suite, "judged", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert workshop.mend([]) == 130
    assert workshop.branches == [] and "envequiv-repair: interrupted\n" in workshop.said
    assert not (workshop.place / "state.json").exists()


def test_what_has_landed_is_not_gone_on_with(workshop):
    workshop.begin(broken(GRAVITY))
    assert workshop.mend([edit(GRAVITY), says("done")]) == 0
    assert workshop.run("--resume") == 2
    assert (
        workshop.said.startswith("envequiv-repair: there is no repair on branch")
        and "without --resume" in workshop.said
    )


def test_two_at_once_on_one_pair_are_refused(workshop):
    with session._alone(workshop.top / ".envequiv" / "repair" / "reference_Car__port"):
        assert workshop.run("--engine", "offline") == 2
    assert "another envequiv-repair works on this pair" in workshop.said and workshop.branches == []


def test_what_is_stuck_goes_on_with_another_engine(workshop):
    workshop.begin(broken(GRAVITY))
    assert workshop.mend([uses("give_up", reason="I see nothing.")]) == 1
    assert workshop.report["groups"][0]["gave_up"] == ["model: I see nothing."]
    server = workshop.server([edit(GRAVITY), says("now I see")])
    assert workshop.run("--resume", "--base-url", server.url) == 0
    assert workshop.port == PORT and workshop.report["groups"][0]["gave_up"]


def test_a_repair_without_a_step_leaves_no_branch_to_the_next(workshop):
    workshop.begin(broken(GRAVITY))
    for _ in range(2):
        assert workshop.mend([uses("give_up", reason="no")]) == 1
        assert len(workshop.branches) == 1
    assert [p.name for p in sorted(workshop.place.glob("trajectory*"))] == ["trajectory-1.jsonl", "trajectory.jsonl"]


# -- a recording -----------------------------------------------------------------------------------------------------


def test_a_trajectory_is_run_again_without_server_or_key(workshop, monkeypatch, tmp_path):
    workshop.begin(broken(GRAVITY, GOAL))
    before = workshop.repository.git("rev-parse", "HEAD")
    steps = [replaced("import os\n" + PORT), says("no"), edit(GRAVITY), says("gravity"), edit(GOAL), says("goal")]
    assert workshop.mend(steps) == 0
    first, recording = workshop.report, tmp_path / "recording.jsonl"
    recording.write_text((workshop.place / "trajectory.jsonl").read_text())
    workshop.repository.git("reset", "--quiet", "--hard", before)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert workshop.run("--replay", str(recording)) == 0, workshop.said
    again = workshop.report
    assert workshop.port == PORT and len(workshop.servers[0].requests) == 6
    for name in ("baseline", "now", "diff"):
        assert again[name] == first[name]
    assert [again["spent"][n] for n in ("dollars", "calls", "tokens")] == [
        first["spent"][n] for n in ("dollars", "calls", "tokens")
    ]
    assert [(s["why"], s["ruling"]) for s in workshop.events("step")] == [
        (e["why"], e["ruling"]) for e in journal.read(recording) if e["kind"] == "step"
    ]
    # On other files it asks something else, and says so.
    workshop.begin(broken(GRAVITY, ("3 *", "4 *")))
    assert workshop.run("--replay", str(recording)) == 1
    assert "the replay ended: call 1 differs from the recorded one" in workshop.said and workshop.report[
        "landed"
    ].startswith("no step")


# -- the offline engine, and the real suite --------------------------------------------------------------------------


def test_the_offline_engine_mends_a_port_without_a_key(workshop, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    workshop.begin(broken(SIGN))
    assert workshop.run("--engine", "offline") == 0, workshop.said
    assert workshop.port == PORT and workshop.report["spent"]["calls"] == 0
    (changed,) = workshop.report["groups"][0]["changed"]
    assert changed.startswith("offline: port.py line 22: ") and "saved transitions agree" in changed


def test_where_the_offline_engine_cannot_it_says_so(workshop):
    workshop.begin(broken(GRAVITY))
    (workshop.top / "table.txt").write_text("0.0035\n")
    workshop.repository.commit("a table")
    assert workshop.run("--engine", "offline", "--files", "table.txt") == 1
    (group,) = workshop.report["groups"]
    assert group["gave_up"] == ["offline: it can search in Python only, and none of the target's files is"]
    (branch,) = workshop.branches
    assert workshop.port == broken(GRAVITY) and workshop.status == ""
    assert workshop.report["landed"] == f"no step was accepted, on branch {branch}"
    assert "NOT REPAIRED: stuck: no engine mends L2 velocity" in workshop.said


def test_a_real_port_is_mended_by_a_model_under_the_real_suite(tmp_path, monkeypatch, checkout_at_rest, capsys):
    """The example's port, of which an episode lasts one step too long. One level and one unseen seed will do."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    home = Repository(tmp_path / "user")
    example = Path(__file__).parents[2] / "examples" / "handwritten"
    texts = {name: (example / f"{name}.py").read_text() for name in ("reference", "buggy")}
    home.write(reference=texts["reference"], port=texts["buggy"])
    (home.top / "envequiv.toml").write_text((example / "envequiv.toml").read_text())
    home.commit()
    monkeypatch.chdir(home.top)
    monkeypatch.setattr(sys, "path", [str(home.top), *sys.path])
    monkeypatch.setattr(loop, "Plan", functools.partial(loop.Plan, held_out=(0,)))
    script = [
        uses(EDITOR, command="str_replace", path="port.py", old_str="steps > LIMIT", new_str="steps >= LIMIT"),
        says("An episode lasted one step too long."),
    ]
    with Server(script) as server:
        request = session.Request(
            question=Question("reference:Probe", "port", options=("--envequiv-levels=L2",)),
            folder=home.top,
            output=home.top / ".envequiv",
            engine="model",
            api=Options(base_url=server.url),
            prices=table(),
        )
        assert session.repaired(request, Console(soft_wrap=True)) == 0, capsys.readouterr()
    assert not server.problems
    told = json.loads((request.place / "report.json").read_text())
    assert told["groups"][0]["group"] == "L2 truncated" and "L2-play-truncated" in told["groups"][0]["turned"]
    assert (home.top / "port.py").read_text() == texts["buggy"].replace("> LIMIT", ">= LIMIT")
    asked = json.dumps(server.requests[0]["messages"])
    assert "L2-play-truncated: DIFFERENT" in asked and "state.steps > LIMIT" in asked

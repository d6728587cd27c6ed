"""The command line: what is shown before anything is done, how a port begins from nothing, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import toy_judge
from messages_server import says, uses
from toy_judge import GOAL, GRAVITY, PORT, broken

from pytest_envequiv import contents
from repair_agent import cli, crates, session, stub, stub_rust
from repair_agent.model import aside
from repair_agent.model.tools import EDITOR
from repair_agent.question import NODE

DECLARED = {
    "action": {"action": {"kind": "discrete", "shape": [], "dtype": "int64", "low": 0, "high": 2}},
    "observation": {"observation": {"kind": "box", "shape": [2], "dtype": "float32", "low": [-2], "high": [2]}},
    "fields": {"position": {"shape": [], "dtype": "float64"}, "velocity": {"shape": [], "dtype": "float64"}},
    "time_limit": None,
}
MENDED = uses(EDITOR, command="create", path="port.py", file_text=PORT)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a repository, git's own included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- before anything is done -----------------------------------------------------------------------------------------


def test_help_says_how_to_begin_and_what_the_exit_codes_are(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and "usage: envequiv-repair ref=NAME target=NAME [options]" in text
    assert "--engine offline   no key, no cost" in text and "\n  130  interrupted" in text
    assert max(map(len, text.splitlines())) <= 105


def test_a_dry_run_shows_all_and_does_nothing(workshop, monkeypatch):
    workshop.begin(broken(GRAVITY, GOAL))

    def judged(*asked, **how):
        """As the real one, of which one process leaves bytecode."""
        (workshop.top / "__pycache__").mkdir()
        (workshop.top / "__pycache__" / "port.cpython-311.pyc").write_bytes(b"")
        return toy_judge.judged(*asked, **how)

    monkeypatch.setattr(session.suite, "judged", judged)
    server = workshop.server([])
    before = files(workshop.top)
    assert workshop.run("--dry-run", "--base-url", server.url, "--dollars", "2") == 0
    assert files(workshop.top) == before and not (workshop.top / "__pycache__").exists()
    assert not server.requests and not server.counted
    for words in (
        "engines     offline, then claude-",
        "limits      $2, 3 tries of an engine at a group",
        "may change  port.py\n",
        "suite       3 DIFFERENT, 2 EQUAL of 5 checks",
        "  1. L2 velocity: L2-play-velocity\n  2. L2 terminated: L2-play-terminated\n",
        "tokens of prompt, $0.",
        "all calls   $2 at worst",
        "the first prompt",
        "- 0.0035 * jnp.cos",
        "velocity: expected",
    ):
        assert words in workshop.said


def test_the_worst_case_that_is_shown_is_what_is_reserved(workshop):
    workshop.begin(broken(GRAVITY))
    assert workshop.run("--dry-run", "--engine", "model") == 0
    shown = float(workshop.said.partition("tokens of prompt, $")[2].split()[0])
    server = workshop.server([uses("give_up", reason="no")], counts=False)
    assert workshop.run("--engine", "model", "--base-url", server.url) == 1
    assert workshop.events("call")[0]["budget"]["pico"] / 1e12 == pytest.approx(shown, abs=1e-4)


def test_a_dry_run_of_a_port_from_nothing_does_nothing_either(workshop, tmp_path):
    before = files(workshop.top)
    assert workshop.run("--dry-run", "--init", "translate", pair=("ref=reference:Car", "target=fresh")) == 0
    assert files(workshop.top) == before
    assert "may change  fresh.py" in workshop.said and "it begins as a stub" in workshop.said
    assert "class Car(gymnasium.Env)" in workshop.said


# -- a report --------------------------------------------------------------------------------------------------------


def reported(path: Path, **settings) -> Path:
    """pytest's JSON report of the toy suite on the port as it is here."""
    question = session.Question("reference:Car", "port", seed=settings.get("seed", 0))
    run = toy_judge.judged(question, Path.cwd())
    node, pair = NODE, {"node": NODE, "ref": question.ref, "target": question.target}
    tests = []
    for f in run.findings.values():
        told = {"pair": pair, "check": {"id": f.check, "level": f.level, "subject": f.subject, "field": f.field}}
        told |= {"word": f.word, "summary": f.summary, "follows": f.follows, "divergence": f.divergence}
        tests.append({"nodeid": f.node, "metadata": {"envequiv": {**told, "evidence": {}, "counterexample": None}}})
    hashes = {side: contents.package_hash(name) for side, name in (("ref", question.ref), ("target", question.target))}
    pair = {
        **pair, "node": node, "checks": list(run.expected), "contents": {**hashes, "contract": None},
        "describe": {"dataflow": {"order": list(run.order)}}, "settings": {**run.settings, **settings},
    }  # fmt: skip
    path.write_text(json.dumps({"tests": tests, "envequiv": {"pairs": [pair]}, "exitcode": 1}))
    return path


@pytest.fixture
def counted(workshop, monkeypatch):
    """How often the suite was run by the session itself."""
    asked = []
    monkeypatch.setattr(session.suite, "judged", lambda *a, **k: asked.append(a) or toy_judge.judged(*a, **k))
    monkeypatch.syspath_prepend(str(workshop.top))
    return asked


def test_a_report_of_these_files_is_used(workshop, counted, tmp_path):
    workshop.begin(broken(GRAVITY))
    path = reported(tmp_path / "report.json", seed=5)
    assert workshop.run("--dry-run", "--report", str(path), "--engine", "model") == 0
    assert counted == [] and "  1. L2 velocity: L2-play-velocity" in workshop.said
    script = [uses(EDITOR, command="str_replace", path="port.py", old_str="0.0035", new_str="0.0025"), says("done")]
    assert workshop.mend(script, "--report", str(path)) == 0
    assert counted == [] and workshop.events("begin")[0]["question"]["seed"] == 5


@pytest.mark.parametrize(
    ("settings", "words", "why"),
    [
        ({}, (), "is about other files than these: the suite is run"),
        ({"levels": ["L2"]}, (), "holds L2 only: the suite is run"),
        ({}, ("--seed", "7"), "is of another profile, seed or contract: the suite is run"),
    ],
)
def test_a_report_that_does_not_hold_any_more_is_not(workshop, counted, tmp_path, settings, words, why):
    workshop.begin(broken(GRAVITY))
    path = reported(tmp_path / "report.json", **settings)
    if not settings and not words:
        workshop.begin(broken(GOAL))
    assert workshop.run("--dry-run", "--report", str(path), "--engine", "model", *words) == 0
    assert len(counted) == 1 and why in workshop.said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read: No such file or directory; write it with: pytest --envequiv ref=reference:Car"),
        ("{", "is no JSON report, or was cut off"),
        ('{"tests": []}', "no pair of environments was compared in it"),
        ('{"tests": [], "envequiv": {"pairs": [{"node": "x", "ref": "a", "target": "b"}]}}', "is about ref=a target=b"),
    ],
)  # fmt: skip
def test_a_report_of_another_pair_or_none_is_an_error(workshop, tmp_path, text, why):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    assert refused(workshop, "--report", str(path), "--engine", "offline").startswith(f"envequiv-repair: {path}: ")
    assert why in workshop.said


# -- a port from nothing ---------------------------------------------------------------------------------------------


@pytest.fixture
def empty(workshop, monkeypatch):
    """No port yet, and a reference whose interface is known."""
    (workshop.top / "port.py").unlink()
    workshop.repository.commit("no port")
    monkeypatch.setattr(stub, "interface", lambda reference, root: DECLARED)
    return workshop


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("translate",), "class Car(gymnasium.Env)"),
        (("verify", "--fast", "quick"), "quick.py"),
        (("specification", "--spec", "rules.md"), "The car rolls."),
    ],
)
def test_a_port_begins_as_a_stub_that_the_model_fills_in(empty, words, told):
    (empty.top / "rules.md").write_text("The car rolls.")
    empty.repository.write(quick="SPEED = 1\n")
    empty.repository.commit("more")
    assert empty.mend([MENDED, says("Written.")], "--init", *words) == 0, empty.said
    assert empty.port == PORT and empty.status == ""
    subjects = empty.repository.git("log", "--reverse", "--format=%s", "-2").splitlines()
    assert subjects == ["A stub of port", "L1 observation: Written."]
    (first,) = [call["system"] for call in empty.events("call") if "system" in call]
    assert told in json.dumps(first)


def test_what_was_begun_with_a_stub_goes_on_as_it_was_begun(empty):
    (empty.top / "rules.md").write_text("The car rolls.")
    empty.repository.commit("rules")
    words = ("--init", "specification", "--spec", "rules.md")
    assert empty.mend([uses("give_up", reason="I do not know yet.")] * 9, *words) == 1
    assert not (empty.top / "port.py").exists() and "class State" in empty.report["diff"]
    server = empty.server([MENDED, says("Written.")])
    assert empty.run("--resume", "--base-url", server.url) == 0, empty.said
    assert empty.port == PORT and "The car rolls." in json.dumps(server.requests[0]["system"])


def test_a_stub_of_a_real_reference(workshop, monkeypatch):
    """Its interface is looked at in a process of its own."""
    (workshop.top / "port.py").unlink()
    workshop.repository.commit("no port")
    monkeypatch.setattr(aside, "ask", toy_judge.source)
    assert workshop.mend([MENDED, says("Written.")], "--init", "translate") == 0, workshop.said
    assert "position: jax.Array  # float64" in workshop.repository.git("show", "HEAD~1:port.py")


def test_a_stub_in_rust_is_a_module_and_a_crate(workshop, monkeypatch):
    """Whoever writes it is told what may be changed and what Rust asks for; its first commit holds all of it."""
    words, pair = ("--init", "translate", "--language", "rust"), ("ref=reference:Car", "target=fresh")
    monkeypatch.setattr(crates, "lacking", lambda: "maturin is not installed here: pip install maturin")
    assert "--language rust: maturin is not installed" in refused(workshop, *words, pair=pair)
    monkeypatch.setattr(crates, "lacking", lambda: "")
    monkeypatch.setattr(stub_rust, "lock", lambda crate: (crate / "Cargo.lock").write_text("version = 4\n"))
    assert workshop.run("--dry-run", *words, pair=pair) == 0
    listed = "fresh.py, fresh_rs/src/**/*.rs, fresh_rs/Cargo.toml, fresh_rs/Cargo.lock, fresh_rs/pyproject.toml"
    assert f"may change  {listed}" in workshop.said and "# What the target must be: Rust" in workshop.said
    assert not (workshop.top / "fresh.py").exists()
    server = workshop.server([uses("give_up", reason="I do not know yet.")] * 9)
    assert workshop.run(*words, "--base-url", server.url, pair=pair) == 1, workshop.said
    (branch,) = workshop.branches
    tree = workshop.repository.git("ls-tree", "-r", "--name-only", branch, "fresh.py", "fresh_rs").split()
    assert tree == [
        "fresh.py",
        *(f"fresh_rs/{n}" for n in ("Cargo.lock", "Cargo.toml", "pyproject.toml", "src/lib.rs")),
    ]
    assert "position: f64" in workshop.repository.git("show", f"{branch}:fresh_rs/src/lib.rs")
    (workshop.top / "fresh_rs").mkdir()
    (workshop.top / "fresh_rs" / "notes.txt").write_text("mine")
    assert workshop.run(*words, pair=pair) == 2 and "its crate in fresh_rs, which exists already" in workshop.said


def test_a_reference_that_does_not_open_leaves_nothing_behind(workshop):
    pair = ("ref=nowhere:Car", "target=fresh")
    assert "does not open" in refused(workshop, "--init", "translate", pair=pair)


# -- another agent ---------------------------------------------------------------------------------------------------

AGENT = """
import pathlib, sys
prompt = pathlib.Path(sys.argv[1]).read_text()
assert "L2 velocity" in prompt and "0.0035" in prompt
port = pathlib.Path("port.py")
port.write_text(port.read_text().replace("0.0035", "0.0025"))
"""


@pytest.mark.parametrize("cheats", [False, True])
def test_another_agent_meets_the_same_gate(workshop, tmp_path, cheats):
    workshop.begin(broken(GRAVITY))
    agent = tmp_path / "agent.py"
    agent.write_text(AGENT + "pathlib.Path('conftest.py').write_text('')\n" * cheats)
    command = f"{sys.executable} {agent} {{prompt_file}}"
    assert workshop.run("--agent-command", command, "--tries", "1") == int(cheats), workshop.said
    if cheats:
        assert "conftest.py was added: a test, which may not be edited" in " ".join(workshop.said.split())
        assert workshop.port == broken(GRAVITY) and workshop.status == ""
    else:
        assert workshop.port == PORT and workshop.report["spent"]["calls"] == 0


# -- what is refused -------------------------------------------------------------------------------------------------


def refused(workshop, *words, pair=None) -> str:
    """The one line that says why it could not begin. Nothing is left behind."""
    before = files(workshop.top / ".git") if (workshop.top / ".git").exists() else {}
    assert workshop.run(*words, **({"pair": pair} if pair else {})) == 2, workshop.said
    assert not (workshop.top / ".envequiv").exists()
    assert workshop.said.startswith("envequiv-repair: ") and workshop.said.count("\n") == 1, workshop.said
    after = files(workshop.top / ".git") if before else {}
    assert {n for n in after if n.startswith("refs/")} == {n for n in before if n.startswith("refs/")}
    return workshop.said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--init", "verify"), "--init verify needs --fast NAME"),
        (("--init", "specification"), "--init specification needs --spec FILE"),
        (("--init", "specification", "--spec", "none.md"), "none.md: there is no such file"),
        (("--init", "translate", "--engine", "offline"), "no small edit mends that"),
        (("--init", "translate"), "target=port exists already (port.py): leave --init out to repair it"),
        (("--fast", "quick"), "--fast goes with --init verify"),
        (("--language", "rust"), "--language goes with --init"),
        (("--spec", "rules.md"), "--spec goes with --init specification"),
        (("--dollars", "0"), "--dollars 0: it must be more than nothing"),
        (("--tries", "-1"), "--tries -1: it must be more than nothing"),
        (("--model", "gpt-9", "--engine", "model"), "--price gpt-9="),
        (("--model", "gpt-9", "--dry-run"), "--price gpt-9="),
        (("--price", "x"), "x"),
        (("--resume",), "there is nothing to go on from"),
        (("--resume", "--seed", "3"), "--seed would change that"),
        (("--resume", "--dry-run"), "--dry-run does not go with --resume"),
        (("--resume", "--report", "r.json"), "do not go together"),
        (("--replay", "none.jsonl"), "none.jsonl"),
        (("--contract", "none.toml"), "none.toml: there is no such file"),
        (("--agent-command", "agent"), "it must hold {prompt_file}"),
        (("--agent-command", "no-such-agent {prompt_file}"), "there is no program 'no-such-agent' here"),
        (("--files", "../other.py", "--engine", "offline"), "'../other.py' is not below"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(workshop, words, why):
    assert why in refused(workshop, *words)


@pytest.mark.parametrize("word", ["reference:Car", "reff=x", "ref="])
def test_a_pair_is_named_by_ref_and_target(workshop, capsys, word):
    with pytest.raises(SystemExit) as end:
        cli.main([word, "target=port"])
    assert end.value.code == 2 and "write ref=NAME target=NAME" in capsys.readouterr().err


def test_one_side_twice_is_no_pair(workshop):
    assert "one ref=NAME and one target=NAME are needed" in refused(workshop, pair=("target=port", "target=port"))


def test_no_key_is_said_and_what_needs_none_is_done(workshop, monkeypatch):
    workshop.begin(broken(GRAVITY))
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(workshop.top.parent))
    assert "set ANTHROPIC_API_KEY" in refused(workshop, "--engine", "model")
    fresh = ("ref=reference:Car", "target=fresh")
    assert "set ANTHROPIC_API_KEY" in refused(workshop, "--init", "translate", pair=fresh)
    monkeypatch.setattr(session, "Offline", Nothing)
    assert workshop.run() == 1
    assert "only the offline engine is used: no key for the API" in workshop.said
    assert workshop.report["groups"][0]["gave_up"] == ["offline: nothing was found"]


class Nothing:
    name = "offline"

    def begin(self, question, root):
        pass

    def close(self):
        pass

    def attempt(self, case):
        return session.loop.Attempt(False, "nothing was found", gave_up=True)


def test_an_unknown_module_is_said(workshop):
    said = refused(workshop, "--engine", "offline", pair=("ref=reference:Car", "target=prot"))
    assert "there is no module 'prot'" in said
    said = refused(workshop, "--engine", "offline", pair=("ref=reference:Car", "target=gymnax:CartPole-v1"))
    assert "copy its source into your repository" in said


def test_a_repository_with_a_commit_is_needed(workshop):
    subprocess.run(["rm", "-rf", str(workshop.top / ".git")], check=True)
    assert "git init && git add -A && git commit" in refused(workshop, "--engine", "offline")
    assert "git init && git add -A && git commit" in refused(workshop, "--engine", "offline", "--dry-run")
    workshop.repository.git("init", "--quiet")
    assert "has no commit yet: git add -A && git commit" in refused(workshop, "--engine", "offline")


def test_a_key_that_is_refused_ends_it(workshop):
    from messages_server import fails

    workshop.begin(broken(GRAVITY))
    assert workshop.mend([fails(401, "authentication_error")]) == 1
    assert "NOT REPAIRED: the model cannot be used: authentication_error (401)" in workshop.said
    assert workshop.port == broken(GRAVITY)

"""Certificates: left by a full green run and by nothing else, and refused for anything that is not as it was."""

from __future__ import annotations

import datetime
import errno
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from ports import drift
from test_plugin import outcomes, said

import pytest_envequiv
from pytest_envequiv import CertificateError, contents, require_certificate
from pytest_envequiv.report import certificate, document
from pytest_envequiv.report.session import Findings
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Settings, Verdict

pytest_plugins = "pytester"

HERE = Path(__file__).parent
CHECKS = [
    Check("L1-bounds-position", "L1", "bounds", "position"),
    Check("L3-lockstep-reward", "L3", "lockstep", "reward"),
]
NAMES = {"ref": "reference", "target": "mine.port"}
DEFAULT = ".envequiv/certificates/reference__mine_port.json"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a pair's files, to which Python and the test have gone."""
    (tmp_path / "mine").mkdir()
    for name, text in (("reference", "A = 1\n"), ("mine/port", "import numpy\n"), ("mine/other", ""), ("third", "")):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def run(pytester, fake_judge, here, monkeypatch):
    """pytest with the fake judge, in the folder of the pair."""
    monkeypatch.chdir(here)
    return lambda line: pytester.runpytest_subprocess("--envequiv", *line.split())


PAIR = "ref=reference target=mine.port"


def line_of(result) -> str:
    """What the summary says of the certificate."""
    return re.findall(r"^(?:no )?certificate: .*", result.stdout.str(), re.MULTILINE)[0]


# --- when one is written ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["", "-n 2", "-p no:terminal", "-p no:cacheprovider -v"])
def test_a_full_green_run_leaves_one(run, here, more):
    result = run(f"{PAIR} {more}")
    assert result.ret == 0
    if "terminal" not in more:
        assert line_of(result) == f"certificate: {DEFAULT}"
        assert "EQUAL overall: 4 EQUAL" in said(result)
    found = require_certificate(**NAMES)
    assert found.checks == dict.fromkeys(
        ["L1-bounds-position", "L2-boundary-position", "L2-boundary-velocity", "L3-lockstep-reward"], EQUAL
    )
    assert found.coverage == {"transitions": 4000, "episodes": 16, "terminations": 12, "truncations": 4}
    assert not list(here.glob("**/*.part"))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("-k velocity", "3 of 4 checks were not run"),
        ("-m cheap", "1 of 4 checks was not run"),
        ("--deselect envequiv::L1-bounds-position", "1 of 4 checks was not run"),
        ("envequiv::L1-bounds-position", "3 of 4 checks were not run"),
        ("--envequiv-levels=L1,L3", "levels L1,L3 only"),
        ("--maxfail=1 -p skips", "1 of 4 checks was not run"),
    ],
)
def test_a_part_leaves_none(run, here, more, why):
    (here / "skips.py").write_text(
        "def pytest_runtest_setup(item):\n    'L3' in item.name and __import__('pytest').skip()\n"
    )
    result = run(f"{PAIR} {more}")
    assert result.ret == 0 and line_of(result) == f"no certificate: {why}"
    assert not (here / DEFAULT).exists()


@pytest.mark.parametrize(
    ("target", "more", "why"),
    [
        ("bounce", "", "2 of 4 checks are DIFFERENT"),
        ("bounce", "-n 2", "2 of 4 checks are DIFFERENT"),
        ("unsure", "", "3 of 4 checks are INCONCLUSIVE"),
        ("exit-reward", "", "1 of 4 checks is DIFFERENT"),
        ("exit-opening", "", "the pair did not open"),
        ("exit-opening", "-n 2", "the pair did not open"),
        ("nowhere", "", "nowhere: there is no module 'nowhere' here"),
    ],
)
def test_what_is_not_green_leaves_none(run, here, target, more, why):
    result = run(f"ref=reference target={target} {more}")
    assert line_of(result) == f"no certificate: {why}"
    assert not (here / ".envequiv" / "certificates").exists()


def test_last_failed_leaves_none(run, here):
    (here / "bounce.py").write_text("")
    run("ref=reference target=bounce")
    assert line_of(run("ref=reference target=bounce --lf")).startswith(
        "no certificate: 2 of 4 checks were not run; 2 of"
    )


def test_stopping_at_the_first_leaves_none(run):
    assert line_of(run("ref=reference target=bounce -x")) == (
        "no certificate: 2 of 4 checks were not run; 1 of 4 checks is DIFFERENT"
    )


def test_nothing_is_said_of_certificates_where_nothing_was_judged(run, here):
    for line in ("--collect-only", "--envequiv-propose=map.toml"):
        assert "certificate" not in said(run(f"{PAIR} {line}"))
    (here / "wall.json").write_text('{"envequiv": 1, "still": false}')
    assert "certificate" not in said(run(f"{PAIR} --envequiv-replay=wall.json"))


def test_what_is_accepted_stands_in_it(run, here):
    (here / "lenient.py").write_text("")
    assert line_of(run("ref=reference target=lenient")).startswith("certificate: ")
    found = require_certificate("reference", "lenient")
    assert [a["check"] for a in found.accepted] == ["L2-boundary-position", "L2-boundary-velocity"]
    assert found.accepted[0] == {
        "check": "L2-boundary-position",
        "word": DIFFERENT,
        "until": "2999-01-31",
        "note": "accepted until 2999-01-31: known",
    }
    assert found.checks["L2-boundary-position"] == "DIFFERENT, accepted"


@pytest.mark.parametrize("more", ["", "-n 2"])
def test_a_target_that_changes_meanwhile_leaves_none(run, here, more):
    (here / "conftest.py").write_text(
        "def pytest_runtest_logreport(report):\n    if report.when == 'call': open('mine/port.py', 'a').write('#')\n"
    )
    result = run(f"{PAIR} {more} -p conftest")
    assert result.ret == 0
    assert line_of(result) == "no certificate: the target's files changed while it was judged"


def test_a_certificate_that_cannot_be_written_costs_no_verdict(run, here):
    (here / ".envequiv").mkdir()
    (here / ".envequiv" / "certificates").write_text("in the way")
    result = run(PAIR)
    assert outcomes(result) == (0, "4 passed")
    assert line_of(result) == f"no certificate: {DEFAULT} could not be written: File exists"


def test_a_path_of_ones_own(run, here):
    assert line_of(run(f"{PAIR} --envequiv-certificate=deep/mine.json")) == "certificate: deep/mine.json"
    assert not (here / DEFAULT).exists()
    assert require_certificate(**NAMES, path="deep/mine.json").profile == "quick"
    result = run(f"{PAIR} --envequiv-certificate=reference.py/mine.json")
    assert result.ret == 4 and "--envequiv-certificate: cannot write to" in said(result)


def test_a_marked_pair_leaves_one_too(run, here):
    (here / "test_it.py").write_text(
        "import pytest\n@pytest.mark.envequiv(ref='reference', target='mine.port')\ndef test_port(): pass\n"
        "@pytest.mark.envequiv(ref='reference', target='third', levels=['L1'])\ndef test_third(): pass\n"
    )
    text = said(run("ref=reference target=mine.other test_it.py"))
    assert text.count("\ncertificate: ") == 2 and text.count("no certificate: levels L1 only") == 1
    assert require_certificate(**NAMES)
    result = run("ref=reference target=mine.other --envequiv-certificate=own.json test_it.py")
    assert result.ret == 0 and certificate.load(here / "own.json").target == "mine.other"


# --- the end of a run, without one -----------------------------------------------------------------------------------


def concluded(words=(EQUAL, EQUAL), path=DEFAULT, doubted=(), evidence=None, now=None, **settings) -> str:
    """What is said at the end of a run over the pair in the current folder."""
    told = Settings(**{**NAMES, **settings})
    pair_of = contents.of_pair(told.ref, told.target)
    contract = Path(told.contract).read_text() if told.contract else ""
    bound = contents.bound(pair_of, told.as_json(), contract, ["numpy"])
    pair = document.pair_document("envequiv", told, CHECKS, (), {}, False, bound)
    verdicts = [Verdict(c, w, "", evidence=evidence or {}) for c, w in zip(CHECKS, words, strict=True)]
    return certificate.conclude(pair, verdicts, set(doubted), lambda: now or pair_of, Path(path), Path.cwd())


def test_everything_is_told(here):
    (here / "rules.toml").write_text('[pair]\nref = "reference"\n')
    target = contents.package_hash("mine.port")
    power = here / ".envequiv" / "power" / "reference__mine_port.json"
    power.parent.mkdir(parents=True)
    power.write_text(json.dumps({"kill_rate": 0.995, "detectable": 200, "killed": 199, "target_hash": target}))
    evidence = {"transitions": 5, "branch_sides": 12, "branch_covered": 11, "detectable_effect": "0.2 in a probability"}
    assert concluded(
        evidence=evidence, contract="rules.toml", profile="thorough", seed=7, strict=True, isolate=True
    ) == (f"certificate: {DEFAULT}")
    found = certificate.load(here / DEFAULT)
    assert (found.profile, found.seed, found.strict, found.isolate) == ("thorough", 7, True, True)
    assert found.alpha == 1e-3
    assert found.coverage["transitions"] == 10
    assert (found.coverage["branch_sides"], found.coverage["branch_covered"]) == (12, 11)
    assert found.effects == {"0.2 in a probability": [c.id for c in CHECKS]}
    assert found.power == {"kill_rate": 0.995, "detectable": 200, "killed": 199}
    assert found.contract is not None and found.contract["path"] == "../../rules.toml"
    assert found.libraries == {"numpy": metadata.version("numpy")}
    assert found.versions["pytest-envequiv"] == metadata.version("pytest-envequiv")
    assert set(found.contents["target"]["files"]) == {"mine/port.py", "mine/other.py"}
    assert found.contents["target"]["sha256"] == target
    assert abs(datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(found.date)).total_seconds() < 60
    assert str(here) not in (here / DEFAULT).read_text()


@pytest.mark.parametrize("told", ["[]", "{", '{"kill_rate": 1.0}', '{"kill_rate": 1.0, "target_hash": "another"}'])
def test_a_kill_rate_of_something_else_is_not_taken(here, told):
    power = here / ".envequiv" / "power" / "reference__mine_port.json"
    power.parent.mkdir(parents=True)
    power.write_text(told)
    concluded()
    assert certificate.load(here / DEFAULT).power is None


def test_a_full_disk_leaves_no_half_file(here, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    concluded()
    before = (here / DEFAULT).read_text()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        assert concluded(seed=3) == f"no certificate: {DEFAULT} could not be written: No space left on device"
    assert (here / DEFAULT).read_text() == before
    assert os.listdir((here / DEFAULT).parent) == [Path(DEFAULT).name]


def test_equal_when_tried_again_is_not_enough(here):
    assert concluded(doubted=[CHECKS[0].id]) == "no certificate: 1 of 2 checks is EQUAL only when tried again"
    pair = document.pair_document("envequiv", Settings(**NAMES), CHECKS, (), {}, False, {"ref": "a", "target": "b"})
    findings = Findings()
    for word in (DIFFERENT, EQUAL):
        findings.add("envequiv::x", pair, document.test_document(pair, Verdict(CHECKS[0], word, "")))
    assert findings.doubted == {"envequiv": {CHECKS[0].id}}


def test_processes_that_saw_other_files_leave_none(here):
    findings = Findings()
    for check, target in zip(CHECKS, ("one", "another"), strict=True):
        sealed = {"ref": "a", "target": target, "contract": None, "libraries": {}}
        pair = document.pair_document("envequiv", Settings(**NAMES), CHECKS, (), {}, False, sealed)
        findings.add(f"envequiv::{check.id}", pair, document.test_document(pair, Verdict(check, EQUAL, "")))
    findings.certify(lambda settings: contents.of_pair(settings.ref, settings.target), here, None)
    assert findings.certificates == {"envequiv": "no certificate: files of the pair changed while it was judged"}
    assert not (here / DEFAULT).exists()


def test_a_difference_withdraws_the_certificate_of_the_same_files(here):
    concluded()
    assert "withdrawn" not in concluded((EQUAL, INCONCLUSIVE))
    assert (here / DEFAULT).exists()
    assert concluded((EQUAL, DIFFERENT), seed=8).endswith(f"{DEFAULT} said EQUAL of the same files and is withdrawn")
    assert not (here / DEFAULT).exists()


@pytest.mark.parametrize("other", ["target", "contract", "strict"])
def test_a_difference_in_something_else_withdraws_nothing(here, other):
    concluded()
    before = (here / DEFAULT).read_text()
    (here / "rules.toml").write_text("")
    if other == "target":
        (here / "mine" / "port.py").write_text("a bug")
    settings = {"contract": {"contract": "rules.toml"}, "strict": {"strict": True}}.get(other, {})
    assert concluded((EQUAL, DIFFERENT), **settings) == "no certificate: 1 of 2 checks is DIFFERENT"
    assert (here / DEFAULT).read_text() == before


# --- requiring one ---------------------------------------------------------------------------------------------------


def refusal(**asked) -> str:
    with pytest.raises(CertificateError) as raised:
        require_certificate(**{**NAMES, **asked})
    assert "\n" not in str(raised.value)
    what, _, command = str(raised.value).partition("; make a new one with: ")
    assert command.startswith(("pytest --envequiv ", "envequiv-power "))
    return what


def test_a_pair_without_one(here):
    assert refusal() == f"there is no certificate {DEFAULT}"


def test_the_data_comes_back(here):
    concluded(seed=5)
    found = require_certificate(**NAMES, profile="quick", max_age=datetime.timedelta(hours=1))
    assert isinstance(found, pytest_envequiv.Certificate) and found.seed == 5


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("mine/port.py", "import numpy  # only a comment\n", "the target changed since: mine/port.py changed"),
        ("mine/other.py", None, "the target changed since: mine/other.py is gone"),
        ("mine/data.csv", "1\n", "the target changed since: mine/data.csv is new"),
        ("reference.py", "A = 2\n", "the reference changed since: reference.py changed"),
        ("reference.py", None, "no module 'reference'"),
        ("rules.toml", "[pair]\n", "its contract rules.toml changed since"),
        ("rules.toml", None, "its contract rules.toml cannot be read"),
    ],
)
def test_what_changed_is_named(here, file, text, told):
    (here / "rules.toml").write_text("")
    concluded(contract="rules.toml")
    assert require_certificate(**NAMES)
    (here / file).unlink(missing_ok=True)
    if text is not None:
        (here / file).write_text(text)
    assert told in refusal()


def test_what_does_not_belong_to_it_may_change(here):
    concluded()
    (here / "third.py").write_text("changed")
    (here / "mine" / ".cache").mkdir()
    (here / "mine" / ".cache" / "x").write_text("")
    os.utime(here / "mine" / "port.py", (1, 1))
    assert require_certificate(**NAMES)


def test_several_changes_are_counted(here):
    concluded()
    for name in ("port", "other", "new"):
        (here / "mine" / f"{name}.py").write_text("changed")
    assert refusal().endswith("mine/other.py changed and 2 more")


@pytest.mark.parametrize(("here_is", "told"), [("0.1", "numpy {}, here is 0.1"), (None, "numpy {}, here is none")])
def test_another_version_of_a_library(here, monkeypatch, here_is, told):
    concluded()
    was = metadata.version("numpy")
    monkeypatch.setattr(contents, "version", lambda name: here_is)
    assert refusal().endswith("it was made with " + told.format(was))


def test_of_another_pair(here):
    concluded()
    os.replace(here / DEFAULT, here / "held.json")
    told = refusal(target="third", path="held.json")
    assert told == "held.json is about target=mine.port against ref=reference, not about this pair"
    assert "not about this pair" in refusal(ref="third", path="held.json")


def test_what_it_does_not_vouch_for(here):
    concluded(profile="standard")
    assert require_certificate(**NAMES, profile="quick")
    assert refusal(profile="thorough").endswith("has the profile standard, thorough is required")
    assert refusal(min_kill_rate=0.5).endswith("has no kill rate, 0.5 is required")
    assert "older than -1 day" in refusal(max_age=datetime.timedelta(days=-1))


def test_a_kill_rate_that_is_too_low(here):
    power = here / ".envequiv" / "power" / "reference__mine_port.json"
    power.parent.mkdir(parents=True)
    power.write_text(json.dumps({"kill_rate": 0.9, "target_hash": contents.package_hash("mine.port")}))
    concluded()
    assert require_certificate(**NAMES, min_kill_rate=0.9)
    assert refusal(min_kill_rate=0.95).endswith("has a kill rate of 0.9, 0.95 is required")


def test_an_accepted_difference_has_its_day(here):
    evidence = {"accepted": DIFFERENT, "accepted_until": datetime.date.today().isoformat()}
    told = Verdict(CHECKS[0], EQUAL, "", notes=("known",), evidence=evidence)
    concluded()
    found = certificate.load(here / DEFAULT)
    for days, refused in ((0, False), (-1, True)):
        until = (datetime.date.today() + datetime.timedelta(days=days)).isoformat()
        accepted = {**certificate.acceptance(told), "until": until}
        certificate.save(certificate.Certificate(**{**vars(found), "accepted": [accepted]}), here / DEFAULT)
        if refused:
            assert refusal().endswith(f"lets {CHECKS[0].id} pass, which the contract accepted until {until}")
        else:
            assert require_certificate(**NAMES).accepted == [accepted]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda text: text[: len(text) // 2], "is not whole"),
        (lambda text: "", "is not whole"),
        (lambda text: "[1]", "is not a certificate"),
        (lambda text: "{}", "is not a certificate"),
        (lambda text: text.replace('"profile": "quick"', '"profile": "thorough"'), "was changed after it was written"),
        (lambda text: text.replace('"envequiv_certificate": 1', '"envequiv_certificate": 99'), "has format 99"),
        (lambda text: '{"envequiv_certificate": 1}', "was changed after it was written"),
    ],
)
def test_a_file_that_was_cut_or_changed(here, edit, told):
    concluded()
    path = here / DEFAULT
    edited = edit(path.read_text())
    assert edited != path.read_text()
    path.write_text(edited)
    assert told in refusal()


def test_a_folder_in_its_place(here):
    (here / DEFAULT).mkdir(parents=True)
    assert "cannot be read: Is a directory" in refusal()


def test_a_level_that_was_not_judged_is_said(here):
    concluded(levels=("L1", "L2", "L3", "L4"))
    assert require_certificate(**NAMES, levels=["L4"]).levels == ["L1", "L2", "L3", "L4"]


def test_without_what_learning_needs_a_run_is_full_without_l4(here, monkeypatch):
    assert concluded(levels=("L1", "L2", "L3")) == "no certificate: levels L1,L2,L3 only"
    monkeypatch.setitem(sys.modules, "optax", None)
    assert concluded(levels=("L1", "L2", "L3")) == f"certificate: {DEFAULT}"
    assert require_certificate(**NAMES).levels == ["L1", "L2", "L3"]
    assert refusal(levels=["L2", "L4"]).endswith("is about L1, L2, L3, L4 is required")


@pytest.mark.parametrize("asked", [{"profile": "quik"}, {"min_kill_rate": 95}, {"levels": ["L5"]}])
def test_what_can_never_be_met_is_a_mistake(here, asked):
    with pytest.raises(ValueError, match=str(*asked.values()).strip("[]'")):
        require_certificate(**NAMES, **asked)


def test_the_reference_may_lie_in_the_current_folder_only(here, monkeypatch):
    concluded()
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in (str(here), "")])
    (here / "elsewhere").mkdir()
    assert require_certificate(**NAMES) and str(here) not in sys.path


def test_the_command_of_the_message_makes_it(run, here):
    (here / "rules.toml").write_text("")
    run(f"{PAIR} --envequiv-strict --envequiv-contract=rules.toml --envequiv-certificate=own.json")
    (here / "rules.toml").write_text("# other rules\n")
    for asked in ({"profile": "standard", "path": "own.json"}, {}, {"ref": "third"}):
        with pytest.raises(CertificateError) as raised:
            require_certificate(**{**NAMES, **asked})
        command = shlex.split(str(raised.value).partition("; make a new one with: ")[2])
        assert command[0] == "pytest"
        made = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
        assert require_certificate(**{**NAMES, **asked})
    assert certificate.load(Path("own.json")).strict and certificate.load(Path("own.json")).contract is not None


def test_requiring_one_is_light_and_runs_neither_side(here):
    concluded()
    (here / "mine" / "port.py").write_text("raise RuntimeError('this was run')\n")
    (here / "mine" / "__init__.py").write_text("raise RuntimeError('this was run')\n")
    concluded()
    (here / "train.py").write_text(
        "import sys\nfrom pytest_envequiv import require_certificate\n"
        "require_certificate('reference', 'mine.port')\n"
        "assert not {'jax', 'pytest', 'numpy', 'mine', 'reference'} & set(sys.modules), sorted(sys.modules)\n"
    )
    made = subprocess.run([sys.executable, "train.py"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


# --- with the real judge ---------------------------------------------------------------------------------------------


def test_a_real_pair(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    command = [sys.executable, "-m", "pytest", "-q", "--envequiv", f"ref={drift.DRIFT}", "target=ports.drift:port"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout
    found = require_certificate(drift.DRIFT, "ports.drift:port")
    assert {"gymnasium/core.py", "ports/drift.py"} <= set(found.contents["ref"]["files"])
    assert {"gymnasium", "jax", "jaxlib", "numpy"} <= set(found.libraries)
    assert found.coverage["terminations"] > 0 and found.coverage["truncations"] > 0 and found.effects
    assert set(found.checks.values()) == {EQUAL}

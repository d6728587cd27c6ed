"""The pytest side, with a made-up judge (fake_judge.py): options, collection, outcomes, crashes, reports.

Each test runs pytest in a fresh folder and a process of its own, as a user would.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pytest_envequiv.verdict import EQUAL, Settings, default_levels
from pytest_envequiv.worker import Pair, Worker

pytest_plugins = "pytester"
pytestmark = pytest.mark.usefixtures("fake_judge")

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE.parent / "docs" / "report.schema.json").read_text())

IDS = ["L1-bounds-position", "L2-boundary-position", "L2-boundary-velocity", "L3-lockstep-reward"]
ALL = ",".join(default_levels())


def said(result) -> str:
    return result.stdout.str() + result.stderr.str()


def ids_of(result) -> dict[str, str]:
    """What -v shows of each check of the pair."""
    return dict(re.findall(r"^envequiv::(\S+) ([A-Z]+)", result.stdout.str(), re.MULTILINE))


def outcomes(result) -> tuple[int, str]:
    """The exit code and the last line, without its time."""
    return int(result.ret), re.sub(r" in [\d.]+s.*|^=+ ", "", result.outlines[-1]).strip("= ")


# --- words and outcomes ----------------------------------------------------------------------------------------------


def test_an_equal_pair_passes_in_an_empty_folder(run):
    result = run("--envequiv ref=A target=equal -v")
    assert ids_of(result) == dict.fromkeys(IDS, "PASSED")
    assert outcomes(result) == (0, "4 passed")
    result.stdout.fnmatch_lines(
        [
            f"envequiv: ref A, target equal, levels {ALL}, profile quick, seed 0",
            "*= envequiv: equal against A =*",
            "level  EQUAL  DIFFERENT  INCONCLUSIVE  transitions  episodes  terminations  truncations  seconds",
            "L2         2          0             0        2,000         8             6            2 *",
            "note: the target merges terminated and truncated into done",
            "EQUAL overall: 4 EQUAL",
        ]
    )
    assert said(result).count("note:") == 1


def test_a_difference_is_told_in_short_and_followers_in_one_line(run):
    result = run("--envequiv ref=A target=bounce")
    assert outcomes(result) == (1, "2 failed, 2 passed")
    result.stdout.fnmatch_lines(
        [
            "DIFFERENT, follows L2-boundary-velocity: position differs",
            "DIFFERENT: velocity: expected 0.0, actual -0.07",
            "  field * velocity[[]0[]]",
            "  where * episode 2, step 5, from boundary",
            "  expected * 0.0",
            "  actual * -0.07",
            "  error * 0.07, tolerance 4.2e-09 (64 times what one ulp *",
            "  action * action = [[]-1.0[]]",
            "  state before * position = -1.2, velocity = -0.07",
            "  also differ * L2-boundary-position",
            "  replay * pytest --envequiv-replay .envequiv/wall.json",
            "DIFFERENT L2-boundary-velocity: velocity: *",
            "  followed by   L2-boundary-position",
            "DIFFERENT overall: 2 EQUAL, 2 DIFFERENT",
        ]
    )
    assert "Traceback" not in said(result)
    assert ".py:" not in said(result)


def test_inconclusive_is_its_own_word_and_never_green(run):
    result = run("--envequiv ref=A target=unsure -v")
    assert ids_of(result) == {IDS[0]: "PASSED", **dict.fromkeys(IDS[1:], "INCONCLUSIVE")}
    assert outcomes(result) == (1, "1 passed, 3 inconclusive")
    result.stdout.fnmatch_lines([f"INCONCLUSIVE {', '.join(IDS[1:])}: no field map*", "INCONCLUSIVE overall: *"])


# --- selecting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("-k vel", IDS[2:3]),
        ("-k boundary", IDS[1:3]),
        ("-m L1", IDS[:1]),
        ("-m costly", IDS[3:]),
        ("envequiv::L2-boundary-velocity", IDS[2:3]),
        ("--envequiv-levels L3,L1", [IDS[0], IDS[3]]),
        ("--deselect envequiv::L1-bounds-position", IDS[1:]),
    ],
)
def test_selecting(run, options, expected):
    result = run(f"--envequiv ref=A target=equal --strict-markers -v {options}")
    assert result.ret == 0
    assert list(ids_of(result)) == expected
    narrowed = "levels L1,L3 only" if "levels" in options else f"{len(expected)} of its 4 checks were run"
    assert f"EQUAL as far as was checked ({narrowed}): {len(expected)} EQUAL" in said(result)


def test_without_what_learning_needs_the_rest_is_all_there_is(run, pytester):
    pytester.makeconftest("import sys; sys.modules['optax'] = None")
    result = run("--envequiv ref=A target=equal")
    assert result.ret == 0
    assert "levels L1,L2,L3, profile quick" in said(result) and "EQUAL overall: 4 EQUAL" in said(result)
    result = run("--envequiv ref=A target=equal --envequiv-levels=L1,L2,L3,L4")
    assert "levels L1,L2,L3,L4, profile quick" in said(result)


def test_without_l4_a_run_is_not_whole(run):
    result = run("--envequiv ref=A target=equal --envequiv-levels=L1,L2,L3")
    assert result.ret == 0 and "EQUAL as far as was checked (levels L1,L2,L3 only): 4 EQUAL" in said(result)


def test_an_unknown_id_names_the_nearest(run):
    result = run("--envequiv ref=A target=equal envequiv::L2-boundary-velocty")
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        ["envequiv::L2-boundary-velocty: no check of that name; did you mean envequiv::L2-boundary-velocity?"]
    )


def test_an_id_without_a_pair_says_what_is_missing(run):
    result = run("envequiv::L2-boundary-velocity")
    assert result.ret == 4
    assert "name its pair too: --envequiv ref=NAME target=NAME" in said(result)


def test_stop_at_the_first(run):
    assert outcomes(run("--envequiv ref=A target=bounce -x"))[1].startswith("1 failed, 1 passed")


@pytest.mark.parametrize("more", ["", "-n 2"])
def test_last_failed_runs_only_what_failed(run, more):
    run("--envequiv ref=A target=bounce")
    assert outcomes(run(f"--envequiv ref=A target=bounce --lf {more}"))[1] in ("2 failed", "2 failed, 2 deselected")


def test_failed_first(run):
    run("--envequiv ref=A target=bounce")
    assert list(ids_of(run("--envequiv ref=A target=bounce --ff -v"))) == [*IDS[1:3], IDS[0], IDS[3]]


def test_last_failed_counts_inconclusive(run):
    run("--envequiv ref=A target=unsure")
    assert outcomes(run("--envequiv ref=A target=unsure --lf")) == (1, "1 deselected, 3 inconclusive")


def test_collect_only_lists_ids(run):
    result = run("--envequiv ref=A target=equal --collect-only -q")
    assert result.ret == 0
    assert result.outlines[:4] == [f"envequiv::{name}" for name in IDS]


def test_with_other_tests(run, pytester):
    pytester.makepyfile("def test_other(): pass\ndef test_vel(): assert 0")
    assert outcomes(run("--envequiv ref=A target=equal")) == (0, "4 passed")
    assert outcomes(run("--envequiv ref=A target=equal .")) == (1, "1 failed, 5 passed")
    result = run("--envequiv ref=A target=equal envequiv::L2-boundary-velocity test_with_other_tests.py::test_other")
    assert outcomes(result) == (0, "2 passed")
    assert outcomes(run()) == (1, "1 failed, 1 passed")


def test_in_a_subdirectory(run, pytester):
    pytester.makeini("[pytest]")
    folder = pytester.mkdir("sub")
    os.chdir(folder)
    result = run("--envequiv ref=A target=bounce")
    assert outcomes(result) == (1, "2 failed, 2 passed")
    assert (folder / ".envequiv" / "wall.json").is_file()
    assert "../envequiv::L2-boundary-velocity" in said(result)  # as pytest shows it, and takes it back:
    assert outcomes(run("--envequiv ref=A target=bounce ../envequiv::L2-boundary-velocity")) == (1, "1 failed")


def test_without_the_plugin_pytest_knows_nothing_of_it(run, pytester):
    pytester.makepyfile("def test_other(): pass")
    assert outcomes(run("-p no:envequiv")) == (0, "1 passed")
    result = run("-p no:envequiv --envequiv ref=A target=equal")
    assert result.ret == 4
    assert "unrecognized arguments: --envequiv" in said(result)


def test_pytest_imports_no_backend(run, pytester):
    pytester.makeconftest(
        "import sys\n"
        "def pytest_unconfigure(): print('heavy:', {'jax', 'numpy', 'gymnasium', 'scipy'} & set(sys.modules))"
    )
    assert "heavy: set()" in said(run("--envequiv ref=A target=equal"))


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--envequiv ref=A ref=B", "--envequiv: expected ref=NAME target=NAME, got 'ref=A ref=B'"),
        ("--envequiv ref=A target=", "--envequiv: expected ref=NAME target=NAME"),
        ("--envequiv ref=A", "argument --envequiv: expected 2 arguments"),
        (
            "--envequiv-levels L1,L22",
            "--envequiv-levels: no level 'L22': choose from L1, L2, L3, L4 (did you mean 'L2'?)",
        ),
        (
            "--envequiv-profile quik",
            "--envequiv-profile: no profile 'quik': choose from quick, standard, thorough (did",
        ),
        ("--envequiv-seed -1", "--envequiv-seed: '-1' is not a seed"),
        ("--envequiv-budget soon", "--envequiv-budget: 'soon' is not a time: give seconds above 0"),
        ("--envequiv-timeout 0", "--envequiv-timeout: '0' is not a time"),
        ("--envequiv-contract no.toml", "--envequiv-contract: no file 'no.toml' in "),
        ("--envequiv ref=A target=equal --envequiv-output file/x", "--envequiv-output: cannot write to "),
        ("--envequiv ref=A target=equal --envequiv-answers file/x", "--envequiv-answers: cannot write to "),
        ("--envequiv ref=A target=equal --envequiv-propose file/x", "--envequiv-propose: cannot write to "),
        ("--envequiv-export x.py", "--envequiv-export: needs a counterexample: add --envequiv-replay FILE"),
        ("--envequiv-replay no.json", "--envequiv-replay: no file 'no.json'"),
        ("--envequiv-propose x.toml", "--envequiv-propose: needs a pair"),
    ],
)
def test_wrong_usage_is_one_line(run, pytester, options, message):
    (pytester.path / "file").touch()
    result = run(options)
    assert result.ret == 4
    assert message in said(result)
    assert "Traceback" not in said(result)


def test_options_reach_the_judge(run, pytester):
    (pytester.path / "same.toml").touch()
    result = run(
        "--envequiv target=equal ref=A --envequiv-levels l2 --envequiv-profile standard --envequiv-seed 7 "
        "--envequiv-budget 50 --envequiv-timeout 20 --envequiv-contract same.toml --envequiv-output out "
        "--envequiv-strict --envequiv-answers kept --json-report --json-report-file=r.json"
    )
    assert outcomes(result) == (0, "2 passed")
    given = Settings("A", "equal", ("L2",), "standard", 7, 50.0, 20.0, "same.toml", "out", True, answers="kept")
    report = json.loads((pytester.path / "r.json").read_text())
    assert report["envequiv"]["pairs"][0]["settings"] == given.as_json()
    assert (pytester.path / "out").is_dir()


def test_ini_options_and_the_command_line_wins(run, pytester):
    ini = "envequiv = ref=A 'target=equal'\nenvequiv_levels = L1, L2\nenvequiv_seed = 4\nenvequiv_strict = yes"
    pytester.makeini(f"[pytest]\n{ini}")
    header = "envequiv: ref A, target equal, levels L1,L2, profile quick, seed 4, strict"
    result = run()
    result.stdout.fnmatch_lines([header])
    assert result.ret == 0
    run("--envequiv-seed 5").stdout.fnmatch_lines([header.replace("4", "5")])
    pytester.makepyfile("def test_other(): pass")
    assert outcomes(run()) == (0, "4 passed")  # a pair in the file does not hide the tests


def test_toml_options(run, pytester):
    pytester.makefile(
        ".toml", pyproject="[tool.pytest.ini_options]\nenvequiv = 'ref=A target=equal'\nenvequiv_seed = 4"
    )
    run().stdout.fnmatch_lines([f"envequiv: ref A, target equal, levels {ALL}, profile quick, seed 4"])
    pytester.makefile(".toml", pyproject="[tool.pytest.ini_options]\nenvequiv_profile = 'quik'")
    result = run()
    assert result.ret == 4
    assert re.search(r"envequiv_profile in \S+pyproject.toml: no profile 'quik'", said(result))


@pytest.mark.skipif(int(pytest.__version__.partition(".")[0]) < 9, reason="TOML with types came with pytest 9")
def test_typed_toml_options(run, pytester):
    pytester.makefile(".toml", pytest="[pytest]\nenvequiv = ['ref=A', 'target=equal']\nenvequiv_levels = ['L1']")
    assert outcomes(run()) == (0, "1 passed")


def test_budget(run):
    result = run("--envequiv ref=A target=slow --envequiv-budget 1")
    assert outcomes(result) == (1, "1 passed, 3 inconclusive")
    result.stdout.fnmatch_lines([f"INCONCLUSIVE {', '.join(IDS[1:])}: time budget of 1 s spent"])


# --- what goes wrong inside a side -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("exit", "the target exited with code 0 in step; its last words: printed by the target"),
        ("segfault", "the target was killed by signal 11 in step; its last words: printed by the target"),
        ("leave", "the target raised SystemExit: 3 (*fake_judge.py:*) in step"),
        ("skip", "the target raised Skipped: not today (*fake_judge.py:*) in step"),
        ("raise", "the target raised RuntimeError: two lines (*fake_judge.py:*) in step"),
    ],
)
def test_a_target_that_fails_costs_one_check(run, what, message):
    result = run(f"--envequiv ref=A target={what}-velocity -v")
    assert ids_of(result) == {**dict.fromkeys(IDS, "PASSED"), IDS[2]: "FAILED"}
    assert outcomes(result) == (1, "1 failed, 3 passed")
    result.stdout.fnmatch_lines([f"DIFFERENT: {message}", "  run again * envequiv::L2-boundary-velocity"])
    assert "Traceback" not in said(result)


def test_a_traceback_is_kept_in_the_output_folder(run, pytester):
    run("--envequiv ref=A target=raise-velocity").stdout.fnmatch_lines(["  traceback * .envequiv/L2-*.traceback.txt"])
    assert 'RuntimeError("two' in (pytester.path / ".envequiv/L2-boundary-velocity.traceback.txt").read_text()


def test_a_reference_that_fails_decides_nothing(run):
    result = run("--envequiv ref=exit-velocity target=equal")
    assert outcomes(result) == (1, "3 passed, 1 inconclusive")
    result.stdout.fnmatch_lines(["INCONCLUSIVE L2-boundary-velocity: the reference exited with code 0 in step*"])


def test_a_hang_is_ended(run):
    result = run("--envequiv ref=A target=hang-velocity --envequiv-timeout 1")
    assert outcomes(result) == (1, "3 passed, 1 inconclusive")
    result.stdout.fnmatch_lines(["INCONCLUSIVE L2-boundary-velocity: the target gave no answer within 1 s in step*"])


def test_a_target_that_keeps_crashing_is_not_tried_forever(run):
    result = run("--envequiv ref=A target=exit-position-velocity-reward -v")
    assert list(ids_of(result).values()) == ["FAILED", "FAILED", "INCONCLUSIVE", "INCONCLUSIVE"]
    result.stdout.fnmatch_lines(
        [f"INCONCLUSIVE {IDS[2]}, {IDS[3]}: not run: the target crashed 2 times (see L1-bounds-position)"]
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ref=A target=exit-opening", "while opening the target exit-opening, it exited with code 0*"),
        ("ref=exit-opening target=equal", "while opening the reference exit-opening, it exited with code 0*"),
        ("ref=A target=skip-opening", "while opening the target skip-opening, it raised Skipped: not today (*)"),
        ("ref=A target=raise-opening", "while opening the target raise-opening, it raised RuntimeError: two lines (*)"),
        ("ref=A target=refuse-opening", "gymnax:CartPol-v1 does not open: did you mean CartPole-v1?"),
        ("ref=A target=hang-opening", "while opening the target hang-opening, it gave no answer within 1 s*"),
    ],
)
def test_a_pair_that_does_not_open_is_one_failure(run, pytester, names, message):
    pytester.makepyfile("def test_other(): pass")
    result = run(f"--envequiv {names} . -v --envequiv-timeout 1")
    assert ids_of(result) == {"L1-open-pair": "FAILED"}
    assert outcomes(result) == (1, "1 failed, 1 passed")
    result.stdout.fnmatch_lines([f"*: {message}"])
    assert "Traceback" not in said(result)


@pytest.mark.parametrize("more", ["-k vel", "-m L3", "envequiv::L2-boundary-velocity", "-n 2"])
def test_a_pair_that_does_not_open_is_not_lost(run, more):
    result = run(f"--envequiv ref=A target=exit-opening {more}")
    assert result.ret == 1
    assert outcomes(result)[1].startswith("1 failed")


# --- the marker ------------------------------------------------------------------------------------------------------


def test_a_marked_test_holds_the_checks_of_its_pair(run, pytester):
    pytester.makepyfile(
        test_it="""
        import json, pytest
        def test_plain(): pass
        @pytest.mark.envequiv(ref="A", target="bounce", levels="L2")
        def test_same(): ...
        @pytest.mark.envequiv(ref=json, target="unsure", levels=["L2"], seed=3)
        def test_decides(verdict):
            assert verdict.check.field == "velocity", "not velocity"
        class TestIn:
            @pytest.mark.envequiv(ref="A", target="equal", levels="L1")
            def test_in(self, verdict):
                assert verdict.word == "EQUAL"
        """
    )
    result = run("-v --strict-markers")
    assert dict(re.findall(r"^(test_it.py::\S+) ([A-Z]+)", said(result), re.MULTILINE)) == {
        "test_it.py::test_plain": "PASSED",
        "test_it.py::test_same::L2-boundary-position": "FAILED",
        "test_it.py::test_same::L2-boundary-velocity": "FAILED",
        "test_it.py::test_decides::L2-boundary-position": "FAILED",
        "test_it.py::test_decides::L2-boundary-velocity": "PASSED",
        "test_it.py::TestIn::test_in::L1-bounds-position": "PASSED",
    }
    assert "envequiv: unsure against json (test_it.py::test_decides, decided by the test)" in said(result)
    assert '>       assert verdict.check.field == "velocity", "not velocity"' in said(result)
    assert "pluggy" not in said(result).partition("FAILURES")[2]
    assert outcomes(run("test_it.py::test_same::L2-boundary-velocity")) == (1, "1 failed")
    assert outcomes(run("--envequiv ref=A target=equal test_it.py -k velocity -n 2")) == (1, "1 failed, 2 passed")


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('ref="A", target="equal", profle="quick"', " knows no 'profle': * (did you mean 'profile'?)"),
        ('ref="A", target="equal", profile="quik"', "'s profile: no profile 'quik'*"),
        ('ref="A"', " needs ref=... and target=..., by name"),
        ('ref="A", target=lambda: 0', " cannot name <function <lambda> *"),
    ],
)
def test_a_wrong_marker_is_one_line(run, pytester, marker, message):
    pytester.makepyfile(f"import pytest\n@pytest.mark.envequiv({marker})\ndef test_it(): ...")
    result = run()
    assert result.ret == 2
    result.stdout.fnmatch_lines([f"the envequiv marker{message}"])


def test_a_marked_test_takes_nothing_but_the_verdict(run, pytester):
    pytester.makepyfile("import pytest\n@pytest.mark.envequiv(ref='A', target='equal')\ndef test_it(tmp_path): ...")
    assert "test_it is marked envequiv: it may take 'verdict' and nothing else" in said(run())


def test_worker_looks_in_the_folder_it_is_called_in_and_keeps_its_own_modules(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "pytest_envequiv").mkdir()
    (tmp_path / "pytest_envequiv" / "judge.py").write_text("raise SystemExit('the wrong judge')")
    monkeypatch.syspath_prepend(os.environ["PYTHONPATH"].partition(os.pathsep)[0])
    pair = Pair(Settings("A", "equal", output=str(tmp_path)), Worker(str(tmp_path)))
    pair.open()
    assert [check.id for check in pair.checks] == IDS
    assert pair.run(pair.checks[2]).word == EQUAL
    pair.worker.close()

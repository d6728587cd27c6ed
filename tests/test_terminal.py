"""What the terminal and the worker say, of made-up verdicts: no pytest is run."""

from __future__ import annotations

import pytest

from pytest_envequiv.report import document, terminal
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Settings, Verdict
from pytest_envequiv.worker import account, read_crumb


@pytest.mark.parametrize(
    ("crumb", "read"),
    [
        ("target.step", ("target", False, "step")),
        ("opening target a.b:reference", ("target", True, "a.b:reference")),
        ("opening the reference target", ("reference", True, "target")),
        ("ref.reset (compiling)", ("reference", False, "reset (compiling)")),
        ("comparing target and reference", ("", False, "comparing target and reference")),
        ("targets.pong", ("", False, "targets.pong")),
        ("", ("", False, "")),
    ],
)
def test_breadcrumbs(crumb, read):
    assert read_crumb(crumb) == read


def test_account_of_a_death_puts_the_place_before_the_last_words():
    assert account("target.step", "exited with code 1; its last words: in vain") == (
        "the target exited with code 1 in step; its last words: in vain"
    )
    assert account("", "exited with code 1") == "the judge exited with code 1"
    assert account("shrinking", "exited with code 1") == "the judge exited with code 1 (shrinking)"


def verdict(name: str, word: str, **more) -> Verdict:
    level, subject, field = name.split("-")
    return Verdict(Check(name, level, subject, field), word, more.pop("summary", "why"), **more)


def test_summary_groups_what_shares_a_reason():
    verdicts = [verdict(f"L2-step-f{i}", INCONCLUSIVE) for i in range(9)] + [verdict("L1-nan-x", EQUAL)]
    assert terminal.undecided(verdicts) == [
        "INCONCLUSIVE L2-step-f0, L2-step-f1, L2-step-f2, L2-step-f3, L2-step-f4, L2-step-f5 and 3 more: why"
    ]
    assert list(document.level_summary(verdicts)) == ["L1", "L2"]


def test_a_follower_whose_root_did_not_run_is_shown_by_itself():
    lines = terminal.differences([verdict("L2-step-x", DIFFERENT, follows="L2-step-y")])
    assert lines == ["DIFFERENT L2-step-x: why", "  follows       L2-step-y"]


def test_what_an_equal_does_not_say_is_said():
    evidence = {"ties": 3, "detectable_effect": "0.1 sd"}
    assert terminal.uncertain([verdict("L3-stats-x", EQUAL, evidence=evidence)]) == [
        "ties: L3-stats-x: 3 mismatches at a rounding boundary, not counted",
        "smallest detectable effect: 0.1 sd (L3-stats-x)",
    ]


def test_rerun_command_repeats_what_a_verdict_depends_on():
    settings = Settings("A b", "B", seed=3, strict=True)
    pair = document.pair_document("envequiv", settings, [], [], {})
    assert terminal.rerun_command(pair, "L2-x-y") == (
        "pytest --envequiv 'ref=A b' target=B --envequiv-seed=3 --envequiv-strict envequiv::L2-x-y"
    )


def test_a_divergence_to_nan_can_be_read():
    found = Divergence("x", (), 0.0, "nan", "nan", 1e-9, "", {}, {})  # type: ignore[arg-type]  as JSON brings it back
    assert ("error", "nan, tolerance 1e-09") in terminal.divergence(found)


def test_long_values_are_cut():
    assert len(terminal.show(list(range(1000)))) == terminal.LONGEST
    assert terminal.fit("x" * 50, 20) == "x" * 16 + " ..."
    assert terminal.fit("x" * 50, 5) == ""

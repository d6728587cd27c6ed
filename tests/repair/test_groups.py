"""Failures that belong together, and the order in which they are mended."""

from __future__ import annotations

from repair_agent.findings import OPEN, Finding, Run
from repair_agent.groups import groups


def run_of(*failures, order=(), trouble=""):
    """A run from "L2-play-x", "L2-play-x follows L2-play-v", "L1-bounds-x ?" (INCONCLUSIVE), "L1-map-x !" (MISSING),
    "L1-reset-x =" (EQUAL)."""
    findings = {}
    for text in failures:
        check, _, rest = text.partition(" ")
        level, subject, field = check.split("-", 2)
        word = {"?": "INCONCLUSIVE", "!": "MISSING", "=": "EQUAL"}.get(rest, "DIFFERENT")
        follows = rest.removeprefix("follows ") if rest.startswith("follows") else None
        findings[check] = Finding(f"envequiv::{check}", check, level, subject, field, word, "", follows)
    return Run(findings, tuple(findings), order, trouble=trouble)


def test_checks_of_one_field_at_one_level_are_one_group():
    found = groups(
        run_of(
            "L2-play-v", "L2-play-x follows L2-play-v", "L2-pairs-v", "L2-pairs-v2 =", "L2-limit-x follows L2-pairs-v",
            "L2-limit-y follows L2-limit-x", "L3-lockstep-v",
        )
    )  # fmt: skip
    assert [(g.key, g.checks) for g in found] == [
        ("L2 v", ("L2-play-v", "L2-pairs-v")),
        ("L3 v", ("L3-lockstep-v",)),
    ]
    assert found[0].followers == ("L2-play-x", "L2-limit-x", "L2-limit-y")


def test_level_first_then_what_is_undecided_last_then_data_flow_then_name():
    found = groups(
        run_of(
            "L3-resync-a", "L2-play-b", "L2-play-z_1", "L2-play-a ?", "L2-play-m !", "L2-joint-outside", "L1-reset-q",
            order=("state.z 1", "b"),
        )
    )  # fmt: skip
    assert [g.key for g in found] == ["L1 q", "L2 outside", "L2 z_1", "L2 b", "L2 a", "L2 m", "L3 a"]


def test_a_pair_that_does_not_open_comes_first():
    assert groups(run_of("L1-bounds-a", f"{OPEN} ?"))[0].checks == (OPEN,)
    (only,) = groups(run_of(trouble="pytest ended with exit code 3"))
    assert only.checks == (OPEN,) and only.key == "the pair opens"
    assert groups(run_of("L1-reset-x =")) == []


def test_what_follows_something_that_is_mended_stands_for_itself():
    (found,) = groups(run_of("L2-play-v =", "L2-play-x follows L2-play-v"))
    assert found.checks == ("L2-play-x",)
    circle = groups(run_of("L2-play-v follows L2-play-x", "L2-play-x follows L2-play-v"))
    assert {check for g in circle for check in (*g.checks, *g.followers)} == {"L2-play-v", "L2-play-x"}

"""A judge of made-up pairs, in place of pytest_envequiv.judge in the processes that test_plugin.py starts.

The target's name says what happens: "exit-opening", "crash-velocity" (in the check of that field), "equal", ...
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from pytest_envequiv.errors import ContractError, OpenError
from pytest_envequiv.verdict import DIFFERENT, EQUAL, INCONCLUSIVE, Check, Divergence, Settings, Verdict, silent

FIELDS = (("L1", "bounds", "position"), ("L2", "boundary", "position"), ("L2", "boundary", "velocity"))
LAST = ("L3", "lockstep", "reward")


def skip() -> None:
    import pytest

    pytest.skip("not today", allow_module_level=True)


def raising() -> None:
    raise RuntimeError("two\nlines")


HAPPENINGS = {
    "exit": lambda: os._exit(0),
    "leave": lambda: sys.exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(60),
    "skip": skip,
    "raise": raising,
    "refuse": lambda: (_ for _ in ()).throw(OpenError("gymnax:CartPol-v1 does not open: did you mean CartPole-v1?")),
}


def happen(name: str, moment: str) -> None:
    what, _, when = name.partition("-")
    if what in HAPPENINGS and moment in when.split("-"):
        print("printed by the target")
        HAPPENINGS[what]()


class Judge:
    def __init__(self, settings: Settings, progress=silent, ref=None, target=None):
        self.settings = settings
        progress(f"opening reference {settings.ref}", 0, 0)
        happen(settings.ref, "opening")
        progress(f"opening target {settings.target}", 0, 0)
        happen(settings.target, "opening")
        progress("comparing specs", 0, 0)
        checks = [Check(f"{level}-{subject}-{field}", level, subject, field) for level, subject, field in FIELDS]
        checks.append(Check("-".join(LAST), *LAST, cost="costly"))
        self.checks = [check for check in checks if check.level in settings.levels]
        self.notes = ["the target merges terminated and truncated into done"]
        self.contract = SimpleNamespace(text=Path(settings.contract).read_text() if settings.contract else "")

    def describe(self):
        side = {"kind": "fake", "state": "fields", "draws": "none", "versions": {"fake": "1.0"}}
        names = {"ref": self.settings.ref, "target": self.settings.target}
        return {**{k: {"name": name, **side} for k, name in names.items()}, "map": {"x": "position"}, "draws": "tape"}

    def run(self, check_id, progress=silent):
        check = next(check for check in self.checks if check.id == check_id)
        for side, name in (("reference", self.settings.ref), ("target", self.settings.target)):
            progress(f"{side}.step", 0, 0)
            happen(name, check.field)
        for done in range(3):
            progress("comparing", done, 3)
        if self.settings.target.startswith("slow"):
            for done in range(8):
                time.sleep(0.15)
                progress("comparing", done, 8)
        evidence = {"transitions": 1000, "episodes": 4, "terminations": 3, "truncations": 1, "state": 2**100}
        evidence["nan"] = float("nan")
        if self.settings.target == "unsure" and check.level != "L1":
            return Verdict(check, INCONCLUSIVE, "no field map: 2 fields answer alike", evidence=evidence)
        if self.settings.target == "lenient" and check.level == "L2":
            evidence |= {"accepted": DIFFERENT, "accepted_until": "2999-01-31"}
            return Verdict(check, EQUAL, "off by one", notes=("accepted until 2999-01-31: known",), evidence=evidence)
        if self.settings.target == "bounce" and check.level == "L2":
            return self.differing(check, evidence)
        return Verdict(check, EQUAL, f"{check.field} is the same", evidence=evidence)

    def differing(self, check, evidence):
        if check.field == "position":
            return Verdict(check, DIFFERENT, "position differs", follows="L2-boundary-velocity", evidence=evidence)
        file = Path(self.settings.output) / "wall.json"
        file.write_text(json.dumps({"envequiv": 1, "still": True}))
        divergence = Divergence(
            field="velocity", index=(0,), expected=0.0, actual=-0.07, error=0.07, tolerance=4.2e-9,
            why="64 times what one ulp of the inputs moves the reference",
            state={"position": -1.2, "velocity": -0.07}, action={"action": [-1.0]},
            episode=2, step=5, source="boundary",
        )  # fmt: skip
        evidence["followers"] = ["L2-boundary-position"]
        summary = "velocity: expected 0.0, actual -0.07"
        return Verdict(check, DIFFERENT, summary, divergence, evidence=evidence, counterexample=str(file))

    def proposal(self):
        return '[fields]\nposition = "x"\n'

    def close(self):
        pass


def replay(path, settings=None, progress=silent):
    progress("opening target bounce", 0, 0)
    try:
        data = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ContractError(f"{path} is no counterexample: {error}") from error
    if not isinstance(data, dict) or "envequiv" not in data:
        raise ContractError(f"{path} is no counterexample: no 'envequiv' in it")
    check = Check("L2-boundary-velocity", "L2", "boundary", "velocity")
    if not data["still"]:
        return Verdict(check, EQUAL, "velocity no longer differs")
    return Verdict(check, DIFFERENT, "velocity: expected 0.0, actual -0.07", counterexample=str(path))


def export(path, destination):
    Path(destination).write_text("def test_wall(): ...\n")

"""`make demo`: two pairs of published environments, judged by the real command; then a counterexample, three ways.

Exit code 0 only if everything came out as it should, read from pytest's exit codes and JSON reports.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

CART_POLE = ["ref=gymnasium:CartPole-v1", "target=gymnax:CartPole-v1"]
MOUNTAIN_CAR = ["ref=gymnasium:MountainCarContinuous-v0", "target=gymnax:MountainCarContinuous-v0"]


class Unexpected(Exception):
    """Something did not come out as it should; one line."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="envequiv-demo-") as folder:
        try:
            show(Path(folder))
        except Unexpected as error:
            print(f"\ndemo: NOT as it should be: {error}", file=sys.stderr)
            return 1
    print("\ndemo: both pairs came out as they should: one EQUAL, one DIFFERENT with a counterexample that replays")
    return 0


def show(folder: Path) -> None:
    tell("""
        1. CartPole: gymnax's JAX port against Gymnasium's original. Nobody here wrote either, and neither is changed.
        No test file exists: the checks are made from the pair. L1 looks at what each side promises, L2 puts both
        sides in the same state and compares one step, field by field, L3 compares whole episodes.
    """)
    code, report = run(folder, "--envequiv", *CART_POLE)
    expect(code == 0, f"CartPole: pytest's exit code is {code}, not 0")
    expect(word_of(report) == "EQUAL", f"CartPole came out {word_of(report)}, not EQUAL")
    tell("""
        EQUAL: what could be compared is the same up to rounding. The table says how much was compared, "note" lines
        name differences of convention that were understood and bridged, and "smallest detectable effect" says how
        small a difference the statistical checks could have missed.
    """)

    tell("""
        2. MountainCarContinuous, from the same two packages. There is a bug in this port, in the published version:
        it forgets to stop the car at the left wall. Random play almost never gets there.
    """)
    code, report = run(folder, "--envequiv", *MOUNTAIN_CAR)
    expect(code == 1, f"MountainCarContinuous: pytest's exit code is {code}, not 1")
    expect(word_of(report) == "DIFFERENT", f"MountainCarContinuous came out {word_of(report)}, not DIFFERENT")
    wall = at_the_wall(report)
    tell(f"""
        DIFFERENT. The root is the field "velocity"; what merely follows from it is one line each. From the state
        {wall["divergence"]["state"]} under the action {wall["divergence"]["action"]} the reference's velocity becomes
        {wall["divergence"]["expected"]}, the port's {wall["divergence"]["actual"]}: the reference stops at the wall,
        the port does not. The inputs were made as simple as they are by Hypothesis and saved as a JSON file.
    """)

    tell("3. The saved counterexample, tried again on both sides, and written as a test that does not need envequiv:")
    code, report = run(folder, "--envequiv-replay", wall["counterexample"], "--envequiv-export", "test_wall.py")
    expect(code == 1, f"the replay: pytest's exit code is {code}, not 1")
    expect(word_of(report) == "DIFFERENT", f"the replay came out {word_of(report)}, not DIFFERENT")

    tell("4. That test, as a maintainer of the port would run it. It fails until the port is mended:")
    print(textwrap.indent((folder / "test_wall.py").read_text(encoding="utf-8"), "    "))
    code, report = run(folder, "-p", "no:envequiv", "test_wall.py")
    expect(code == 1, f"the exported test: pytest's exit code is {code}, not 1")
    crashes = [test["call"].get("crash", {}).get("message", "") for test in report["tests"] if "call" in test]
    compared = bool(crashes) and all(crash.startswith("AssertionError") for crash in crashes)
    expect(compared, f"the exported test did not fail by what it compares but by {crashes or 'nothing'}")


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run pytest in the folder with its output shown as it comes; its exit code and its JSON report."""
    path = folder / "report.json"
    path.unlink(missing_ok=True)
    command = ["-m", "pytest", *arguments, "--json-report", f"--json-report-file={path.name}"]
    print(f"$ {shlex.join(['pytest', *command[2:]])}\n", flush=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    code = subprocess.run([sys.executable, *command], cwd=folder, env=environment).returncode
    try:
        return code, json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unexpected(f"pytest (exit code {code}) left no report: {error}") from error


def word_of(report: dict[str, Any]) -> str:
    return report.get("envequiv", {}).get("word", "nothing")


def at_the_wall(report: dict[str, Any]) -> dict[str, Any]:
    """A root finding about the velocity in one step from one state, as its test's metadata tells it."""
    for test in report["tests"]:
        found = test.get("metadata", {}).get("envequiv", {})
        root = found.get("word") == "DIFFERENT" and not found.get("follows")
        if root and found["check"]["level"] == "L2" and found["check"]["field"] == "velocity":
            expect(found["divergence"]["expected"] == 0, "the reference's velocity is not 0: this is not the wall")
            expect(found["counterexample"], "no counterexample was saved")
            return found
    raise Unexpected("MountainCarContinuous: no L2 check has the velocity as its root")


def expect(truth: object, otherwise: str) -> None:
    if not truth:
        raise Unexpected(otherwise)


def tell(text: str) -> None:
    lines = textwrap.wrap(" ".join(text.split()), 96)
    print("\n" + "\n".join(f"  | {line}" for line in lines) + "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())

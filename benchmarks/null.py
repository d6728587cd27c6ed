"""False alarms on pairs that are equal: each pair judged again and again with other seeds.

    python benchmarks/null.py [--seeds N] [--levels L1,L2,L3] [REF TARGET ...]

A pair is opened once; everything that depends on the seed is drawn anew: play, states, actions, resets, episodes.
The promise is at most one suite in 1,000 with a false DIFFERENT where statistics decide, and none elsewhere.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import replace

from pytest_envequiv.bench import Bench
from pytest_envequiv.judge import Judge
from pytest_envequiv.verdict import LEVELS, Settings

NAMES = ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1")
PAIRS = [
    *((f"gymnasium:{name}", f"gymnax:{name}") for name in NAMES if name != "MountainCarContinuous-v0"),
    *((f"gymnasium:{name}", f"gymnasium:{name}") for name in NAMES),
    *((f"gymnax:{name}", f"gymnax:{name}") for name in NAMES),
    ("pettingzoo:classic.connect_four_v3", "pgx:connect_four"),
    ("pettingzoo:classic.connect_four_v3", "pettingzoo:classic.connect_four_v3"),
    ("pgx:connect_four", "pgx:connect_four"),
]


def judged(judge: Judge, seed: int) -> Counter[str]:
    """Words of all checks with one seed; what was not EQUAL is printed."""
    judge.settings = judge.pair.settings = replace(judge.settings, seed=seed)
    comparisons = judge.bench.comparisons
    judge.bench = Bench(judge.pair)
    judge.bench.comparisons = comparisons
    words: Counter[str] = Counter()
    for check in judge.checks:
        verdict = judge.run(check.id)
        words[verdict.word] += 1
        if verdict.word != "EQUAL":
            print(f"  seed {seed} {check.id}: {verdict.word}: {verdict.summary}", flush=True)
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="REF TARGET, as on pytest's command line")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--levels", default=",".join(LEVELS))
    options = parser.parse_args()
    names = options.names
    pairs = list(zip(names[::2], names[1::2], strict=True)) if names else PAIRS
    alarms = 0
    with tempfile.TemporaryDirectory() as output:
        for ref, target in pairs:
            started = time.perf_counter()
            judge = Judge(Settings(ref, target, tuple(options.levels.split(",")), output=output))
            words: Counter[str] = Counter()
            for seed in range(options.seeds):
                words += judged(judge, seed)
            alarms += words["DIFFERENT"]
            judge.close()
            print(
                f"{ref} against {target}: {options.seeds} seeds, {sum(words.values()):,} verdicts, "
                f"{words['DIFFERENT']} DIFFERENT, {words['INCONCLUSIVE']} INCONCLUSIVE, "
                f"{time.perf_counter() - started:.0f} s",
                flush=True,
            )
    print(f"{alarms} false alarms")


if __name__ == "__main__":
    main()

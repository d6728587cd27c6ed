"""False alarms on pairs that are equal: each pair judged again and again with other seeds.

    python benchmarks/null.py [--seeds N] [--first SEED] [--levels L1,L2,L3] [REF TARGET ...]

The promise is at most one suite in 1,000 with a false DIFFERENT where statistics decide, and none elsewhere.
"""

from __future__ import annotations

import argparse

from pytest_envequiv.power.null import null_runs
from pytest_envequiv.verdict import WITHOUT_LEARNING

NAMES = ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1")
PAIRS = [
    *((f"gymnasium:{name}", f"gymnax:{name}") for name in NAMES if name != "MountainCarContinuous-v0"),
    *((f"gymnasium:{name}", f"gymnasium:{name}") for name in NAMES),
    *((f"gymnax:{name}", f"gymnax:{name}") for name in NAMES),
    ("pettingzoo:classic.connect_four_v3", "pgx:connect_four"),
    ("pettingzoo:classic.connect_four_v3", "pettingzoo:classic.connect_four_v3"),
    ("pgx:connect_four", "pgx:connect_four"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="REF TARGET, as on pytest's command line")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--levels", default=",".join(WITHOUT_LEARNING))
    options = parser.parse_args()
    names = options.names
    pairs = list(zip(names[::2], names[1::2], strict=True)) if names else PAIRS
    seeds = range(options.first, options.first + options.seeds)
    results = []
    for ref, target in pairs:
        results.append(null_runs(ref, target, seeds, options.levels.split(",")))
        print(results[-1], flush=True)
    runs, verdicts = sum(r.runs for r in results), sum(sum(r.words.values()) for r in results)
    alarms = [sum(getattr(r, kind) for r in results) for kind in ("deterministic", "statistical")]
    print(f"{runs} runs, {verdicts:,} verdicts; false alarms in {alarms[0]} runs where nothing is left to chance,")
    print(f"and in {alarms[1]} where statistics decide")


if __name__ == "__main__":
    main()

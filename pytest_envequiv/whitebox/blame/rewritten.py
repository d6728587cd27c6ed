"""Lines that hand values on, and should hand on others: the port is traced again as it would be then.

The costliest kind of change: each imports the port anew. Tried last, and the fewer the longer a program is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from pytest_envequiv.whitebox.blame.suspects import Suspect
from pytest_envequiv.whitebox.blame.trial import Trial
from pytest_envequiv.whitebox.program import Program
from pytest_envequiv.whitebox.rewrites import rewrites

Reprogrammed = Callable[[str, str], Program | None]  # file, its text -> the program; None where it cannot be traced

LEAST, MOST = 12, 72  # rewrites that are tried for one divergence
TRACED = 24_000  # operations that are traced for them
WEIGHT = 0.93


def rewritten(trial: Trial, reprogrammed: Reprogrammed) -> Iterator[Suspect]:
    """Lines of which another way to hand on what they do explains everything."""
    sites = [site for n in trial.suspected if (site := trial.program.ops[n].site) is not None]
    sites += [site for n in trial.suspected for site in trial.program.ops[n].callers]
    files, functions = sorted({s.file for s in sites}), {s.function.rpartition(".")[2] for s in sites}
    left = min(MOST, max(LEAST, TRACED // len(trial.program.ops)))
    spans = {(s.line, s.end_line, s.column, s.end_column) for op in trial.program.ops if (s := op.site) is not None}
    for rewrite in rewrites(files, functions, spans):
        program = reprogrammed(rewrite.place.file, rewrite.text)
        left -= 1
        if program is not None:
            with suppress(Exception):  # a program that takes or draws something else
                if trial.explained_by(program):
                    yield Suspect(WEIGHT, rewrite.place, rewrite.why)
        if left <= 0:
            return

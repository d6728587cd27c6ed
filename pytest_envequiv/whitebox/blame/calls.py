"""What a function of the target has in each of its calls: one place a call, in the order of the calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_envequiv.whitebox.blame.trial import PASSING, Trial
from pytest_envequiv.whitebox.jaxprs import Site
from pytest_envequiv.whitebox.program import Constant


def operations(trial: Trial, site: Site, calls: int) -> Iterator[list[int]]:
    """The operations of the function that a site is in, each as its numbers in ``calls`` calls."""
    found: dict[tuple[Site, str, int], list[int]] = {}
    for number, op in enumerate(trial.program.ops):
        if op.site is not None and (op.site.file, op.site.function) == (site.file, site.function):
            found.setdefault((op.site, op.name, len(op.inputs)), []).append(number)
    for numbers in found.values():
        times, rest = divmod(len(numbers), calls)
        if not rest:
            yield from (numbers[first::times] for first in range(times))


def arguments(trial: Trial, site: Site, calls: int) -> Iterator[tuple[int, list[int]]]:
    """(line, place in each call) of what the function reads and does not compute."""
    ops = trial.program.ops
    listed = list(operations(trial, site, calls))
    own = {place for numbers in listed for n in numbers for place in ops[n].outputs}
    for numbers in listed:
        if ops[numbers[0]].name in PASSING:
            continue
        for slot in range(len(ops[numbers[0]].inputs)):
            atoms = [ops[n].inputs[slot] for n in numbers]
            places = [a for a in atoms if not isinstance(a, Constant) and a not in own]
            if len(places) == calls:
                yield line_of(trial, numbers), places


def named(trial: Trial, site: Site, calls: int) -> Iterator[tuple[int, list[int]]]:
    """(line, place in each call) of what the function computes on other lines than that of the site, and uses on others
    again, or nowhere: values that have a name."""
    ops = trial.program.ops
    for numbers in operations(trial, site, calls):
        line = line_of(trial, numbers)
        users = [ops[n].site for n in trial.users.get(ops[numbers[0]].outputs[0], ())]
        if line != site.line and (not users or any(user is not None and user.line != line for user in users)):
            yield line, [ops[n].outputs[0] for n in numbers]


def line_of(trial: Trial, numbers: Sequence[int]) -> int:
    site = trial.program.ops[numbers[0]].site
    return 0 if site is None else site.line

"""``envequiv-flow NAME [FILE]``: what the step of one environment computes from what, printed or drawn."""

from __future__ import annotations

import argparse
import os
import sys

from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import EnvequivError, OpenError
from pytest_envequiv.report import flowchart
from pytest_envequiv.side import Side
from pytest_envequiv.stimuli.influence import flow_of
from pytest_envequiv.stimuli.play import play


def main(arguments: list[str] | None = None) -> int:
    """0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog="envequiv-flow", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="as for pytest --envequiv: gymnax:CartPole-v1, my.port, ...")
    parser.add_argument("file", nargs="?", help="where to: .txt, .mmd (Mermaid), .dot (Graphviz), .png, .svg or .pdf")
    options = parser.parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    try:
        name = options.name.removeprefix("target=").removeprefix("ref=")
        side = Side("target", open_backend(name, {}))
        found = flow_of(side, play(side, 16, 40, 0))
        if found is None:
            raise OpenError(f"{name}: its step can be neither traced nor asked: its state cannot be written")
        if options.file is None:
            print(flowchart.text(found))
        else:
            flowchart.write(found, options.file)
    except EnvequivError as error:
        print(f"envequiv-flow: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

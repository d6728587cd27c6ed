"""The data flow of a step for people: as text, as a flowchart, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_envequiv.errors import ContractError
from pytest_envequiv.whitebox.dataflow import Flow

KINDS = {"state": "#9ec5e8", "action": "#f3c98b", "draw": "#d9b8e0", "constants": "#dddddd", "output": "#b5d8a6"}


def text(found: Flow) -> str:
    """One paragraph an output, in the order of mending."""
    lines = []
    for name in found.order:
        inputs = [n for n in found.inputs if n in found.reads[name] and not n.startswith("seed")]
        named = [f"{n} ({found.draws[n]})" if n in found.draws else n for n in inputs]
        lines.append(f"{name} <- {', '.join(named) or 'nothing'}")
        if found.shows[name]:
            lines.append(f"  through {', '.join(sorted(found.shows[name]))}")
        lines += [f"  [{i}] <- {', '.join(sorted(own))}" for i, own in found.elements.get(name, {}).items()]
    return "\n".join(lines)


def mermaid(found: Flow) -> str:
    """A flowchart that GitHub and most editors draw. Thick arrows run from output to output."""
    graph, lines = found.graph, ["flowchart LR"]
    for index in graph.node_indices():
        node = graph[index]
        lines.append(f'  n{index}["{node["name"]}"]' + (":::out" if node["kind"] == "output" else ""))
    for a, b, kind in graph.weighted_edge_list():
        lines.append(f"  n{a} {'==>' if kind == 'shows' else '-->'} n{b}")
    return "\n".join([*lines, "  classDef out stroke-width:3px"]) + "\n"


def dot(found: Flow) -> str:
    """For Graphviz."""
    drawn = found.graph.to_dot(
        lambda node: {"label": node["name"], "style": "filled", "fillcolor": KINDS.get(node["kind"], "#ffffff")},
        lambda edge: {"penwidth": "2" if edge == "shows" else "1"},
        {"rankdir": "LR"},
    )
    return str(drawn)


def picture(found: Flow, path: str) -> None:
    """Inputs to the left, outputs to the right in the order of mending (needs matplotlib)."""
    try:
        import matplotlib
    except ImportError as error:
        raise ContractError(f"{path}: a picture needs matplotlib (pip install 'pytest-envequiv[power]')") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    read = {n for name in found.outputs for n in found.reads[name]}
    inputs = [n for n in found.inputs if n in read and not n.startswith(("seed", "constants"))]
    places = {("in", n): (0.0, -i * len(found.order) / max(len(inputs), 1)) for i, n in enumerate(inputs)}
    places |= {("out", n): (1.0, -float(i)) for i, n in enumerate(found.order)}
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * max(len(found.order), len(inputs)) + 1.5), layout="constrained")
    for output in found.order:
        for name in inputs:
            if name in found.reads[output]:
                _arrow(axes, places["in", name], places["out", output], "#8899aa", 0.0)
        for other in found.shows[output]:
            _arrow(axes, places["out", other], places["out", output], "#3a7d2c", -0.5)
    for (side, name), (x, y) in places.items():
        kind = "output" if side == "out" else name.replace(" ", ".").partition(".")[0]
        box = {"boxstyle": "round", "facecolor": KINDS.get(kind, "#ffffff"), "edgecolor": "none"}
        axes.text(x, y, name, ha="right" if side == "in" else "left", va="center", bbox=box, fontsize=9)
    axes.set(xlim=(-0.6, 1.6), ylim=(-len(found.order), 1), title="computed from (grey), and through (green)")
    axes.axis("off")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float) -> None:
    style = {"arrowstyle": "->", "color": colour, "connectionstyle": f"arc3,rad={bend}", "linewidth": 0.9}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def write(found: Flow, path: str) -> None:
    """As the file's ending says: .txt, .mmd (Mermaid), .dot (Graphviz), .png, .svg or .pdf. Raises ContractError."""
    ending = Path(path).suffix
    written = {".txt": text, ".mmd": mermaid, ".dot": dot}.get(ending)
    if written is None and ending not in (".png", ".svg", ".pdf"):
        raise ContractError(f"{path}: a data flow is written as .txt, .mmd, .dot, .png, .svg or .pdf")
    try:
        if written is None:
            picture(found, path)
        else:
            Path(path).write_text(written(found), encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{path}: {error.strerror}") from error

"""Where Python modules lie and what they import: read from text, nothing is imported.

``contents`` of the plugin answers the same for a whole side and for this process's path; here it is asked of a
checkout, whose files are not on this process's path.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Imported:
    """One name of an import statement. ``name``: dotted and absolute, "numpy.linalg.norm" for ``from numpy.linalg
    import norm``; ``local``: what it is called here; ``level``: the dots of a relative import that leads nowhere."""

    name: str
    local: str
    line: int
    astray: bool = False  # a relative import that leaves the outermost package


def module_of(target: str) -> str:
    """The module a side is written in, as far as its name tells: "my.port" of "my.port:Class?x=1" and of
    "gymnasium:my.port:Id-v0", "gymnasium" of "gymnasium:Id-v0"; "" of a program (``process:``)."""
    if target.startswith("process:"):
        return ""
    kind, _, rest = target.partition("?")[0].partition(":")
    return rest.partition(":")[0] if kind == "gymnasium" and ":" in rest else kind


def located(name: str, roots: Sequence[Path]) -> Path | None:
    """The file of a module below one of the folders; of a package its ``__init__.py``. None if it is elsewhere."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for root in roots:
        stem = root.joinpath(*parts)
        for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            if path.is_file():
                return path
    return None


def name_of(path: Path, roots: Sequence[Path]) -> str:
    """The module that a file is, as seen from the folder nearest to it."""
    above = [root for root in roots if path.is_relative_to(root)]
    if not above:
        return path.stem
    relative = path.relative_to(max(above, key=lambda root: len(root.parts))).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return ".".join(parts)


def imports(tree: ast.AST, module: str, package: bool) -> Iterator[Imported]:
    """Every name that import statements anywhere in a syntax tree bring in."""
    here = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                yield Imported(alias.name, local, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            astray = bool(node.level) and not above
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = ".".join(filter(None, (origin, alias.name)))
                yield Imported(name, alias.asname or alias.name, node.lineno, astray)


def closure(name: str, roots: Sequence[Path]) -> dict[Path, str]:
    """File -> module, of a module and of what its import statements lead to below the folders.

    A package's ``__init__`` is in it where it is named, not where it is merely above what is.
    """
    found: dict[Path, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        path = located(module, roots)
        if path is None or path in found:
            continue
        found[path] = module
        tree = parsed(path)
        for imported in imports(tree, module, path.name == "__init__.py") if tree else ():
            inner = located(imported.name, roots)
            waiting.append(imported.name if inner else imported.name.rpartition(".")[0] or imported.name)
    return found


def parsed(path: Path) -> ast.Module | None:
    """The syntax tree of a file; None if it has none that can be read."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None

"""What a target's source reaches for: an allow-list of imports, and no way around it, over the syntax tree.

This is no sandbox. It refuses what an honest port has no use for, so that a repair which passes computes its answers
itself; the suite looks at what the code does, this at what it is. Names are followed through imports and plain
assignments (``xp = jnp``), not through data. What a finding is about is its ``what``; one that the target had before
the repair may stay, unless it is ``hard``.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from repair_agent.tree import modules

# Modules that may be imported: of the first all names but those below, of the second only what the pattern allows.
OPEN_MODULES = {
    "jax", "numpy", "math", "functools", "itertools", "collections", "dataclasses", "enum", "typing", "abc",
    "__future__",
}  # fmt: skip
NARROW_MODULES = {
    "chex": r"(dataclass|mappable_dataclass|assert_\w+|[A-Z]\w*)(\..*)?",
    "flax": r"struct(\..*)?",
    "typing_extensions": r"[A-Z]\w*",
}
# Libraries of environments, of which a port may need base classes and spaces if it had them before the repair.
ENVIRONMENTS = {
    "gymnasium": r"(Env|Space|spaces|core|error|utils\.seeding|utils\.EzPickle)(\..*)?",
    "gymnax": r"environments\.(environment|spaces)(\..*)?",
    "pgx": r"(core|Env|State|EnvId|v1)(\..*)?",
    "pettingzoo": r"(AECEnv|ParallelEnv|utils\.env)(\..*)?",
    "brax": r"(envs\.(base|Env|PipelineEnv|State)|base|math|State)(\..*)?",
}
DENIED = {
    "jax": r"pure_callback|io_callback|debug\.(callback|breakpoint)|ffi|experimental|extend|interpreters|lib|config|"
    r"profiler|monitoring|distributed|export|dlpack|tools|core|numpy\.(load|save|savez)|clear_caches",
    "numpy": r"load\w*|genfromtxt|from(file|regex)|memmap|save\w*|DataSource|ctypeslib|lib(?!\.stride_tricks)|testing|"
    r"distutils|f2py|core|set_\w+|setbufsize|seterr\w*|random\.(seed|set_state)|lookfor|info|source",
    "typing": r"get_type_hints|ForwardRef|evaluate_forward_ref",
    "dataclasses": r"make_dataclass",
}
CALLBACKS = "a host callback reaches Python, where anything may answer"
WHY = {
    "pure_callback": CALLBACKS, "io_callback": CALLBACKS, "ffi": CALLBACKS, "debug": CALLBACKS,
    "subprocess": "starts processes", "os": "reaches files and processes", "sys": "reaches the judge's own modules",
    "time": "sees or holds up the judge", "threading": "runs beside the judge", "importlib": "imports by made-up names",
    "pathlib": "reads files", "io": "reads files", "tempfile": "reads files", "json": "reads what no rule computes",
    "ctypes": "reaches any memory", "inspect": "sees that it is judged", "gc": "finds the judge's objects",
    "pytest": "speaks to the judge", "pytest_envequiv": "is the judge", "repair_agent": "is the judge",
    "signal": "ends processes", "socket": "asks another machine", "pickle": "runs what it reads",
}  # fmt: skip
HARD = {"pytest", "_pytest", "pluggy", "unittest", "inspect", "gc", "ctypes", "pytest_envequiv", "repair_agent"}
JUDGES_OWN = r"pytest_envequiv(\.backends(\.protocol(\..*)?)?)?"  # what a backend of one's own is written with

# Modules that others hand out under these names.
WITHIN = {
    "os",
    "sys",
    "io",
    "builtins",
    "bltns",
    "inspect",
    "gc",
    "ctypes",
    "subprocess",
    "importlib",
    "pickle",
    "types",
}
BUILTINS = {
    "eval", "exec", "compile", "__import__", "open", "input", "breakpoint", "globals", "locals", "vars", "exit", "quit",
    "help", "__builtins__", "__loader__", "__spec__", "__file__", "SystemExit", "KeyboardInterrupt", "BaseException",
    "GeneratorExit",
}  # fmt: skip
ATTRIBUTES = {
    "__subclasses__", "__globals__", "__builtins__", "__code__", "__closure__", "__mro__", "mro", "__bases__",
    "__base__", "__getattribute__", "__loader__", "__spec__", "__import__", "__reduce__", "__reduce_ex__",
    "__wrapped__", "__self__", "__func__", "__defaults__", "__kwdefaults__", "__dict__", "__array_interface__",
    "f_globals", "f_locals", "f_back", "f_builtins", "gi_frame", "cr_frame", "ag_frame", "tb_frame", "tb_next",
    "pure_callback", "io_callback", "ffi_call", "fromfile", "tofile", "memmap", "ctypeslib", "ctypes",
}  # fmt: skip
# What ``from jax import numpy`` brings in is a module too.
SUBMODULES = re.compile(r"(jax|numpy)\.(numpy|lax|nn|random|scipy|tree|tree_util|linalg|fft|debug|dtypes|typing|ops)")


@dataclass(frozen=True)
class Objection:
    """Something the target's source may not do. ``file``: as given; ``hard``: not even if it did so before."""

    file: str
    line: int
    what: str
    hard: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what}"


@dataclass(frozen=True)
class Surroundings:
    """What names stand for around a target.

    own      what is wrong with a module of the user's own ("" if nothing), None if the name is none of theirs
    through  what a name of one of those modules was imported from: "port.rules.np.load" is "numpy.load"
    kind     the library that the reference is of ("gymnasium"), or ""
    more     modules that may be imported besides
    """

    own: Callable[[str], str | None] = lambda _: None
    through: Callable[[str], str] = lambda name: name
    kind: str = ""
    more: frozenset[str] = field(default_factory=frozenset)


def of_python(file: str, text: str, module: str, around: Surroundings) -> list[Objection]:
    """Everything a module reaches for that it may not, in the order of the text, each kind of thing once."""
    try:
        tree = ast.parse(text)
        table = symtable.symtable(text, file, "exec")
    except (SyntaxError, ValueError) as error:
        return [Objection(file, getattr(error, "lineno", None) or 1, f"cannot be parsed: {error.args[0]}", True)]
    package = file.endswith("__init__.py")
    imported = list(modules.imports(tree, module, package))
    found = [
        *_imports(file, imported, around),
        *_names(file, tree, imported, around),
        *_builtins(file, tree, table),
        *_attributes(file, tree),
    ]
    first: dict[str, Objection] = {}
    for objection in sorted(found, key=lambda o: o.line):
        first.setdefault(objection.what, objection)
    return list(first.values())


# --- names -----------------------------------------------------------------------------------------------------------


def wrong(name: str, around: Surroundings) -> tuple[str, bool] | None:
    """Why a dotted name may not be used, and whether that is final; None if it may."""
    if own := around.own(name) or around.own(around.through(name)):
        return own, own.startswith("imports the reference")
    name = around.through(name)
    if around.own(name) is not None:
        return None
    top, _, rest = name.partition(".")
    if any(name == m or name.startswith(f"{m}.") for m in around.more):
        return None
    if top in ENVIRONMENTS:
        return _of_environment(name, top, rest, around)
    if top == "pytest_envequiv" and re.fullmatch(JUDGES_OWN, name):
        return f"imports {top}, which is the judge", False
    narrow = NARROW_MODULES.get(top)
    denied = DENIED.get(top)
    parts = rest.split(".") if rest else []
    if top not in OPEN_MODULES and narrow is None:
        why = WHY.get(top, "")
        return f"uses {name}" + (f", which {why}" if why else ", which is not on the list"), top in HARD
    if narrow is not None and rest and not re.fullmatch(narrow, rest):
        return f"uses {name}, which is not on the list", False
    if denied and rest and re.match(rf"({denied})(\.|$)", rest):
        return f"uses {name}" + (f": {WHY[parts[0]]}" if parts[0] in WHY else ", which is not on the list"), False
    if any(part in WITHIN for part in parts) or any(re.match(r"_(?!_(name|version|doc)__)", p) for p in parts):
        return f"uses {name}, which is none of {top}'s own", False
    return None


def _of_environment(name: str, top: str, rest: str, around: Surroundings) -> tuple[str, bool] | None:
    """Base classes and spaces are one thing that is allowed or not; anything else is a thing by itself."""
    if not rest or re.fullmatch(ENVIRONMENTS[top], rest) or re.fullmatch("environments|envs|utils", rest):
        return f"imports {top}", False
    borrowed = around.kind == top and re.match("make|envs|spec|registry", rest) is not None
    return f"uses {name}" + (", where the reference is" if borrowed else ""), borrowed and rest.startswith("make")


def _imports(file: str, imported: Iterable[modules.Imported], around: Surroundings) -> Iterator[Objection]:
    for name in imported:
        origin, _, last = name.name.rpartition(".")
        if name.astray:
            yield Objection(file, name.line, f"imports {last} from outside of its package", True)
        elif last == "*":
            told = wrong(origin, around)
            yield Objection(file, name.line, *(told or (f"imports everything of {origin}", False)))
        elif told := wrong(name.name, around):
            yield Objection(file, name.line, *told)


def _names(file: str, tree: ast.Module, imported: list[modules.Imported], around: Surroundings) -> Iterator[Objection]:
    """Attributes of what was imported, what is done to them, and modules that are handed on."""
    known = _aliases(tree, imported)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign) and _is_alias(node)}
    plain |= {id(e) for n in ast.walk(tree) if isinstance(n, ast.Tuple) and id(n) in plain for e in n.elts}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and id(node) not in inner:
            for name in _dotted(node, known):
                if not isinstance(node.ctx, ast.Load) and isinstance(node, ast.Attribute):
                    yield Objection(file, node.lineno, f"changes {name}, which is not its own", False)
                elif told := wrong(name, around):
                    yield Objection(file, node.lineno, *told)
                elif id(node) not in plain and _is_module(name):
                    what = f"hands on the module {name}: what is done with it cannot be seen"
                    yield Objection(file, node.lineno, what, False)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr" and len(node.args) > 1:
            text = node.args[1]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                for name in _dotted(node.args[0], known):
                    if told := wrong(f"{name}.{text.value}", around):
                        yield Objection(file, node.lineno, *told)


def _aliases(tree: ast.Module, imported: Iterable[modules.Imported]) -> dict[str, set[str]]:
    """Local name -> the dotted names it may stand for."""
    known: dict[str, set[str]] = {}
    for name in imported:
        whole = name.name if name.local != name.name.partition(".")[0] else name.local
        known.setdefault(name.local, set()).add(whole)
    for _ in range(3):  # an alias of an alias of an alias
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and _is_alias(node):
                targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value] * len(targets)
                for target, value in zip(targets, values, strict=False):
                    if isinstance(target, ast.Name) and (names := _dotted(value, known)):
                        known.setdefault(target.id, set()).update(names)
    return known


def _is_alias(node: ast.Assign) -> bool:
    """``xp = jnp`` or ``a, b = np, 1``: what stands on the left is known to be what stands on the right."""
    if isinstance(node.value, ast.Tuple):
        left = node.targets[0]
        return len(node.targets) == 1 and isinstance(left, ast.Tuple) and len(left.elts) == len(node.value.elts)
    names = all(isinstance(target, ast.Name) for target in node.targets)
    return names and isinstance(node.value, (ast.Name, ast.Attribute))


def _dotted(node: ast.AST, known: dict[str, set[str]]) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in known:
        return []
    return [".".join([origin, *parts]) for origin in sorted(known[node.id])]


def _is_module(name: str) -> bool:
    return bool(SUBMODULES.fullmatch(name)) or name in OPEN_MODULES | set(NARROW_MODULES)


# --- built-in names and attributes -----------------------------------------------------------------------------------


def _builtins(file: str, tree: ast.Module, table: symtable.SymbolTable) -> Iterator[Objection]:
    """Uses of built-in names, where the file has not given the name to something of its own."""
    lines: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            lines.setdefault(node.id, node.lineno)
    bound = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    tables = [table]
    while tables:
        scope = tables.pop()
        tables += scope.get_children()
        for symbol in scope.get_symbols():
            name = symbol.get_name()
            if name not in BUILTINS or not symbol.is_referenced():
                continue
            mine = (scope.get_type() == "function" and symbol.is_local()) or symbol.is_free()
            if not mine and (scope.get_type() != "function" or name not in bound):
                yield Objection(file, lines.get(name, 1), f"uses {name}", False)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        if node.id in ("setattr", "delattr", "getattr") and not _harmless(node, tree):
            yield Objection(file, node.lineno, f"uses {node.id} with a name or an object that is not known", False)


def _harmless(function: ast.Name, tree: ast.Module) -> bool:
    """``getattr(x, "name")`` with the name in the text; ``setattr(self, ...)``."""
    call = next((n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.func is function), None)
    if call is None or len(call.args) < 2:
        return False
    if function.id != "getattr":
        return isinstance(call.args[0], ast.Name) and call.args[0].id == "self"
    name = call.args[1]
    return isinstance(name, ast.Constant) and name.value not in ATTRIBUTES


def _attributes(file: str, tree: ast.Module) -> Iterator[Objection]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.MatchClass)):
            for name in [node.attr] if isinstance(node, ast.Attribute) else node.kwd_attrs:
                if name in ATTRIBUTES:
                    why = f": {WHY[name]}" if name in WHY else ""
                    yield Objection(file, getattr(node, "lineno", 1), f"uses .{name}{why}", False)


# --- Rust ------------------------------------------------------------------------------------------------------------

RUST = (
    (r"\bstd\s*::\s*(fs|process|net|env|os|ffi|io)\b", "uses std::{}"),
    (r"\b(include_str|include_bytes|include|env|option_env|asm|global_asm)\s*!", "uses {}!"),
    (r"\bextern\s+(?:\"[^\"]*\"\s*)?(fn|crate|\{|unsafe)", "has an extern {}"),
    (r"#\s*!?\s*\[\s*(link|path|no_mangle|export_name|proc_macro\w*)", "has an attribute {}"),
    (r"\b(libc|libloading|nix|windows)\s*::", "uses {}"),
    (r"\b(Command|File|TcpStream|UdpSocket|PyModule|dlopen)\s*(?:::|\()", "uses {}"),
    (r"\.\s*(import|import_bound|run_bound|eval_bound|call_method\w*)\s*\(", "calls Python by .{}"),
)


def of_rust(file: str, text: str) -> list[Objection]:
    """The same of a Rust source: by its text, comments left out."""
    bare = re.sub(r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.DOTALL)
    found = []
    for pattern, what in RUST:
        found += [Objection(file, _line(bare, m.start()), what.format(m[1])) for m in re.finditer(pattern, bare)]
    for match in re.finditer(r"\bstd\s*(?:::\s*\{([^;]*)\}|::\s*\*|\s+as\b)", bare):
        if match[1] is None:
            found.append(Objection(file, _line(bare, match.start()), "uses all of std"))
        inner = re.findall(r"(?:^|[{,])\s*(fs|process|net|env|os|ffi|io)\b", match[1] or "")
        found += [Objection(file, _line(bare, match.start()), f"uses std::{name}") for name in inner]
    first: dict[str, Objection] = {}
    for objection in sorted(found, key=lambda o: o.line):
        first.setdefault(objection.what, objection)
    return list(first.values())


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1

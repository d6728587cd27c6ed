"""What a model is told: ``prompts/template.md`` filled in. Nothing of a target or a reference is imported here.

Stable parts come first: the system prompt is the same for all groups of a repair, the first message for all calls of
a conversation. No times and no absolute paths stand in either, so that a replay asks the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repair_agent.case import Case
from repair_agent.model import aside, wording
from repair_agent.model.editor import Files, numbered
from repair_agent.question import Question

TEMPLATE = Path(__file__).parent / "prompts" / "template.md"
WORKFLOWS = ("repair", "translate", "verify", "specification")
EXAMPLES = 3  # counterexamples that are shown
LONGEST_SOURCE = 60_000  # characters of the target's source; of a longer one only what is blamed is shown
AROUND = 40  # lines around a blamed one
FENCES = {".py": "python", ".rs": "rust", ".js": "javascript", ".mjs": "javascript", ".ts": "typescript"}


@dataclass(frozen=True)
class Material:
    """What stays the same for all groups of a repair.

    kind        "jax", "rust" or "other": what the target is written in
    reference   the relevant source of the reference, as text to read; readable: where it can be viewed
    """

    question: Question
    files: tuple[str, ...]
    kind: str = "jax"
    workflow: str = "repair"
    reference: str = ""
    readable: Mapping[str, Path] = field(default_factory=dict)
    contract: str = ""
    specification: str = ""
    fast: str = ""
    fast_source: str = ""


def gathered(
    question: Question,
    root: Path,
    files: Sequence[str],
    workflow: str = "repair",
    fast: str | None = None,
    specification: Path | None = None,
) -> Material:
    """The material of a repair in ``root``; asks another process where the reference (and ``fast``) are written.

    Raises ValueError for an unknown workflow, OSError if the specification cannot be read.
    """
    if workflow not in WORKFLOWS:
        raise ValueError(f"there is no workflow {workflow!r}: there are {', '.join(WORKFLOWS)}")
    reference = _written(question, root, question.ref, "reference")
    quick = _written(question, root, fast, "fast") if fast else {}
    return Material(
        question,
        tuple(files),
        kind_of(files, question.target),
        workflow,
        _sources(reference),
        {name: path for name, (path, _) in {**reference, **quick}.items()},
        _contract(question, root),
        "" if specification is None else specification.read_text(encoding="utf-8").strip(),
        fast or "",
        _sources(quick),
    )


def kind_of(files: Sequence[str], target: str) -> str:
    """What a target is written in, as far as its files' names tell."""
    if any(name.endswith(".rs") for name in files):
        return "rust"
    return "jax" if all(name.endswith(".py") for name in files) and not target.startswith("process:") else "other"


def _written(question: Question, root: Path, name: str, label: str) -> dict[str, tuple[Path, str]]:
    """What a side's files are called here -> (where they are, the relevant text). Empty if none can be read."""
    told = aside.ask(question, root, {"what": "source", "name": name})
    found: dict[str, tuple[Path, str]] = {}
    for file in told.get("files", ()):
        path = Path(file["path"])
        called = f"{label}/{path.name}"
        if called in found:  # two of one name: by their folders too
            called = f"{label}/{path.parent.name}/{path.name}"
        found[called] = (path, file["text"])
    return found


def _sources(found: Mapping[str, tuple[Path, str]]) -> str:
    return "\n\n".join(fenced(name, text) for name, (_, text) in found.items())


def _contract(question: Question, root: Path) -> str:
    """The text of the contract: the one that was named, or the one beside the target."""
    names = [question.contract] if question.contract else []
    module = question.target.partition("?")[0].partition(":")[0].split(".")
    names += [] if names else ["/".join([*module[:-1], "envequiv.toml"]), "/".join([*module, "envequiv.toml"])]
    for name in names:
        path = root / name
        if path.is_file():
            return fenced(path.name, path.read_text(encoding="utf-8", errors="replace"))
    return ""


def fenced(name: str, text: str) -> str:
    """A file's text as a block of Markdown that its own back quotes cannot end."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{name}:\n{ticks}{FENCES.get(Path(name).suffix, '')}\n{text.rstrip()}\n{ticks}"


# -- filling in ------------------------------------------------------------------------------------------------------


def parts(path: Path = TEMPLATE) -> dict[str, str]:
    """Part -> text of the template. Raises OSError."""
    found: dict[str, str] = {}
    pieces = re.split(r"^<!-- part: (.+?) -->\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        found[name] = text.strip("\n")
    return found


def filled(text: str, values: Mapping[str, str]) -> str:
    """``{{name}}`` replaced; what stands ``with`` an empty value is left out. Raises KeyError for an unknown name."""

    def kept(match: re.Match[str]) -> str:
        return match[2] if values[match[1]] else ""

    text = re.sub(r"^<!-- with (\w+) -->\n(.*?)^<!-- end -->\n?", kept, text + "\n", flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\n{3,}", "\n\n", text)  # before the values are in: those stay as they are
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text).strip() + "\n"


def system_prompt(material: Material) -> str:
    """The same for every group of a repair."""
    template = parts()
    text = "\n\n".join(
        template[name] for name in ("system", f"task {material.workflow}", f"target {material.kind}", "material")
    )
    return filled(
        text,
        {
            "ref": material.question.ref,
            "target": material.question.target,
            "files": ", ".join(material.files),
            "contract": material.contract,
            "specification": material.specification,
            "reference": material.reference,
            "readable": ", ".join(n for n in material.readable if n.startswith("reference/")),
            "unseen": "" if material.reference else "yes",
            "fast": material.fast,
            "fast_source": material.fast_source,
        },
    )


def first_message(case: Case, material: Material) -> str:
    """One group of failures: all that is needed to mend it, the most volatile last."""
    run, group = case.run, case.group
    names = {f.field for f in run.findings.values() if f.word == "EQUAL"}
    wrong = {f.field for f in run.findings.values() if f.word != "EQUAL"}
    right = sum(f.word == "EQUAL" for f in run.findings.values())
    passing = f"{right} of {len(run.expected)} checks are EQUAL."
    if names - wrong:
        passing += f" Fields of which all checks are: {', '.join(sorted(names - wrong))}."
    return filled(
        parts()["group"],
        {
            "source": _source(case),
            "flow": _flow(case),
            "pairing": _pairing(run.describe),
            "key": group.key,
            "checks": ", ".join(group.checks),
            "followers": wording.names(group.followers, 20),
            "failures": _failures(case),
            "passing": passing if right else "",
            "history": wording.portable(
                "\n".join(f"{n}. {line}" for n, line in enumerate(case.history, 1)), case.tree.root
            ),
            "left": f"{case.budget.text()} for the whole repair. This is try {case.tries + 1} at this group.",
        },
    )


def whole(case: Case, material: Material) -> str:
    """Both in one text, for another agent and for people."""
    return f"{system_prompt(material)}\n{first_message(case, material)}"


# -- the parts of a group --------------------------------------------------------------------------------------------


def _source(case: Case) -> str:
    """The files that may change, with line numbers; of very long ones what is blamed."""
    files = Files(case.tree.root, case.tree.files)
    texts: dict[str, str] = {}
    for name in files.listed():
        try:
            texts[name] = files.to_read(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            texts[name] = ""
    long = sum(map(len, texts.values())) > LONGEST_SOURCE
    shown = [
        fenced(name, _excerpt(case, name, text) if long else numbered(text)) if text.strip() else f"{name}: (empty)"
        for name, text in texts.items()
    ]
    return "\n\n".join(shown)


def _excerpt(case: Case, name: str, text: str) -> str:
    """The lines around those that are blamed, and the first."""
    lines = text.splitlines()
    blamed = [
        int(b["line"]) - 1
        for check in case.group.checks
        if check in case.run.findings
        for b in case.run.findings[check].blame
        if Path(str(b["file"])).name == Path(name).name
    ]
    near = sorted({n for at in [0, *blamed] for n in range(at - AROUND, at + AROUND) if 0 <= n < len(lines)})
    shown: list[str] = []
    for before, n in zip([-1, *near], near, strict=False):
        shown += [f"({n - before - 1} lines: view them with the editor)"] if n != before + 1 else []
        shown.append(numbered(lines[n], n + 1))
    rest = len(lines) - 1 - near[-1] if near else 0
    return "\n".join(shown + ([f"({rest} lines: view them with the editor)"] if rest else []))


def _failures(case: Case) -> str:
    """The checks of the group: the first with their counterexamples, the others in one line each."""
    found = [case.run.findings[c] for c in case.group.checks if c in case.run.findings]
    if not found:
        why = wording.portable(case.run.trouble, case.tree.root) or "it does not say why"
        return f"The suite does not open the pair: {why}"
    shown = set(wording.told_apart(found, EXAMPLES))
    lines: list[str] = []
    for f in found:
        lines += wording.finding(f, f.check in shown)
    if case.run.trouble:
        lines.append(f"The run is not whole: {case.run.trouble}")
    return wording.portable("\n".join(lines), case.tree.root)


def _flow(case: Case) -> str:
    """Outputs in data-flow order, with what each reads."""
    flow = case.run.describe.get("dataflow") or {}
    reads = flow.get("reads") or {}
    lines = []
    for name in case.run.order:
        inputs = reads.get(name)
        lines.append(f"{name}" + (f" <- {', '.join(map(str, inputs))}" if inputs else ""))
    return "\n".join(lines)


def _pairing(describe: Mapping[str, Any]) -> str:
    """Which field of the target is which of the reference, and whose draws are used."""
    lines = [f"state {name} <- {wording.value(told)[1:-1]}" for name, told in (describe.get("map") or {}).items()]
    return "\n".join(lines + ([f"draws {describe['draws']}"] if describe.get("draws") else []))

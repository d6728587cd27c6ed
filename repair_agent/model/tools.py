"""What a model may do: view and edit the listed files, run checks, replay, evaluate, compile, give up. No shell.

What runs the target runs in a process of its own, without the keys of this one, and only while ``forbidden`` has
nothing against the files as they are: a target that was just edited is code that nobody has read.
"""

from __future__ import annotations

import difflib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repair_agent import crates, suite
from repair_agent.case import Case
from repair_agent.model import aside, editor, wording
from repair_agent.model.editor import Files, Refused

LONGEST = 6_000  # characters of an answer; a view of a file has its own limit

EDITOR = "str_replace_based_edit_tool"


def _strict(name: str, description: str, **properties: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "strict": True,
        "input_schema": {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        },
    }


DEFINITIONS: list[dict[str, Any]] = [
    {"type": "text_editor_20250728", "name": EDITOR, "max_characters": editor.LONGEST},
    _strict(
        "check",
        "Runs checks of the suite on the files as they are now, and tells what each found. Takes a minute or two.",
        what={
            "type": "string",
            "description": "A level (L1, L2 or L3), the name of a field (all its checks), the id of one check, or"
            " 'group' for the checks that are to turn EQUAL now.",
        },
    ),
    _strict(
        "replay",
        "Tries a saved counterexample again on the files as they are now. Quicker than a check.",
        counterexample={"type": "string", "description": "The id of the check it belongs to."},
    ),
    _strict(
        "evaluate",
        "Makes one transition on both sides and shows every field of both. For states of your choice.",
        state={
            "type": "string",
            "description": "The reference's state as a JSON object, field -> value; fields that are left out are those"
            " of a reset. An empty text: the state after a reset.",
        },
        action={"type": "string", "description": "A JSON object, name -> value; or the value alone if there is one."},
        seed={"type": "integer", "description": "Of the reset and of draws that nothing else supplies."},
    ),
    _strict(
        "compile_check",
        "Says whether the target can be used at all: imports, resets, steps and traces it, or runs cargo check.",
    ),
    _strict(
        "give_up",
        "Ends the work on these checks. For when they cannot be mended in the files that may change.",
        reason={"type": "string", "description": "One or two sentences: what is in the way."},
    ),
]


def nothing_forbidden(_: Case) -> str:
    """For tests, and for targets that are trusted."""
    return ""


@dataclass
class Tools:
    """The tools of one conversation. ``forbidden``: why the files as they are must not be run, or ""."""

    case: Case
    readable: Mapping[str, Path] = field(default_factory=dict)
    forbidden: Callable[[Case], str] = nothing_forbidden
    changed: bool = False
    gave_up: str | None = None

    def answer(self, used: Mapping[str, Any], malformed: str | None = None) -> dict[str, Any]:
        """The tool_result of one tool_use. Whatever was asked, there is one. Raises Exhausted when the time is over."""
        self.case.budget.check()
        wrong = True
        try:
            if malformed is not None:
                raise Refused(f"the input is not a JSON object, and nothing was done: {wording.cut(malformed, 300)}")
            text = self._run(str(used["name"]), used["input"])
            wrong = False
        except Refused as error:
            text = str(error)
        if used["name"] != EDITOR:  # what the editor shows is the file's own text
            text = wording.portable(text, self.case.tree.root)
        longest = editor.LONGEST + 200 if used["name"] == EDITOR else LONGEST
        answer = {
            "type": "tool_result",
            "tool_use_id": used["id"],
            "content": wording.cut(text, longest) or "(nothing)",
        }
        self.case.journal.write("tool", name=used["name"], input=used["input"], wrong=wrong, content=answer["content"])
        return {**answer, "is_error": True} if wrong else answer

    def _run(self, name: str, asked: Mapping[str, Any]) -> str:
        if name == EDITOR:
            text, changed = editor.run(self._files, asked)
            self.changed |= changed
            return text
        known: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "check": self._check,
            "replay": self._replay,
            "evaluate": self._evaluate,
            "compile_check": self._compile,
            "give_up": self._give_up,
        }
        if name not in known:
            raise Refused(f"there is no tool {name!r}: there are {', '.join([EDITOR, *known])}")
        return known[name](asked)

    @property
    def _files(self) -> Files:
        return Files(self.case.tree.root, self.case.tree.files, self.readable)

    def _allowed(self) -> None:
        if why := self.forbidden(self.case):
            raise Refused(f"the target is not run: {why}")

    @property
    def _seconds(self) -> float:
        return min(aside.SECONDS, self.case.budget.seconds_left)

    # -- the tools -----------------------------------------------------------------------------------------------

    def _give_up(self, asked: Mapping[str, Any]) -> str:
        self.gave_up = _text(asked, "reason").strip() or "no reason was given"
        return "Noted."

    def _check(self, asked: Mapping[str, Any]) -> str:
        what = _text(asked, "what").strip()
        checks = self._named(what)
        self._allowed()
        self.case.tell(f"the model runs {what}: {len(checks)} checks")
        levels = what.upper() in suite.LEVELS
        run = suite.judged(
            self.case.question, self.case.tree.root, (what.upper(),) if levels else checks, seconds=self._seconds
        )
        return wording.results(run, checks if not levels else tuple(c for c in run.findings))

    def _named(self, what: str) -> tuple[str, ...]:
        """The checks that a word means."""
        run, group = self.case.run, self.case.group
        if what == "group":
            return group.checks
        every = run.expected or group.checks
        if what.upper() in suite.LEVELS:
            return tuple(c for c in every if c.startswith(f"{what.upper()}-"))
        field_of = {c: run.findings[c].field if c in run.findings else c.split("-", 2)[-1] for c in every}
        found = tuple(c for c in every if what in (c, field_of[c]))
        if not found:
            words = dict.fromkeys([*suite.LEVELS, *field_of.values(), *every])
            near = difflib.get_close_matches(what, words, 3, 0.4)
            raise Refused(
                f"no level, field or check is called {what!r}" + (f": did you mean {', '.join(near)}?" if near else "")
            )
        return found

    def _replay(self, asked: Mapping[str, Any]) -> str:
        name = _text(asked, "counterexample").strip()
        saved = {f.check: f.counterexample for f in self.case.run.findings.values() if f.counterexample}
        if name not in saved:
            raise Refused(f"there is no counterexample {name!r}: there are {wording.names(saved) or 'none'}")
        self._allowed()
        told = self._aside({"what": "replay", "path": saved[name]})
        if "error" in told:
            return _failed(told)
        lines = [f"{name}: {told['word']}: {told['summary']}"]
        return "\n".join(lines + (wording.divergence(told["divergence"]) if told["divergence"] else []))

    def _evaluate(self, asked: Mapping[str, Any]) -> str:
        seed = asked.get("seed")
        if type(seed) is not int or seed < 0:
            raise Refused("seed must be a whole number from 0 up")
        state = _json(asked, "state")
        action = _json(asked, "action")
        if not isinstance(state, dict | None):
            raise Refused("state must be a JSON object, field -> value, or an empty text")
        if action is not None and not isinstance(action, dict):
            action = {"action": action}
        self._allowed()
        told = self._aside({"what": "step", "state": state, "action": action, "seed": seed})
        if "error" in told:
            return _failed(told)
        rows = [
            f"  {f['name']:<16} {'same' if f['same'] else 'DIFFERENT':<10} expected {wording.value(f['expected'])},"
            f" actual {wording.value(f['actual'])}"
            for f in told["fields"]
        ]
        head = [f"state before  {wording.value(told['state'])}", f"action        {wording.value(told['action'])}"]
        return "\n".join([*head, *rows])

    def _compile(self, _: Mapping[str, Any]) -> str:
        self._allowed()
        crate = self._crate()
        if crate is not None:
            return self._cargo(crate)
        told = self._aside({"what": "trace"})
        if "error" in told:
            return _failed(told)
        traced = "it can be traced" if told["traceable"] else "it is not traced (no JAX)"
        lines = [f"It opens ({told['opened']}), resets and steps; {traced}."]
        lines += [f"{name} {wording.value(told[name])}" for name in ("state", "outputs")]
        return "\n".join(lines)

    def _crate(self) -> Path | None:
        """The folder of the Cargo.toml above a Rust file that may change."""
        root = self.case.tree.root
        for name in self.case.tree.files:
            if name.endswith(".rs"):
                above = [p for p in (root / name).parents if p.is_relative_to(root) and (p / "Cargo.toml").is_file()]
                if above:
                    return above[0]
        return None

    def _cargo(self, crate: Path) -> str:
        cargo = shutil.which("cargo")
        if cargo is None:
            raise Refused("cargo is not installed here")
        argv = [cargo, "check", "--quiet", "--offline", "--message-format", "short"]
        code, said = crates.ran(argv, crate, crate / "Cargo.toml", suite.compiled(), self._seconds)
        if code == 0:
            return "cargo check: no errors." + (f"\n{said}" if said.strip() else "")
        return f"cargo check failed (exit code {code}):\n{said}"

    def _aside(self, request: dict[str, Any]) -> dict[str, Any]:
        """What ``repair_agent.model.evaluate`` answers, or {"error"}."""
        return aside.ask(self.case.question, self.case.tree.root, request, self._seconds)


def _failed(told: Mapping[str, Any]) -> str:
    return "\n".join([f"It failed: {told['error']}", *(f"  {line}" for line in told.get("traceback", ()))])


def _text(asked: Mapping[str, Any], name: str) -> str:
    found = asked.get(name)
    if not isinstance(found, str):
        raise Refused(f"{name} must be a text")
    return found


def _json(asked: Mapping[str, Any], name: str) -> Any:
    text = _text(asked, name).strip()
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused(f"{name} is not JSON: {error}") from error

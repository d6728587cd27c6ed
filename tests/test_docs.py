"""What the documents say holds: options, checks, sizes and snippets are those of the code, and the examples run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import pytest_envequiv
from pytest_envequiv import contract
from pytest_envequiv.backends import opening
from pytest_envequiv.bench import PROFILES
from pytest_envequiv.errors import OpenError
from pytest_envequiv.levels import interaction
from pytest_envequiv.levels import property as properties
from pytest_envequiv.plugin import pytest_addoption
from pytest_envequiv.verdict import Check

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TABLE = EXAMPLES / "custom_backend"
PAGES = {
    page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
EXAMPLE_PAGES = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in sorted(EXAMPLES.glob("*/README.md"))}


@pytest.fixture
def loaded(monkeypatch):
    """Imports a file of the examples by its folder and name, and forgets it afterwards."""

    def load(folder: Path, name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return load


def snippets(text: str, language: str) -> list[str]:
    """The fenced blocks of a language; ``language`` is the whole line after the backquotes."""
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


# -- words -------------------------------------------------------------------------------------------------------------


class Options:
    """Stands in for pytest's parser, and its group, and keeps the names."""

    def __init__(self) -> None:
        self.options: set[str] = set()
        self.ini: set[str] = set()

    def getgroup(self, *_: str) -> Options:
        return self

    def addoption(self, name: str, **_: object) -> None:
        self.options.add(name)

    def addini(self, name: str, *_: object, **__: object) -> None:
        self.ini.add(name)


@pytest.fixture(scope="module")
def known() -> Options:
    options = Options()
    pytest_addoption(options)  # type: ignore[arg-type]
    return options


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLE_PAGES])
def test_every_option_named_exists(page, known):
    text = (PAGES | EXAMPLE_PAGES)[page]
    assert set(re.findall(r"--envequiv[a-z-]*", text)) <= known.options


def test_every_option_is_in_the_readme(known):
    readme = PAGES["README.md"]
    assert {name for name in known.options if f"`{name}" not in readme} == set()
    assert {name for name in known.ini if name not in readme} == set()


def test_every_subject_of_a_check_is_in_the_table():
    package = Path(pytest_envequiv.__file__).parent
    source = "\n".join(p.read_text() for p in [*sorted((package / "levels").glob("*.py")), package / "worker.py"])
    written = set(re.findall(r'"L[1234]", "(\w+)"', source)) | set(re.findall(r'subject="(\w+)"', source))
    subjects = written | set(interaction.SOURCES) | set(properties.SUBJECTS) | {"target", "reference"}
    rows = re.findall(r"^\| (`(?:L[1234]|replay)-.*?) \|", PAGES["verdicts.md"], re.MULTILINE)
    documented = set(re.findall(r"`L[1234]-(\w+)-", " ".join(rows)))
    assert subjects == documented | {"replay"}


def test_the_table_of_profiles_is_that_of_the_code():
    rows = re.findall(r"^\| `(\w+)`: .*?\| ([\d.,]+) \| ([\d.,]+) \| ([\d.,]+) \|$", PAGES["verdicts.md"], re.MULTILINE)
    told = {name: [float(n.replace(",", "")) for n in numbers] for name, *numbers in rows}
    assert told == {name: [float(getattr(s, name)) for s in PROFILES.values()] for name in vars(PROFILES["quick"])}


@pytest.mark.parametrize("kind", opening.KINDS)
def test_every_kind_is_in_the_table(kind):
    assert f"\n| `{kind}` |" in PAGES["backends.md"]


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLE_PAGES])
def test_links_lead_somewhere(page):
    folder = ROOT / (page if page in EXAMPLE_PAGES or page == "README.md" else f"docs/{page}")
    text = (PAGES | EXAMPLE_PAGES)[page]
    for link in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", text):
        assert link.startswith("https://") or (folder.parent / link).exists(), link


def test_the_architecture_lists_the_modules_there_are():
    listed = re.findall(r"^(\S+)  +\S", snippets(PAGES["README.md"], "text")[-1], re.MULTILINE)
    assert [path for path in listed if not (ROOT / path).exists()] == []
    modules = {f"pytest_envequiv/{p.name}" for p in (ROOT / "pytest_envequiv").glob("*.py") if p.name != "__init__.py"}
    assert modules <= set(listed)


# -- snippets ----------------------------------------------------------------------------------------------------------


def all_snippets(language: str) -> list[str]:
    return [s for text in (PAGES | EXAMPLE_PAGES).values() for s in snippets(text, language)]


def test_contracts_in_the_documents_can_be_read():
    for text in all_snippets("toml contract"):
        contract.parse(text)


def test_every_key_of_a_contract_has_an_example():
    keys = {key for text in snippets(PAGES["contract.md"], "toml contract") for key in keys_of(tomllib.loads(text))}
    wanted = (
        set(contract.KNOWN) | {key for table in contract.KNOWN.values() for key in table or ()} | contract.TOLERANCE
    )
    assert wanted - keys == {"ref", "target"}  # these are in a table: they are not read


def keys_of(value: object) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    return set(value).union(*map(keys_of, value.values())) if isinstance(value, dict) else set()


def test_other_toml_and_python_can_be_read():
    for text in all_snippets("toml"):
        tomllib.loads(text)
    for text in all_snippets("python"):
        compile(text, "snippet", "exec")


def test_the_contract_of_the_handwritten_pair_can_be_read():
    assert contract.read(EXAMPLES / "handwritten" / "envequiv.toml").time_limit == 60


# -- examples ----------------------------------------------------------------------------------------------------------


def test_a_handwritten_port_is_equal_and_its_slip_is_found(loaded, tmp_path):
    reference, port, buggy = (loaded(EXAMPLES / "handwritten", name) for name in ("reference", "port", "buggy"))
    report = pytest_envequiv.compare(reference, port, levels=["L2"], output=str(tmp_path))
    assert report.word == "EQUAL", report
    report = pytest_envequiv.compare(reference, buggy, levels=["L2"], output=str(tmp_path))
    assert {v.check.field for v in report.roots} == {"truncated"}, report
    assert (tmp_path / "counterexamples" / "reference__buggy" / "L2-play-truncated.json").is_file()


def test_the_custom_backend_is_the_one_in_the_documents():
    assert (TABLE / "envequiv_table.py").read_text() in snippets(PAGES["backends.md"], "python")
    assert (TABLE / "pyproject.toml").read_text() in snippets(PAGES["backends.md"], "toml")


def test_the_custom_backend_is_found_and_judges(loaded, tmp_path, monkeypatch):
    """As if it was installed: its entry point as its pyproject.toml declares it."""
    loaded(TABLE, "envequiv_table")
    points = tomllib.loads((TABLE / "pyproject.toml").read_text())["project"]["entry-points"][opening.GROUP]
    info = tmp_path / "site" / "envequiv_table-0.1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: envequiv-table\nVersion: 0.1.0\n")
    lines = "".join(f"{name} = {module}\n" for name, module in points.items())
    info.joinpath("entry_points.txt").write_text(f"[{opening.GROUP}]\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    reference, table = "gymnasium:FrozenLake-v1?is_slippery=false", (TABLE / "frozen_lake.csv").read_text()
    for text, word in ((table, "EQUAL"), (table.replace("14,2,15,1,1", "14,2,15,0,1"), "DIFFERENT")):
        (tmp_path / "lake.csv").write_text(text)
        name = f"table:{tmp_path / 'lake.csv'}?limit=100"
        report = pytest_envequiv.compare(reference, name, levels=["L1", "L2"], output=str(tmp_path / word))
        assert report.word == word, report
    with pytest.raises(OpenError, match=r"table:nowhere\.csv: .*No such file"):
        opening.open_backend("table:nowhere.csv")


def test_the_finding_in_the_published_port_still_stands(loaded):
    """When gymnax has mended its wall, this fails, and the README of the example has to say so."""
    wall = loaded(EXAMPLES / "mountain_car_continuous", "test_wall")
    with pytest.raises(AssertionError, match=r"Mismatched elements: 1 / 2"):
        wall.test_one_step("observation", 1e-3)


def test_the_five_lines_print_what_the_readme_says(capsys):
    page = EXAMPLE_PAGES["examples/mountain_car_continuous/README.md"]
    lines = snippets(page, "python")[0]
    said = re.search(r"# (\[.*\])", lines)
    exec(compile(lines, "five lines", "exec"), {})
    assert said is not None and capsys.readouterr().out.strip() == said[1]
    assert len([line for line in lines.splitlines() if line]) == 5


def test_the_marker_example_is_collected_as_tests_of_its_own():
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", str(EXAMPLES / "handwritten" / "test_marker.py")]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout
    for name in ("test_port::L2-play-reward", "test_the_bug_is_found::L2-play-truncated"):
        assert f"examples/handwritten/test_marker.py::{name}" in listed


def test_the_demo_can_be_imported():
    """It is run by ``make demo``; here only what it would ask for."""
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    check = Check("L2-play-velocity", "L2", "play", "velocity").as_json()
    found = {
        "word": "DIFFERENT",
        "follows": None,
        "check": check,
        "divergence": {"expected": 0.0},
        "counterexample": "f",
    }
    assert demo.at_the_wall({"tests": [{}, {"metadata": {"envequiv": found}}]}) == found
    with pytest.raises(demo.Unexpected):
        demo.at_the_wall({"tests": [{"metadata": {"envequiv": {**found, "follows": "L2-play-position"}}}]})

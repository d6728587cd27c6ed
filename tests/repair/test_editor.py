"""The editor: on listed files only, and an edit that does not fit is told with what would."""

from __future__ import annotations

import pytest
from desk import TEXT, edit, source, use

from repair_agent.model import editor
from repair_agent.model.editor import Files, Refused
from repair_agent.model.tools import EDITOR, Tools


def test_a_view_has_numbered_lines(case):
    assert edit(case, "view")[0].splitlines()[1] == "2\t    return 1"
    assert edit(case, "view", view_range=[5, -1]) == ("5\tdef b():\n6\t    return 1", False)


@pytest.mark.parametrize("span", [[0, 2], [3, 2], [9, 9], [1], "1-2", [1, True]])
def test_a_range_that_does_not_fit_is_told(case, span):
    text, wrong = edit(case, "view", view_range=span)
    assert wrong and "view_range" in text


def test_a_long_view_is_cut_at_a_line(case):
    (case.tree.root / "port.py").write_text("x = 1  # a line\n" * 5000)
    text, _ = edit(case, "view")
    assert len(text) <= editor.LONGEST + 100
    assert text.endswith("(port.py has 5000 lines: view the rest with view_range)")


def test_an_edit_is_made_and_shown(case):
    text, wrong = edit(case, "str_replace", old_str="def b():\n    return 1", new_str="def b():\n    return 2\n# end")
    assert source(case) == TEXT[:-9] + "return 2\n# end\n"
    assert "6\t    return 2" in text and not wrong


def test_an_edit_that_matches_nowhere_shows_the_nearest_lines(case):
    text, wrong = edit(case, "str_replace", old_str="def bb():\n    return 1\n", new_str="x")
    assert wrong
    assert "the lines that come nearest" in text
    assert "5\tdef b():\n6\t    return 1" in text
    assert source(case) == TEXT


def test_an_edit_that_is_only_indented_otherwise_says_so(case):
    text, wrong = edit(case, "str_replace", old_str="def b():\n  return  1", new_str="x")
    assert wrong
    assert "differ from it only in white space:\n\n5\tdef b():" in text


def test_an_edit_like_nothing_says_so(case):
    assert "nor does anything like it" in edit(case, "str_replace", old_str="zzzzzzzz(qqqqqqqqqqq)", new_str="")[0]


def test_an_edit_that_matches_twice_says_where(case):
    text, wrong = edit(case, "str_replace", old_str="    return 1", new_str="    return 2")
    assert wrong
    assert "occurs 2 times in port.py, at lines 2, 6" in text
    assert source(case) == TEXT


def test_line_ends_of_windows_stay(case):
    (case.tree.root / "port.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    edit(case, "str_replace", old_str="a = 1", new_str="a = 3")
    assert (case.tree.root / "port.py").read_bytes() == b"a = 3\r\nb = 2\r\n"


@pytest.mark.parametrize(
    "line, text, lines", [(0, "x\n", "x def"), (2, "x", "return x"), (6, "x", "return x"), (6, "x\n", "return x")]
)
def test_inserting_keeps_every_line_whole(case, line, text, lines):
    edit(case, "insert", insert_line=line, insert_text=text)
    found = source(case).splitlines()
    assert found[line] == "x"
    assert [*found[:line], *found[line + 1 :]] == TEXT.splitlines()
    assert lines.split()[0] in (found[line - 1] if line else found[0]) + " x"


def test_a_file_without_a_last_newline_can_be_added_to(case):
    (case.tree.root / "port.py").write_text("a = 1")
    edit(case, "insert", insert_line=1, insert_text="b = 2")
    assert source(case) == "a = 1\nb = 2"


@pytest.mark.parametrize("line", [-1, 7, "1", None, True])
def test_inserting_nowhere_is_told(case, line):
    assert edit(case, "insert", insert_line=line, insert_text="x")[1]


def test_creating_replaces_the_whole_file(case):
    assert edit(case, "create", file_text="a = 1\n") == ("port.py was replaced: 1 lines.", False)
    assert (
        edit(case, "create", "crate/src/lib.rs", file_text="fn a() {}\n")[0] == "crate/src/lib.rs was created: 1 lines."
    )
    assert (case.tree.root / "crate/src/lib.rs").is_file()


@pytest.mark.parametrize(
    "path",
    [
        "other.py",
        "../tree2/port.py",
        "sub/../../outside.py",
        "/etc/passwd",
        "port.py/../conftest.py",
        "crate/src/test_lib.py",
        "link.py",
        "folder/port.py",
        "crate/inside/lib.rs",
        "",
        ".",
        "a\0b",
    ],
)
def test_nothing_else_is_written(case, tmp_path, path):
    root = case.tree.root
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "port.py").write_text("kept")
    (outside / "lib.rs").write_text("kept")
    (root / "link.py").symlink_to(root / "port.py")
    (root / "folder").symlink_to(outside)
    (root / "crate").mkdir()
    (root / "crate/inside").symlink_to(outside)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "journal.jsonl"}
    text, wrong = edit(case, "create", path, file_text="taken over")
    assert wrong
    assert "not among the files that may change" in text
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != "journal.jsonl"}
    assert after == before


def test_a_listed_file_that_became_a_link_is_not_followed(case, tmp_path):
    (tmp_path / "secret").write_text("kept")
    (case.tree.root / "port.py").unlink()
    (case.tree.root / "port.py").symlink_to(tmp_path / "secret")
    assert edit(case, "create", file_text="x")[1]
    assert edit(case, "view")[1]
    assert (tmp_path / "secret").read_text() == "kept"


def test_tests_may_never_change_even_if_they_are_listed(tmp_path):
    files = Files(tmp_path, ("**/*.py",))
    for name in ("conftest.py", "a/test_x.py"):
        with pytest.raises(Refused):
            files.to_write(name)
    assert files.to_write("a/x.py") == tmp_path / "a/x.py"


def test_what_may_be_read_may_not_be_changed(case, tmp_path):
    (tmp_path / "cartpole.py").write_text("a = 1\n")
    desk = Tools(case, {"reference/cartpole.py": tmp_path / "cartpole.py"})
    assert desk.answer(use(EDITOR, command="view", path="reference/cartpole.py"))["content"] == "1\ta = 1"
    refused = desk.answer(use(EDITOR, command="create", path="reference/cartpole.py", file_text=""))
    assert refused["is_error"] and "may only be viewed" in refused["content"]
    assert "reference/cartpole.py (to read)" in desk.answer(use(EDITOR, command="view", path="/"))["content"]
    assert not desk.changed


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"command": "view"},
        {"command": 3, "path": "port.py"},
        {"command": "undo_edit", "path": "port.py"},
        {"command": "create", "path": "port.py"},
        {"command": "create", "path": "port.py", "file_text": None},
        {"command": "str_replace", "path": "port.py", "old_str": "", "new_str": "x"},
        {"command": "str_replace", "path": "port.py", "old_str": "def a", "new_str": "def a"},
        {"command": "insert", "path": "port.py", "insert_line": 1},
    ],
)
def test_a_malformed_use_is_answered_with_what_was_wrong(case, asked):
    answer = Tools(case).answer(use(EDITOR, **asked))
    assert answer["is_error"] and answer["content"]
    assert source(case) == TEXT

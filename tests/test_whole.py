import os
import stat

import pytest

from pytest_envequiv import whole


def test_what_was_written_stands_and_nothing_else(tmp_path):
    path = tmp_path / "made" / "a.json"
    whole.write(path, "grüße\n")
    whole.write(path, "again\n")
    assert path.read_bytes() == b"again\n" and os.listdir(path.parent) == ["a.json"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_what_fails_on_the_way_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(type(error)), whole.writing(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_text() == "before"  # who reads meanwhile sees nothing of it
        raise error
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.json"]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with whole.writing(path) as one, whole.writing(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one" and os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_who_may_read_it(tmp_path):
    before = os.umask(0o022)
    try:
        whole.write(tmp_path / "public", "")
        with whole.writing(tmp_path / "private", private=True):
            pass
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("public", "private")] == [0o644, 0o600]

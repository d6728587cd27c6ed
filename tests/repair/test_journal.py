"""The trajectory: on disk before the next thing happens, and readable after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from repair_agent.journal import Journal, read


def test_events_come_back_in_order(tmp_path):
    journal = Journal(tmp_path / "deep" / "t.jsonl")
    journal.write("begin", pair="a b")
    journal.write("step", accepted=True, turned=["x"])
    assert [(e["kind"], e.get("turned")) for e in read(journal.path)] == [("begin", None), ("step", ["x"])]


def test_a_killed_writer_loses_nothing_that_was_written(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from repair_agent.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]))\n"
        "for n in range(50): j.write('event', number=n)\n"
        'j._file.write(\'{"kind": "half\'); j._file.flush()\n'
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "t.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert [e["number"] for e in read(path)] == list(range(50))
    Journal(path).write("resumed")  # the torn line does not swallow what comes after it
    assert [e["kind"] for e in read(path)][-2:] == ["event", "resumed"]

"""Programs that fail in every way we know: each gives one line, and nothing hangs."""

from __future__ import annotations

import shlex
import time

import numpy as np
import pytest
from processes import action

from pytest_envequiv.backends.process import ProgramError, WrongAnswer, open_name
from pytest_envequiv.errors import OpenError
from pytest_envequiv.peer import PeerDied, PeerError, PeerGarbled, PeerSilent


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("HELLO['version'] = 2", "the program speaks protocol version 2, pytest-envequiv version 1"),
        ("del HELLO['name'], HELLO['draws']", "the answer to hello lacks 'name', 'draws' (it has 'version', 'state'"),
        ("del HELLO['fields']", "the answer to hello lacks 'fields'"),
        (
            "HELLO['state'] = 'some'",
            "'state' in the answer to hello is 'some', not one of 'fields', 'snapshot', 'none'",
        ),
        ("del HELLO['action']['high']", "'action' in 'action' of the answer to hello is discrete and needs 'high'"),
        ("HELLO['action'] = {'move': 3}", "'move' in 'action' of the answer to hello needs the kind"),
        ("HELLO['observation']['dtype'] = 'double'", "needs a dtype such as 'float32', found 'double'"),
        ("HELLO['fields'] = [1]", "'fields' in the answer to hello is not a map"),
        ("def hello(q): return {'error': 'no licence'}", "no licence"),
        ("def hello(q): return [1]", "the answer to hello is list instead of a map"),
        ("raise SystemExit('the disk is full')", "exited with code 1; its last words: the disk is full"),
        ("raise ValueError('odd\\nand more')", "exited with code 1; its last words: ValueError: odd"),
        ("os.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("print('hello, world', flush=True)", "expected the length of a frame, got b'hell' (does it print to stdout?)"),
        ("print(0.5, flush=True); time.sleep(60)", "expected the length of a frame, got b'0.5\\n'"),
        ("print('', flush=True)", "expected the length of a frame"),
        ("def hello(q): sys.stdout.buffer.write(b'\\0\\0\\0\\2\\xc1\\xc1'); return 0", "is not msgpack"),
    ],
)
def test_a_program_that_does_not_open(program, body, message):
    command = program(body)
    with pytest.raises(OpenError) as caught:
        open_name(command, {"timeout": 20})
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"process:{command}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("no-such-program --x", {}, "process:no-such-program --x: cannot start 'no-such-program': No such file"),
        ("", {}, "process:: expected a command line, as in 'process:node "),
        ("node 'x", {}, "process:node 'x: No closing quotation"),
        ("node x", {"timeout": 0}, "the timeout must be above 0 seconds, found 0"),
        ("node x", {"timeout": "soon"}, "could not convert string to float: 'soon'"),
        ("node x", {"cwd": "/no/such"}, "the folder '/no/such' to run it in does not exist"),
        ("node x", {"time": 3}, "the options are 'timeout' and 'cwd', found 'time'"),
    ],
)
def test_a_name_that_does_not_open(command, options, message):
    with pytest.raises(OpenError) as caught:
        open_name(command, options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_script_that_is_not_there(node):
    with pytest.raises(OpenError, match=r"its last words: Error: Cannot find module '.*nowhere\.mjs'"):
        open_name(shlex.join([node, "nowhere.mjs"]), {})


def test_cwd_is_where_it_runs(opened, program, tmp_path):
    command = program("HELLO['name'] = os.getcwd()")
    assert opened(command, cwd=str(tmp_path)).spec.name == str(tmp_path.resolve())


STEP = "plain = step\ndef step(q):\n    answer = plain(q); outputs = answer['outputs']\n    {}\n    return answer"


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("def step(q): sys.exit('lost the board')", PeerDied, "exited with code 1; its last words: lost the board"),
        ("def step(q): print('position', 1, flush=True)", PeerGarbled, "expected the length of a frame, got b'posi'"),
        ("def step(q): return {'error': 'the move is illegal'}", ProgramError, "the move is illegal"),
        ("def step(q): return 7", WrongAnswer, "the answer to step is int instead of a map"),
        ("def step(q): return {}", WrongAnswer, "the answer to step lacks the map 'outputs' (it has )"),
        (
            STEP.format("del outputs['reward']"),
            WrongAnswer,
            "the answer to step lacks the output 'reward' (it has 'observation', 'terminated', 'truncated')",
        ),
        (STEP.format("del outputs['truncated']"), WrongAnswer, "the answer to step lacks the output 'truncated'"),
        (STEP.format("del outputs['observation']"), WrongAnswer, "the answer to step lacks the output 'observation'"),
        (
            STEP.format("outputs['observation'] = [[1, 2, 3]] * 2"),
            WrongAnswer,
            "the answer to step: the output 'observation' has shape (2, 3), expected (2, 2)",
        ),
        (
            STEP.format("outputs['reward'] = [1]"),
            WrongAnswer,
            "the answer to step: the output 'reward' has shape (1,), expected (2,)",
        ),
        (
            STEP.format("outputs['mask'] = [1, 1]"),
            WrongAnswer,
            "the answer to step: the output 'mask' has shape (2,), expected (2, any)",
        ),
        (
            STEP.format("outputs['extra'] = 1"),
            WrongAnswer,
            "the answer to step: the output 'extra' has shape (), expected (2,)",
        ),
        (
            STEP.format("answer['state']['x'] = [1, 2, 3]"),
            WrongAnswer,
            "the answer to step: the state field 'x' has shape (3,), expected (2,)",
        ),
        (
            STEP.format("answer['state'] = {'y': [1, 2]}"),
            WrongAnswer,
            "the answer to step lacks the state field 'x' (it has 'y')",
        ),
        (
            STEP.format("del answer['state']"),
            WrongAnswer,
            "the answer to step lacks the map 'state' (it has 'outputs')",
        ),
        (
            STEP.format("answer['state']['x'] = [1.5, 2]"),
            WrongAnswer,
            "the answer to step: the state field 'x' holds 1.5, which is not int64",
        ),
        (
            STEP.format("answer['hidden'] = [1]"),
            WrongAnswer,
            "the answer to step: 'hidden' has 1 entries, expected a list of 2",
        ),
    ],
)
def test_a_program_that_fails_in_step(opened, program, body, kind, message):
    backend = opened(program(body))
    state = backend.reset(np.array([1, 2])).state
    with pytest.raises(Exception) as caught:
        backend.step(state, action(0, 0), np.zeros(2, int))
    assert type(caught.value) is kind and message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        ("None", "the answer to reset lacks 'draws', which hello promised"),
        ("[{'kind': 'uniform'}]", "the answer to reset: draw 0 is not a map with 'kind', 'shape' and 'value'"),
        (
            "[{'kind': 'uniform', 'shape': [], 'value': [1]}]",
            "the answer to reset: 'value' of draw 0 (uniform) has shape (1,), expected (2,)",
        ),
        (
            "[{'kind': 'uniform', 'shape': [], 'value': [1, 2], 'low': [0]}]",
            "the answer to reset: 'low' of draw 0 (uniform) has shape (1,), expected (2,)",
        ),
    ],
)
def test_draws_that_are_none(opened, program, draws, message):
    backend = opened(
        program(f"HELLO['draws'] = 'tape'\ndef reset(q): return {{**outcome(q['seeds']), 'draws': {draws}}}")
    )
    with pytest.raises(WrongAnswer) as caught:
        backend.reset(np.array([1, 2]))
    assert message in str(caught.value)


def test_an_error_answer_leaves_the_program_usable(opened, program):
    backend = opened(program("def step(q): return {'error': 'not now'}"))
    state = backend.reset(np.array([1])).state
    for _ in range(2):
        with pytest.raises(ProgramError, match=r"^not now$"):
            backend.step(state, action(0), np.zeros(1, int))
    assert len(backend.reset(np.array([1, 2])).state) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [(1, "no answer within 3 s; its last words: thinking"), (100_000, "did not read its input within 3 s; its last")],
)
def test_silence_ends_at_the_deadline(opened, program, rows, message):
    body = """
        del HELLO["arrays"]
        def reset(q):
            q["op"] == "reset" or sys.exit()
            xs = [0] * q["seeds"]["shape"][0]
            print("thinking", file=sys.stderr, flush=True)
            send(outcome(xs))
            time.sleep(60)
    """
    backend = opened(program(body), timeout=3)
    state = backend.reset(np.zeros(rows, int)).state
    began = time.monotonic()
    with pytest.raises(PeerSilent) as caught:
        backend.step(state, {"action": np.zeros(rows, int)}, np.zeros(rows, int))
    assert time.monotonic() - began < 10
    assert message in str(caught.value)
    with pytest.raises(PeerError, match="reset: the program is gone: "):
        backend.reset(np.zeros(1, int))


def test_wrong_inputs_are_refused_before_they_are_sent(opened, program):
    backend = opened(program())
    state = backend.reset(np.array([1, 2])).state
    for given, message in [
        ({}, r"step: no action 'action' \(there is \)"),
        (action(0), r"step: action 'action' has shape \(1,\), expected \(2,\)"),
        (action(0, 0.5), "step: action 'action' holds 0.5, which is not int64"),
    ]:
        with pytest.raises(ValueError, match=message):
            backend.step(state, given, np.zeros(2, int))


def test_close_ends_the_program(program):
    backend = open_name(program(), {})
    backend.close()
    backend.close()
    assert backend._peer._child.poll() == 0
    with pytest.raises(PeerError, match="it was closed"):
        backend.reset(np.array([0]))

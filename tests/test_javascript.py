"""The JavaScript side of the process protocol: its packing, and a mountain car judged against Gymnasium's."""

from __future__ import annotations

import math
import shlex
import struct
import subprocess
import time
from pathlib import Path

import gymnasium
import msgpack
import numpy as np
import pytest
from processes import action, equal

from pytest_envequiv.backends.process import ProgramError
from pytest_envequiv.backends.protocol import Draw, Leaf, State
from pytest_envequiv.peer import Peer

ROOT = Path(__file__).resolve().parent.parent
JAVASCRIPT = ROOT / "examples" / "javascript"


@pytest.fixture
def car(opened, node):
    return opened(shlex.join([node, str(JAVASCRIPT / "mountain_car.mjs")]))


ECHO = """
import {{ encode, receive, send }} from "{helper}";
for await (const value of receive()) send([value, encode(value)]);
"""
SIZES = (0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536)
EDGES = sorted({s * (2**n + d) for n in (0, 5, 7, 8, 15, 16, 31, 32, 53, 62) for d in (-1, 0, 1) for s in (1, -1)})


@pytest.fixture
def echo(node, tmp_path):
    """Sends a value through the helper's msgpack: what came back, and the bytes it was encoded as."""
    script = tmp_path / "echo.mjs"
    script.write_text(ECHO.format(helper=(JAVASCRIPT / "envequiv.mjs").as_uri()))
    peer = Peer([node, str(script)])

    def through(value):
        peer.send(value)
        return peer.receive(20)

    yield through
    peer.close()


def test_javascript_msgpack_is_msgpack(echo):
    values = [
        *EDGES,
        *(2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
        *("é☃𝄞" + "x" * size for size in SIZES),
        *(bytes(range(256)) * (size // 256) + bytes(size % 256) for size in SIZES),
        *([1] * size for size in SIZES),
        *({str(i): i for i in range(size)} for size in SIZES),
        *(0.1, -1 / 3, math.pi, -0.0, math.inf, -math.inf, 1e300, 5e-324, 2.0**53, -(2.0**70)),
        *(None, True, False, [[1, [2.5, []]], {"a": {"b": [None, "c", b"d"]}}]),
    ]
    for value in values:
        back, raw = echo(value)
        assert back == value and type(back) is type(value)
        assert raw == msgpack.packb(value), f"not the shortest form of {str(value)[:60]}"
    back, _ = echo(values)  # many chunks in one frame
    assert back == values
    assert math.copysign(1, echo(-0.0)[0]) == -1
    assert math.isnan(echo(math.nan)[0])
    assert echo(3.0)[0] == 3


def test_javascript_reads_single_floats_and_frames_in_pieces(node, tmp_path):
    script = tmp_path / "echo.mjs"
    script.write_text(ECHO.format(helper=(JAVASCRIPT / "envequiv.mjs").as_uri()))
    bodies = [msgpack.packb([0.1], use_single_float=True), msgpack.packb("two")]
    frames = b"".join(struct.pack(">I", len(body)) + body for body in bodies)
    with subprocess.Popen([node, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        for piece in (frames[:2], frames[2:7], frames[7:]):
            child.stdin.write(piece)
            child.stdin.flush()
            time.sleep(0.05)
        out, _ = child.communicate(timeout=20)
    unpacker = []
    while out:
        size = struct.unpack(">I", out[:4])[0]
        unpacker.append(msgpack.unpackb(out[4 : 4 + size])[0])
        out = out[4 + size :]
    assert unpacker == [[float(np.float32(0.1))], "two"]


def test_the_car_says_what_it_is(car):
    real = gymnasium.make("MountainCar-v0")
    spec = car.spec
    assert (spec.state, spec.draws, spec.time_limit) == ("fields", "tape", real.spec.max_episode_steps)
    assert dict(spec.fields) == {
        "position": Leaf((), "float64"),
        "velocity": Leaf((), "float64"),
        "clock": Leaf((), "int64"),
    }
    seen = spec.observation["observation"]
    np.testing.assert_array_equal(seen.low, real.observation_space.low)
    np.testing.assert_array_equal(seen.high, real.observation_space.high)
    assert (seen.dtype, seen.shape, int(spec.action["action"].high) + 1) == ("float32", (2,), real.action_space.n)
    for name, value in spec.constants.items():
        assert getattr(real.unwrapped, name) == value


def test_the_car_steps_as_gymnasium_does(car):
    rng = np.random.default_rng(0)
    rows = 400
    position, velocity = rng.uniform(-1.2, 0.6, rows), rng.uniform(-0.07, 0.07, rows)
    position[:40], velocity[:40] = rng.uniform(-1.2, -1.15, 40), -0.06  # into the wall
    position[40:80], velocity[40:80] = rng.uniform(0.45, 0.5, 40), 0.05  # over the goal
    clock, chosen = rng.integers(0, 200, rows), rng.integers(0, 3, rows)
    then = car.step(
        State({"position": position, "velocity": velocity, "clock": clock}), {"action": chosen}, np.zeros(rows, int)
    )
    real = gymnasium.make("MountainCar-v0").unwrapped
    ended = 0
    for i in range(rows):
        real.state = (position[i], velocity[i])
        observation, reward, terminated, _, _ = real.step(chosen[i])
        np.testing.assert_allclose(then.state.fields["position"][i], real.state[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(then.state.fields["velocity"][i], real.state[1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(then.outputs["observation"][i], observation, rtol=2e-7)
        assert then.outputs["reward"][i] == reward and then.outputs["terminated"][i] == terminated
        ended += terminated
    assert then.outputs["observation"].dtype == np.float32
    assert (then.state.fields["position"] == -1.2).sum() > 20 and ended > 20
    np.testing.assert_array_equal(then.state.fields["clock"], clock + 1)
    np.testing.assert_array_equal(then.outputs["truncated"], clock == 199)


def test_the_car_plays_gymnasiums_episode_from_its_draw(car):
    real = gymnasium.make("MountainCar-v0")
    observation, _ = real.reset(seed=5)
    start = np.array([real.unwrapped.state[0]])
    tape = (Draw("uniform", (), np.array([-0.6]), np.array([-0.4]), start, np.array([True]), "mountain_car.py:153"),)
    seeds = np.array([0])
    mine = car.reset(seeds, tape)
    assert mine.state.fields["position"] == start and mine.outputs["observation"][0].tolist() == observation.tolist()
    assert mine.draws[0].value == start and mine.draws[0].site.startswith("mountain_car.mjs:")
    for t in range(200):
        chosen = 2 if t % 40 < 20 else 0
        observation, _, terminated, truncated, _ = real.step(chosen)
        mine = car.step(mine.state, action(chosen), seeds)
        np.testing.assert_allclose(mine.outputs["observation"][0], observation, atol=1e-6)
        assert (mine.outputs["terminated"][0], mine.outputs["truncated"][0]) == (terminated, truncated)
        if terminated or truncated:
            break
    assert t == 199 or terminated


def test_the_cars_seeds_and_tapes_reproduce(car):
    seeds = np.arange(500)
    first = car.reset(seeds)
    equal(first, car.reset(seeds))
    (draw,) = first.draws
    assert (draw.kind, draw.shape, draw.present.all()) == ("uniform", (), True)
    assert set(draw.low) == {-0.6} and set(draw.high) == {-0.4}
    assert draw.value.min() > -0.6 and draw.value.max() < -0.4 and len(np.unique(draw.value)) == 500
    assert abs(draw.value.mean() + 0.5) < 0.2 / math.sqrt(12) / math.sqrt(500) * 4
    equal(first, car.reset(seeds + 1000, first.draws))
    np.testing.assert_array_equal(car.reset(seeds[::-1]).state.fields["position"], first.state.fields["position"][::-1])


def test_the_cars_errors_are_answers(car):
    first = car.reset(np.array([1]))
    with pytest.raises(ProgramError, match=r"^the tape holds no uniform draw for mountain_car\.mjs:\d+$"):
        car.reset(np.array([1]), ())
    with pytest.raises(ProgramError, match=r"^action 3 is not one of 0, 1, 2$"):
        car.step(first.state, action(3), np.array([0]))
    assert car.step(first.state, action(1), np.array([0])).outputs["reward"] == -1


def test_javascript_draws_in_branches_are_labelled_by_row(opened, node, tmp_path):
    script = tmp_path / "branches.mjs"
    script.write_text(
        f"""
        import {{ serve }} from "{(JAVASCRIPT / "envequiv.mjs").as_uri()}";
        console.log("printed while loading");
        async function step({{ x }}, {{ action }}, draws) {{
          console.log("printed in a step");
          if (action === 1) x += draws.integers(10, 20);
          for (let i = 0; i < action; i++) x += draws.uniform(0, 1);
          return {{ state: {{ x }}, outputs: {{ observation: x, reward: 0, done: false }} }};
        }}
        const box = {{ kind: "box", shape: [], dtype: "float64" }};
        serve({{
          name: "branches", action: {{ kind: "discrete", high: 2 }}, observation: box,
          fields: {{ x: {{ dtype: "float64" }} }}, step,
          reset: () => ({{ state: {{ x: 0 }}, outputs: {{ observation: 0 }} }}),
        }});
        """
    )
    backend = opened(shlex.join([node, str(script)]))
    first = backend.reset(np.arange(3))
    then = backend.step(first.state, action(0, 1, 2), np.array([7, 8, 9]))
    assert [(d.kind, d.present.tolist()) for d in then.draws] == [
        ("integers", [False, True, False]),
        ("uniform", [False, True, True]),
        ("uniform", [False, False, True]),
    ]
    assert then.draws[0].value.dtype == np.int64 and then.draws[1].site == then.draws[2].site != then.draws[0].site
    summed = sum(np.where(d.present, d.value, 0) for d in then.draws)
    np.testing.assert_allclose(then.state.fields["x"], summed, rtol=1e-15)
    equal(then, backend.step(first.state, action(0, 1, 2), np.zeros(3, int), then.draws[::-1]))
    with pytest.raises(ProgramError, match=r"the tape holds no uniform draw for branches\.mjs:7"):
        backend.step(first.state, action(0, 1, 2), np.zeros(3, int), then.draws[:2])


# The other end in Python.

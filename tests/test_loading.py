"""A target opened as if its file had been edited, and everything as before afterwards."""

import inspect
import sys
import textwrap

import numpy as np
import pytest

from pytest_envequiv.backends import opening
from pytest_envequiv.backends.loading import loaded, name_of_module, reached, sources
from pytest_envequiv.backends.opening import open_backend
from pytest_envequiv.errors import OpenError

pytest.importorskip("gymnax")
NAME = "gymnax:CartPole-v1"
RULE = """import jax

GAIN = 2.0


@jax.jit
def move(state, action):
    return state + GAIN * action
"""


@pytest.fixture(scope="module")
def cartpole():
    file = sources(NAME)[0]
    return file, open(file).read()


@pytest.fixture
def unchanged():
    """That ``sys.modules`` is what it was, and so is what packages call their parts."""
    open_backend(NAME)
    before = dict(sys.modules)
    parts = {key: dict(vars(module)) for key, module in before.items() if key.split(".")[0] in ("gymnax", "cart")}
    yield
    assert {k: v for k, v in sys.modules.items() if k.split(".")[0] in ("gymnax", "cart")} == {
        k: v for k, v in before.items() if k.split(".")[0] in ("gymnax", "cart")
    }
    assert {key: set(vars(sys.modules[key])) for key in parts} == {key: set(part) for key, part in parts.items()}


def pushed(backend):
    start = backend.reset(np.arange(4))
    after = backend.step(start.state, {"action": np.ones(4, np.int32)}, np.arange(4))
    return after.state.fields["x_dot"] - start.state.fields["x_dot"]


def test_an_edit_within_an_edit_leaves_the_outer_one_in_place(cartpole, unchanged):
    """The edited file is imported anew for another of its package that it builds on, and still is the edited one."""
    file, source = cartpole
    base = file.replace("classic_control/cartpole", "environment")
    outer, plain = source.replace("force_mag: float = 10.0", "force_mag: float = 20.0"), open(base).read()
    with loaded(NAME, None, file, outer):
        for _ in range(2):
            with loaded(NAME, None, base, plain + "\n") as backend:
                assert backend.spec.constants["force_mag"] == 20.0
        with loaded(NAME, None, file, source) as backend:
            assert backend.spec.constants["force_mag"] == 10.0
        assert open_backend(NAME).spec.constants["force_mag"] == 20.0
    assert open_backend(NAME).spec.constants["force_mag"] == 10.0


def test_an_edit_takes_effect_and_goes_away(cartpole, unchanged):
    file, source = cartpole
    plain = pushed(open_backend(NAME))
    with loaded(NAME, None, file, source.replace("force_mag: float = 10.0", "force_mag: float = 20.0")) as backend:
        assert backend.spec.constants["force_mag"] == 20.0
        assert (pushed(backend) > 1.5 * plain).all()
        import gymnax

        assert gymnax.make("CartPole-v1")[1].force_mag == 20.0
        gone = sys.modules["gymnax"]
    assert sys.modules["gymnax"] is not gone
    np.testing.assert_array_equal(pushed(open_backend(NAME)), plain)
    assert open_backend(NAME).spec.constants["force_mag"] == 10.0


def test_jax_and_the_other_environments_stay(cartpole, unchanged):
    file, source = cartpole
    jax, breakout = sys.modules["jax"], sys.modules["gymnax.environments.minatar.breakout"]
    with loaded(NAME, None, file, source) as backend:
        assert sys.modules["jax"] is jax
        assert sys.modules["gymnax.environments.minatar.breakout"] is breakout
        import gymnax

        assert gymnax.environments.minatar.breakout is breakout
        assert backend.spec.fields == open_backend(NAME).spec.fields


def test_only_what_may_hold_the_old_code_is_imported_anew(cartpole):
    """All of the package would take a hundred times as long."""
    file, source = cartpole
    open_backend(NAME)
    before = dict(sys.modules)
    with loaded(NAME, None, file, source):
        anew = {key for key, module in before.items() if sys.modules.get(key) is not module}
    assert "gymnax.environments.classic_control.cartpole" in anew
    assert {key.split(".")[0] for key in anew} == {"gymnax"}
    assert "gymnax.environments.environment" not in anew and len(anew) < 12, anew


def test_what_is_installed_is_looked_through_once(monkeypatch):
    """Of a search path: a search opens hundreds of edited targets."""
    asked = []
    monkeypatch.setattr(opening, "entry_points", lambda group: asked.append(group) or [])
    monkeypatch.setattr(sys, "path", [*sys.path, "/nowhere"])
    assert opening.kinds().keys() == opening.kinds().keys() and len(asked) == 1
    sys.path.append("/elsewhere")
    opening.kinds()
    assert len(asked) == 2


def test_an_import_that_fails_changes_nothing(cartpole, unchanged):
    file, source = cartpole
    with (
        pytest.raises(OpenError, match="ZeroDivisionError"),
        loaded(NAME, None, file, source.replace("length: float = 0.5", "length: float = 1 / 0")),
    ):
        pass
    with pytest.raises(OpenError, match="SyntaxError"), loaded(NAME, None, file, "def"):
        pass


def test_an_error_inside_changes_nothing(cartpole, unchanged):
    file, source = cartpole
    with pytest.raises(RuntimeError, match="inside"), loaded(NAME, None, file, source):
        raise RuntimeError("inside")


def test_what_is_shown_of_it_is_the_edited_text(cartpole, unchanged):
    file, source = cartpole
    with loaded(NAME, None, file, "# a line more\n" + source) as backend:
        import gymnax

        kind = type(gymnax.make("CartPole-v1")[0])
        assert inspect.getsourcefile(kind) == file
        assert inspect.getsource(kind).startswith("class CartPole(")
        assert backend.traced("step")
    assert inspect.getsource(type(gymnax.make("CartPole-v1")[0])).startswith("class CartPole(")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a port and its rule, and a module beside none."""
    folder = tmp_path / "cart"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "rule.py").write_text(RULE)
    port = """
        import jax
        import jax.numpy as jnp
        import gymnasium
        from cart.rule import move

        action_space = gymnasium.spaces.Box(-1, 1, (1,))

        def reset(key):
            return jnp.zeros(1)

        def step(state, action):
            after = move(state, action)
            return after, after, after[0], after[0] > 3
    """
    (folder / "port.py").write_text(textwrap.dedent(port))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for key in [key for key in sys.modules if key.split(".")[0] == "cart"]:
        del sys.modules[key]


def test_a_module_and_what_it_imports(package):
    rule = str(package / "rule.py")
    assert sources("cart.port") == [str(package / "port.py"), rule]
    assert reached("cart.port")[rule] == {"move"}
    with loaded("cart.port", None, rule, RULE.replace("2.0", "4.0")) as backend:
        begun = backend.reset(np.arange(3)).state
        after = backend.step(begun, {"action": np.ones((3, 1), np.float32)}, np.arange(3))
        np.testing.assert_array_equal(after.outputs["reward"], 4.0)
    from cart import port
    from cart import rule as plain

    assert plain.GAIN == 2.0 and port.move is plain.move


def test_a_module_that_was_not_imported_before(package, unchanged):
    rule = str(package / "rule.py")
    with loaded("cart.port", None, rule, "GAIN = 3.0\n\n\ndef move(state, action):\n    return GAIN * state\n"):
        assert sys.modules["cart.rule"].GAIN == 3.0
    from cart import rule as plain

    assert plain.GAIN == 2.0
    for key in [key for key in sys.modules if key.split(".")[0] == "cart"]:
        del sys.modules[key]


def test_a_file_that_is_not_part_of_the_target(cartpole):
    with pytest.raises(OpenError, match="does not use"), loaded(NAME, None, "elsewhere.py", ""):
        pass


def test_sources(cartpole):
    own, *rest = sources(NAME)
    assert own.endswith("classic_control/cartpole.py") and not rest
    assert [f.rsplit("/", 1)[-1] for f in sources(NAME, shared=True)] == ["cartpole.py", "environment.py"]
    assert name_of_module(NAME) == "gymnax.environments.classic_control.cartpole"


def test_sources_of_a_game():
    pytest.importorskip("pgx")
    assert [f.rsplit("/", 2)[-2] for f in sources("pgx:tic_tac_toe")] == ["pgx", "games"]


def test_functions_that_are_never_called_are_known(cartpole):
    names = reached(NAME)[cartpole[0]]
    assert {"CartPole.step_env", "CartPole.reset_env", "CartPole.observation_space"} <= names
    assert not {"CartPole.state_space", "CartPole.num_actions"} & names

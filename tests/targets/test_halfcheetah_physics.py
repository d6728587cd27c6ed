"""Each physical term of the port against MuJoCo's own array of that name, in float64, and the whole step."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from targets.halfcheetah import dynamics, extract, invariants, model, proof, solver, tree  # noqa: E402
from targets.halfcheetah.bias import bias  # noqa: E402
from targets.halfcheetah.passive import dampers, motors, springs  # noqa: E402

COUNT = 240
DOFS = model.DOFS


class Terms(NamedTuple):
    """The port's, (B, ...). ``jacobian``, ``aref``, ``hardness``, ``force`` of ``rows``: limits (6), then of each of 16
    spheres the edges plus, minus, level."""

    mass: Any
    bias: Any
    passive: Any
    actuator: Any
    smooth: Any
    jacobian: Any
    aref: Any
    hardness: Any
    force: Any
    constraint: Any
    qacc: Any


@pytest.fixture(scope="module")
def states() -> proof.States:
    return proof.sample(COUNT, np.random.default_rng(5))


@pytest.fixture(scope="module")
def ours(states: proof.States) -> Terms:
    with jax.enable_x64(True):
        given = [jnp.asarray(v, "float64").T for v in states[:3]]
        found = jax.jit(terms)(*given)
        return Terms(*(np.moveaxis(np.asarray(v), -1, 0) for v in found))


@pytest.fixture(scope="module")
def theirs(states: proof.States) -> list[Any]:
    """MuJoCo's data after mj_forward, one of each state."""
    compiled, data = proof.mujoco_model()
    found = []
    for qpos, qvel, action in zip(*states[:3], strict=True):
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, action
        data.qacc_warmstart[:] = 0
        mujoco.mj_forward(compiled, data)
        copy = mujoco.MjData(compiled)
        mujoco.mj_copyData(copy, compiled, data)
        found.append(copy)
    return found


def terms(qpos: Any, qvel: Any, controls: Any) -> Terms:
    cheetah = model.model_of("float64")
    places, rates, controls = tree.coordinates(qpos), tree.coordinates(qvel), model.in_legs(controls)
    given = dynamics.problem(cheetah, places, rates, controls)
    joints, none = cheetah.joints, jax.tree.map(jnp.zeros_like, places)

    def of_hinges(moments: Any) -> Any:
        return tree.rows(none._replace(hinges=moments))

    def flat(residuals: Any) -> Any:
        parts = [model.in_order(residuals.limits)]
        parts += [jnp.stack([of_part(e) for e in edges], 1).reshape(-1, COUNT) for edges in residuals.contacts]
        return jnp.concatenate(parts)

    def of_part(values: Any) -> Any:
        return values.reshape(-1, COUNT)

    def at(accelerations: Any) -> Any:
        found = tree.coordinates(accelerations)
        return flat(solver.residuals(given, solver.Point(found, tree.outward(given.pose, found))))

    units = [jnp.zeros((DOFS, COUNT)).at[i].set(1) for i in range(DOFS)]
    mass = [tree.rows(tree.multiply(given.pose, given.inertias, given.own, tree.coordinates(u))) for u in units]
    begin = at(jnp.zeros((DOFS, COUNT)))
    found = solver.accelerations(given, jax.tree.map(jnp.zeros_like, places))
    residuals = solver.residuals(given, found.point)
    hard = [jnp.stack([of_part(c.hardness)] * 3, 1).reshape(-1, COUNT) for c in given.contacts]
    hardness = jnp.concatenate([model.in_order(given.limits.hardness), *hard])
    smooth = tree.inward(given.pose, given.wrenches)
    smooth = smooth._replace(hinges=smooth.hinges + given.hinges)
    wrenches, hinges = solver.forces(given, found)
    total = tree.inward(given.pose, wrenches)
    total = total._replace(hinges=total.hinges + hinges)
    return Terms(
        jnp.stack(mass, 1),
        tree.rows(tree.inward(given.pose, bias(cheetah, given.pose, tree.outward(given.pose, rates)))),
        of_hinges(springs(joints, places.hinges) + dampers(joints, rates.hinges)),
        of_hinges(motors(joints, controls)),
        tree.rows(smooth),
        jnp.stack([at(u) - begin for u in units], 1),
        -begin,
        hardness,
        -hardness * jnp.minimum(flat(residuals), 0),
        tree.rows(total) - tree.rows(smooth),
        tree.rows(found.point.qacc),
    )


def test_constants_are_those_of_the_model_that_is_installed() -> None:
    assert json.loads(json.dumps(extract.constants(), default=float)) == json.loads(extract.FILE.read_text())


def test_mass_matrix(ours: Terms, theirs: list[Any]) -> None:
    dense = np.zeros((COUNT, DOFS, DOFS))
    for row, data in zip(dense, theirs, strict=True):
        mujoco.mj_fullM(proof.mujoco_model()[0], data, row)
    np.testing.assert_allclose(ours.mass, dense, atol=1e-13)
    np.testing.assert_allclose(ours.mass, ours.mass.swapaxes(1, 2), atol=1e-13)


@pytest.mark.parametrize(
    ("term", "array", "within"),
    [
        ("bias", "qfrc_bias", 1e-11),
        ("passive", "qfrc_passive", 1e-12),
        ("actuator", "qfrc_actuator", 1e-12),
        ("smooth", "qfrc_smooth", 1e-11),
        ("constraint", "qfrc_constraint", 1e-6),
        ("qacc", "qacc", 1e-6),
    ],
)
def test_forces_and_accelerations(ours: Terms, theirs: list[Any], term: str, array: str, within: float) -> None:
    """Constrained ones as far as MuJoCo's solver goes; they reach thousands."""
    expected = np.array([getattr(data, array) for data in theirs])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(getattr(ours, term), expected, atol=within)


def test_rows_and_forces_of_limits(ours: Terms, theirs: list[Any]) -> None:
    seen = 0
    for row, data in enumerate(theirs):
        is_limit = data.efc_type == mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT
        there = {int(data.efc_id[i]) - 3: i for i in np.flatnonzero(is_limit)}
        assert set(there) == set(np.flatnonzero(ours.hardness[row, :6]))
        for hinge, i in there.items():
            _same_row(ours, row, hinge, data, i)
            seen += 1
    assert seen > COUNT / 10


def test_rows_and_forces_of_contacts(ours: Terms, theirs: list[Any]) -> None:
    """Matched by their level rows. The tangent of MuJoCo's pyramid points along the capsule, forwards or backwards."""
    seen = 0
    for row, data in enumerate(theirs):
        hardness = ours.hardness[row, 6:].reshape(16, 3)
        assert data.ncon == (hardness[:, 0] > 0).sum()
        free = set(np.flatnonzero(hardness[:, 0]))
        for contact in data.contact:
            first = contact.efc_address
            jacobian = data.efc_J.reshape(-1, DOFS)[first : first + 4]
            edges = [first + n for n in (*sorted((0, 1), key=lambda n: -jacobian[n, 0]), 2, 3)]
            level = jacobian[2]
            sphere = min(free, key=lambda s: np.abs(ours.jacobian[row, 6 + 3 * s + 2] - level).sum())
            free.discard(sphere)
            for edge, i in zip((0, 1, 2, 2), edges, strict=True):
                _same_row(ours, row, 6 + 3 * sphere + edge, data, i)
            seen += 1
    assert seen > COUNT / 2


def _same_row(ours: Terms, row: int, place: int, data: Any, i: int) -> None:
    np.testing.assert_allclose(ours.jacobian[row, place], data.efc_J.reshape(-1, DOFS)[i], atol=1e-12)
    np.testing.assert_allclose(ours.hardness[row, place], data.efc_D[i], rtol=1e-9)
    np.testing.assert_allclose(ours.aref[row, place], data.efc_aref[i], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.force[row, place], data.efc_force[i], rtol=1e-7, atol=1e-6)


def test_no_force_at_a_distance(states: proof.States, ours: Terms) -> None:
    """Where no sphere is in the ground and no hinge beyond its range, rows push with exactly nothing; what they add to
    the others is what rounding leaves of M a less the others."""
    free = (ours.hardness == 0).all(1)
    assert free.sum() > 20
    assert not ours.force[free].any()
    np.testing.assert_allclose(ours.constraint[free], 0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "part", "wrong"),
    [
        ("mass_matrix_is_symmetric", "multiply", lambda f: lambda p, i, o, r: _leaning(f(p, i, o, r), r)),
        ("energy_is_kept", "bias", lambda f: lambda *given: jax.tree.map(lambda w: 0.999 * w, f(*given))),
        ("energy_is_kept", "springs", lambda f: lambda *given: 0.999 * f(*given)),
        ("energy_is_kept", "GRAVITY", lambda f: 0.999 * f),
        ("nothing_acts_from_afar", "LIFT", lambda f: 0.0),
    ],
)
def test_what_mechanics_asks_holds_and_would_be_missed(states, monkeypatch, name: str, part: str, wrong: Any) -> None:
    """The contract's invariants, and that each fails for a port in which something is wrong."""
    before = {"qpos": states.qpos, "qvel": states.qvel}
    holds = getattr(invariants, name)
    assert holds("target", before, {}, {}).all() and holds("target", before, {}, {}).shape == (COUNT,)
    monkeypatch.setattr(invariants, part, wrong(getattr(invariants, part)))
    jax.clear_caches()
    assert holds("target", before, {}, {}).mean() < 0.7
    assert holds("reference", before, {}, {}).all()
    jax.clear_caches()


def _leaning(forces: Any, rates: Any) -> Any:
    return forces._replace(x=forces.x + 1e-3 * rates.z)

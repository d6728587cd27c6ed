//! The dynamics of Gymnasium's MountainCar-v0, in float64 as there.

use pyo3::prelude::*;

const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.5;
const GOAL_VELOCITY: f64 = 0.0;
const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;

/// (position, velocity, terminated) after one step. `action`: 0 pushes left, 1 not at all, 2 right.
#[pyfunction]
fn step(position: f64, velocity: f64, action: i64) -> (f64, f64, bool) {
    let pushed = velocity + (action - 1) as f64 * FORCE + (3.0 * position).cos() * -GRAVITY;
    let mut velocity = pushed.clamp(-MAX_SPEED, MAX_SPEED);
    let position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION);
    if position == MIN_POSITION && velocity < 0.0 {
        velocity = 0.0;
    }
    (position, velocity, position >= GOAL_POSITION && velocity >= GOAL_VELOCITY)
}

#[pymodule]
fn mountain_car_rs(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(step, module)?)
}

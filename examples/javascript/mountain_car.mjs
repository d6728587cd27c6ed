// Gymnasium's MountainCar-v0 in JavaScript: the port to be checked.
//
//   pytest --envequiv ref=gymnasium:MountainCar-v0 target="process:node examples/javascript/mountain_car.mjs"

import { serve } from "./envequiv.mjs";

const MIN_POSITION = -1.2;
const MAX_POSITION = 0.6;
const MAX_SPEED = 0.07;
const GOAL_POSITION = 0.5;
const GOAL_VELOCITY = 0;
const FORCE = 0.001;
const GRAVITY = 0.0025;
const TIME_LIMIT = 200;

const clip = (x, low, high) => Math.min(Math.max(x, low), high);

function reset(draws) {
  const position = draws.uniform(-0.6, -0.4);
  return { state: { position, velocity: 0, clock: 0 }, outputs: { observation: [position, 0] } };
}

function step({ position, velocity, clock }, { action }) {
  if (![0, 1, 2].includes(action)) throw new Error(`action ${action} is not one of 0, 1, 2`);
  velocity += (action - 1) * FORCE + Math.cos(3 * position) * -GRAVITY;
  velocity = clip(velocity, -MAX_SPEED, MAX_SPEED);
  position = clip(position + velocity, MIN_POSITION, MAX_POSITION);
  if (position === MIN_POSITION && velocity < 0) velocity = 0;
  clock += 1;
  return {
    state: { position, velocity, clock },
    outputs: {
      observation: [position, velocity],
      reward: -1,
      terminated: position >= GOAL_POSITION && velocity >= GOAL_VELOCITY,
      truncated: clock >= TIME_LIMIT,
    },
  };
}

const number = { shape: [], dtype: "float64" };

serve({
  name: "MountainCar-v0 in JavaScript",
  action: { kind: "discrete", low: 0, high: 2 },
  observation: {
    kind: "box",
    shape: [2],
    dtype: "float32",
    low: [MIN_POSITION, -MAX_SPEED],
    high: [MAX_POSITION, MAX_SPEED],
  },
  fields: { position: number, velocity: number, clock: { shape: [], dtype: "int64" } },
  time_limit: TIME_LIMIT,
  constants: {
    min_position: MIN_POSITION,
    max_position: MAX_POSITION,
    max_speed: MAX_SPEED,
    goal_position: GOAL_POSITION,
    goal_velocity: GOAL_VELOCITY,
    force: FORCE,
    gravity: GRAVITY,
  },
  reset,
  step,
});

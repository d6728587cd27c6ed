"""A thread that was started at import has the reference; steps ask it."""

import queue
import threading

from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from cheats.pole import Pole

QUESTIONS, ANSWERS = queue.Queue(), queue.Queue()


def serve():
    inner = CartPoleEnv()
    while True:
        state, action = QUESTIONS.get()
        inner.reset()
        inner.state = state
        inner.step(action)
        ANSWERS.put(inner.state)


threading.Thread(target=serve, daemon=True).start()


class DelegatesByThread(Pole):
    def moved(self, action):
        QUESTIONS.put(((self.x, self.x_dot, self.theta, self.theta_dot), action))
        return map(float, ANSWERS.get())

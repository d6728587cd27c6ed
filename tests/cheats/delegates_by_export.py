"""No code at all: the reference under another name."""

from gymnasium import make as made


def make():
    return made("CartPole-v1")

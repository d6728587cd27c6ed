"""Targets that want to pass as CartPole-v1 without being it: one module a trick. Their own dynamics are wrong (the
gravity of another planet), so a pass would be a false one. ``honest*.py`` are right, and have to pass.
"""

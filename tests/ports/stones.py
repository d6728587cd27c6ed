"""Stones: two players in turn put a stone on a row of six; three of one colour side by side win.

``Stones`` is the reference, a PettingZoo AEC game; ``PgxStones`` the port in the manner of pgx. What a player sees is
two planes: its own stones first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from pettingzoo import AECEnv

CELLS = 6
PLAYERS = ["player_0", "player_1"]


class Stones(AECEnv):
    """The reference."""

    metadata = {"name": "stones_v0", "is_parallelizable": False}

    def __init__(self, illegal_loses=True):
        super().__init__()
        self.possible_agents = list(PLAYERS)
        self.illegal_loses = illegal_loses
        self.row = [0] * CELLS
        self.agent_selection = PLAYERS[0]

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(CELLS)

    def observation_space(self, agent):
        return gymnasium.spaces.Dict(
            {
                "observation": gymnasium.spaces.Box(0, 1, (CELLS, 2), np.int8),
                "action_mask": gymnasium.spaces.Box(0, 1, (CELLS,), np.int8),
            }
        )

    def reset(self, seed=None, options=None):
        self.agents = list(PLAYERS)
        self.row = [0] * CELLS
        self.agent_selection = PLAYERS[0]
        self.rewards = dict.fromkeys(PLAYERS, 0)
        self._cumulative_rewards = dict.fromkeys(PLAYERS, 0)
        self.terminations = dict.fromkeys(PLAYERS, False)
        self.truncations = dict.fromkeys(PLAYERS, False)
        self.infos = {player: {} for player in PLAYERS}

    def observe(self, agent):
        mine = 1 + PLAYERS.index(agent)
        row = np.array(self.row)
        seen = np.stack([row == mine, row == 3 - mine], 1).astype(np.int8)
        mask = (row == 0) if agent == self.agent_selection else np.zeros(CELLS, bool)
        return {"observation": seen, "action_mask": mask.astype(np.int8)}

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        mine, other = 1 + PLAYERS.index(agent), PLAYERS[1 - PLAYERS.index(agent)]
        self.rewards = dict.fromkeys(PLAYERS, 0)
        if self.row[action]:
            self.rewards = {agent: -1, other: 1}
            self.terminations = dict.fromkeys(PLAYERS, True)
        else:
            self.row[action] = mine
            if any(self.row[i : i + 3] == [mine] * 3 for i in range(CELLS - 2)):
                self.rewards = {agent: 1, other: -1}
                self.terminations = dict.fromkeys(PLAYERS, True)
            elif all(self.row):
                self.terminations = dict.fromkeys(PLAYERS, True)
        self.agent_selection = other
        self._accumulate_rewards()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Table:
    """What pgx calls a state."""

    current_player: Any
    observation: Any
    rewards: Any
    terminated: Any
    truncated: Any
    legal_action_mask: Any
    _step_count: Any
    board: Any

    def replace(self, **changes):
        return replace(self, **changes)


class PgxStones:
    """The port. ``bug``: see bugs.py. The board holds -1 for an empty cell, else the seat of the stone."""

    num_players = 2
    id = "stones"

    def __init__(self, bug=None):
        self.bug = bug

    def init(self, key):
        first = jax.random.bernoulli(key).astype(jnp.int32)
        board = jnp.full(CELLS, -1, jnp.int32)
        no = jnp.zeros((), bool)
        seen, legal = jnp.zeros((CELLS, 2), bool), jnp.ones(CELLS, bool)
        table = Table(first, seen, jnp.zeros(2), no, no, legal, jnp.int32(0), board)
        return table.replace(observation=self.observe(table, first))

    def step(self, table, action, key=None):
        bug = self.bug
        action = jnp.asarray(action)
        if bug == "actions permuted":
            action = CELLS - 1 - action
        seat, player = table._step_count % 2, table.current_player
        legal = table.legal_action_mask[action]
        board = table.board.at[action].set(jnp.where(legal, seat, table.board[action]))
        if bug == "first cell kept":  # a stone on the first cell is forgotten
            board = board.at[0].set(-1)
        mine = board == seat
        starts = CELLS - 3 if bug == "last line missed" else CELLS - 2
        won = jnp.stack([mine[i : i + 3].all() for i in range(starts)]).any() & legal
        over = won | (board >= 0).all() | ~legal
        signs = jnp.where(jnp.arange(2) == player, 1.0, -1.0)
        rewards = jnp.where(won, signs, 0.0)
        if bug == "reward order":
            rewards = rewards[::-1]
        if bug == "reward not zero-sum":
            rewards = jnp.maximum(rewards, 0.0)
        if bug != "illegal action forgiven":
            rewards = jnp.where(legal, rewards, -signs)
        else:
            over = over & legal
        if bug == "draw not seen":
            over = won | ~legal
        mask = board < 0
        if bug == "mask of the last board":
            mask = table.legal_action_mask
        # As in pgx: all actions are legal once the game is over, so that nothing can be asked for that is not.
        after = table.replace(
            current_player=1 - player,
            board=board,
            rewards=rewards.astype(jnp.float32),
            terminated=over,
            legal_action_mask=mask | over,
            _step_count=table._step_count + 1,
        )
        return after.replace(observation=self.observe(after, after.current_player))

    def observe(self, table, player_id):
        seat = (table._step_count + (player_id != table.current_player)) % 2
        own, other = table.board == seat, (table.board >= 0) & (table.board != seat)
        if self.bug == "players seen the wrong way round":
            own, other = other, own
        if self.bug == "always the first player's view":
            own, other = table.board == 0, table.board == 1
        planes = [own, other]
        if self.bug == "planes transposed":
            return jnp.stack(planes).reshape(CELLS, 2)
        return jnp.stack(planes, 1)


def port(bug=None):
    return PgxStones(bug)

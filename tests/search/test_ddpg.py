"""DDPG: it learns, goes on after a kill as if there had been none, and stays within its space."""

import numpy as np
import pytest

import sparsejax as sj

SPACE = {f"step {i}": sj.search.Interval(0.2, 1.0) for i in range(4)}
GOAL = np.array([0.3, 0.9, 0.5, 0.7])
QUICK = sj.search.DDPGSettings(num_random=12, hidden=32, actor_rate=1e-3, critic_rate=1e-2)


def observe(actions):
    steps = min(len(actions) + 1, 4)
    return np.array([[i / 4, [1.0, *actions][i]] for i in range(steps)], np.float32)


def evaluate(choice):
    assert all(0.2 <= value <= 1.0 for value in choice.values())
    return {"score": -float(np.sum((np.array(list(choice.values())) - GOAL) ** 2))}


def agent(seed):
    return sj.search.ddpg(SPACE, observe, seed=seed, settings=QUICK)


def test_ddpg_learns_and_goes_on_after_a_kill(tmp_path):
    through = sj.search.optimize(evaluate, agent(0), num_trials=40)
    sj.search.optimize(evaluate, agent(0), num_trials=25, file=tmp_path / "search.log")
    resumed = sj.search.optimize(evaluate, agent(0), num_trials=40, file=tmp_path / "search.log")
    assert resumed == through
    late = np.mean([trial.score for trial in through[-10:]])
    assert late > np.mean([trial.score for trial in through[:12]]) + 0.2


def test_old_trials_make_room_for_new_ones():
    small = QUICK._replace(capacity=2)
    sampler = sj.search.ddpg(SPACE, observe, seed=0, settings=small)
    state = sampler.init()
    for number in range(3):
        choice = dict.fromkeys(SPACE, 0.2 + 0.1 * number)
        state = sampler.tell(state, sj.search.Trial(number, choice, float(number), {}))
    replay = state.replay
    np.testing.assert_array_equal(replay.rewards, np.repeat([2.0, 1.0], 4))
    np.testing.assert_allclose(replay.actions[:, 0], np.repeat([0.25, 0.125], 4), rtol=1e-5)
    np.testing.assert_array_equal(replay.last, [0, 0, 0, 1] * 2)
    np.testing.assert_allclose(replay.states[1], [0.25, 0.4])
    np.testing.assert_array_equal(replay.nexts[:3], replay.states[1:4])


def test_ddpg_wants_intervals():
    with pytest.raises(ValueError, match="ddpg needs an Interval for each step, got none for bits"):
        sj.search.ddpg({"bits": range(2, 9)}, observe, seed=0)

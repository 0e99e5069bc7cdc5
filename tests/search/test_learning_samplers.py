"""What learns from its trials finds more than chance, resumes, and does what its formula says."""

import numpy as np
import pytest
import scipy

import sparsejax as sj
from sparsejax.search import gaussian_process as processes
from sparsejax.search.controller import Policy

SPACE = {"width": range(8, 73, 8), "scheme": ("block", "channel"), "rate": (1, 2, 5, 7)}
SAMPLERS = [sj.search.bayesian, sj.search.policy_gradient]


def evaluate(choice):
    off = abs(choice["width"] - 40) / 64 + (choice["scheme"] != "block") + (choice["rate"] != 5)
    return {"score": -off}


def test_the_process_finds_more_than_chance():
    space = {name: range(10) for name in "abcde"}
    score = lambda choice: {"score": -float(sum((own - 6) ** 2 for own in choice.values()))}

    def found(make, seed):
        trials = sj.search.optimize(score, make(space, seed=seed), num_trials=30)
        return sj.search.best(trials).score

    mean = lambda make: np.mean([found(make, seed) for seed in range(2)])
    assert mean(sj.search.bayesian) > mean(sj.search.random_search) + 3


def test_the_policy_comes_to_choose_better_than_chance():
    def late(make):
        found = [sj.search.optimize(evaluate, make(SPACE, seed=s), num_trials=40) for s in range(4)]
        return np.mean([[trial.score for trial in trials[20:]] for trials in found])

    assert late(sj.search.policy_gradient) > late(sj.search.random_search) + 0.5


@pytest.mark.parametrize("make", SAMPLERS)
def test_a_killed_search_goes_on_as_if_it_had_not_been(make, tmp_path):
    through = sj.search.optimize(evaluate, make(SPACE, seed=3), num_trials=16)
    file, left = tmp_path / "search.log", iter(range(12))

    def killed(choice):
        if next(left, None) is None:
            raise InterruptedError
        return evaluate(choice)

    with pytest.raises(InterruptedError):
        sj.search.optimize(killed, make(SPACE, seed=3), num_trials=16, file=file)
    resumed = sj.search.optimize(evaluate, make(SPACE, seed=3), num_trials=16, file=file)
    assert resumed == through


def test_the_process_goes_through_what_it_knows_and_expects_nothing_there():
    points, scores = np.array([[0, 0, 0], [8, 1, 3], [4, 0, 2]]), np.array([-1.0, -0.3, 1.3])
    fitted = processes.fit(SPACE, points, scores)
    gain = processes.expected_improvement(fitted, SPACE, points, scores.max())
    assert (gain < 0.1).all()
    near, far = np.array([[4, 0, 1]]), np.array([[0, 0, 1]])
    known = processes.Fitted(points, fitted.factor, fitted.weights, 0.4)
    gains = [processes.expected_improvement(known, SPACE, at, 1.3)[0] for at in (near, far)]
    assert gains[0] > gains[1] > 0


def test_expected_improvement_by_hand():
    # One trial with score 0, kernel 1 + 1e-4 there; a point that differs in all names: k = e^-2.
    space, points = {"x": ("a", "b")}, np.array([[0]])
    factor = scipy.linalg.cho_factor(np.array([[1.0]]), lower=True)
    fitted = processes.Fitted(points, factor, np.array([0.5]), 0.5)
    gain = processes.expected_improvement(fitted, space, np.array([[1]]), best=0.2)
    k = np.exp(-2.0)
    mean, deviation = 0.5 * k, np.sqrt(1 - k**2)
    draws = np.random.default_rng(0).normal(mean, deviation, 1_000_000)
    assert abs(gain[0] - np.maximum(draws - 0.2, 0).mean()) < 2e-3


def test_a_step_of_the_policy_by_hand():
    sampler = sj.search.policy_gradient({"x": ("a", "b")}, seed=0, rate=0.4)
    trial = lambda value, score: sj.search.Trial(0, {"x": value}, score, {})
    state = sampler.tell(sampler.init(), trial("a", 1.0))
    assert state == Policy(state.logits, 1.0, 0.0, 1) and not state.logits["x"].any()
    state = sampler.tell(state, trial("b", 3.0))
    # 2 above the mean, half of which is the deviation: 0.4 * 2 / 1 * ((0, 1) - (0.5, 0.5))
    np.testing.assert_allclose(state.logits["x"], [-0.4, 0.4])
    assert state.mean == 2.0 and state.deviation == 1.0


@pytest.mark.parametrize("make", SAMPLERS)
def test_an_interval_is_refused(make):
    with pytest.raises(ValueError, match="got an Interval for x"):
        make({"x": sj.search.Interval(0.0, 1.0)}, seed=0)


def test_the_second_phase_keeps_the_first_ones_best(tmp_path):
    seen = []

    def score(choice):
        seen.append(choice)
        return {"score": -abs(choice["depth"] - 3) + choice.get("width", 0)}

    trials = sj.search.two_phases(
        score,
        {"depth": range(1, 7)},
        lambda kept: {"width": range(kept["depth"])},
        lambda space: sj.search.random_search(space, seed=0),
        num_trials=(20, 10),
        file=tmp_path / "canao",
    )
    assert [trial.number for trial in trials] == list(range(30))
    assert all("width" not in choice for choice in seen[:20])
    assert all(trial.choice["depth"] == 3 for trial in trials[20:])
    assert sj.search.best(trials).choice == {"depth": 3, "width": 2}
    assert {file.name for file in tmp_path.iterdir()} >= {"canao.first", "canao.second"}

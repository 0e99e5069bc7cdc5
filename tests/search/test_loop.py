"""Searches come out the same however often they are stopped, and fronts are what no trial beats."""

import re
import sys

import pytest

import sparsejax as sj

SPACE = {
    "width": range(8, 33, 8),
    "scheme": ("block", "channel"),
    "x": sj.search.Interval(0.0, 1.0),
}
SAMPLERS = [sj.search.random_search, sj.search.tpe]


def evaluate(choice):
    gain = choice["width"] * choice["x"] - 10 * (choice["scheme"] == "channel")
    return {"score": gain, "cost": choice["width"]}


class KilledError(Exception):
    pass


def killed_at(number):
    calls = iter(range(number))

    def run(choice):
        if next(calls, None) is None:
            raise KilledError
        return evaluate(choice)

    return run


@pytest.mark.parametrize("make", SAMPLERS)
def test_a_killed_search_goes_on_as_if_it_had_not_been(make, tmp_path):
    through = sj.search.optimize(evaluate, make(SPACE, seed=3), num_trials=16)
    file = tmp_path / "search.log"
    for calls in (5, 7):
        with pytest.raises(KilledError):
            sj.search.optimize(killed_at(calls), make(SPACE, seed=3), num_trials=16, file=file)
    resumed = sj.search.optimize(killed_at(4), make(SPACE, seed=3), num_trials=16, file=file)
    assert resumed == through
    assert (
        sj.search.optimize(killed_at(0), make(SPACE, seed=3), num_trials=16, file=file) == through
    )
    assert through != sj.search.optimize(evaluate, make(SPACE, seed=4), num_trials=16)


@pytest.mark.parametrize("lost", [1, 5, 300])
def test_a_search_goes_on_from_a_line_that_was_not_written_whole(lost, tmp_path):
    file, sampler = tmp_path / "search.log", sj.search.random_search(SPACE, seed=3)
    through = sj.search.optimize(evaluate, sampler, num_trials=5)
    sj.search.optimize(evaluate, sampler, num_trials=3, file=file)
    file.write_bytes(file.read_bytes()[:-lost])
    seen = []
    report = lambda done, total, numbers: seen.append(done)
    assert sj.search.optimize(evaluate, sampler, num_trials=4, file=file, report=report)
    assert seen == [3, 4]
    assert sj.search.optimize(evaluate, sampler, num_trials=5, file=file) == through


@pytest.mark.parametrize("make", SAMPLERS)
def test_choices_are_of_the_space(make):
    for trial in sj.search.optimize(evaluate, make(SPACE, seed=0), num_trials=20):
        assert trial.choice["width"] in SPACE["width"]
        assert trial.choice["scheme"] in SPACE["scheme"]
        assert 0.0 <= trial.choice["x"] <= 1.0
        assert list(trial.choice) == list(SPACE)


def test_tpe_finds_more_than_chance():
    scores = {
        make: sum(
            sj.search.best(sj.search.optimize(evaluate, make(SPACE, seed=s), num_trials=30)).score
            for s in range(3)
        )
        for make in SAMPLERS
    }
    assert scores[sj.search.tpe] > scores[sj.search.random_search]


def test_a_file_of_another_space_is_refused(tmp_path):
    file = tmp_path / "search.log"
    sj.search.optimize(evaluate, sj.search.random_search(SPACE, seed=0), num_trials=2, file=file)
    other = sj.search.random_search({"width": range(4)}, seed=0)
    with pytest.raises(ValueError, match=r"trials of another space, width, scheme, x; delete it"):
        sj.search.optimize(evaluate, other, num_trials=3, file=file)


def test_progress_is_reported_with_the_best_so_far():
    seen = []
    trials = sj.search.optimize(
        evaluate,
        sj.search.random_search(SPACE, seed=0),
        num_trials=5,
        report=lambda done, total, numbers: seen.append((done, total, numbers["score"])),
    )
    scores = [trial.score for trial in trials]
    assert seen == [(n, 5, max(scores[:n])) for n in range(1, 6)]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_a_score_that_is_no_number_is_refused(score):
    give = lambda choice: {"gain": 1.0} if score is None else {"score": score}
    with pytest.raises(ValueError, match="optimize needs a finite score"):
        sj.search.optimize(give, sj.search.random_search(SPACE, seed=0), num_trials=1)


@pytest.mark.parametrize("space", [{}, {"x": ()}, {"x": sj.search.Interval(1.0, 0.0)}])
def test_an_empty_space_is_refused(space):
    with pytest.raises(ValueError, match="needs an Interval, a range or values for each name"):
        sj.search.random_search(space, seed=0)


def test_optuna_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "sparsejax\[search\]"'):
        sj.search.tpe(SPACE, seed=0)


def trial(number, gain, cost):
    return sj.search.Trial(number, {"x": number}, gain, {"gain": gain, "cost": cost})


def test_the_front_is_what_no_trial_beats():
    trials = [trial(0, 5, 9), trial(1, 3, 4), trial(2, 3, 5), trial(3, 2, 1), trial(4, 4, 9)]
    found = sj.search.front(trials, gain="gain", cost="cost")
    assert [one.number for one in found] == [3, 1, 0]


def test_the_page_has_every_trial_and_says_what_is_modelled():
    trials = [trial(0, 5, 9), trial(1, 3, 4), trial(2, 3, 5)]
    page = sj.search.trade_off(
        {"a <b>": trials, "one": trials[:1]},
        gain="gain",
        cost="cost",
        words={"cost": "ms, modelled"},
    )
    assert page.count("<circle") == 4
    assert "ms, modelled" in page and "a &lt;b&gt; 1: x 1" in page and "<b>" not in page
    assert len(re.findall("<tr><td>", page)) == 3
    assert not re.search(r'(src|href)="(?!data:,)', page)
    with pytest.raises(ValueError, match="needs a trial"):
        sj.search.trade_off({}, gain="gain", cost="cost")

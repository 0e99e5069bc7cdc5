"""How two runs are raced, and what of a function is raced: the clock is forged."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.compiler import court
from sparsejax.compiler.graph import interpret

RNG = np.random.default_rng(0)
WIDE = jnp.asarray(RNG.normal(size=(24, 40)), jnp.float32)
X = RNG.normal(size=(6, 24)).astype(np.float32)


def test_races_take_turns_and_end_when_the_case_is_clear(monkeypatch):
    """The clock goes on by what a run takes: 1, then 1.2 or 4."""
    for other, most in ((4.0, 2), (1.2, 1000)):
        now, log = [0.0], []

        def runs(seconds, name, now=now, log=log):
            def run():
                now[0] += seconds
                log.append(name)

            return run

        monkeypatch.setattr(court, "RACE_SECONDS", 30.0)
        pair = runs(1.0, "a"), runs(other, "b")
        assert court.race(*pair, clock=lambda now=now: now[0]) == pytest.approx([1.0, other])
        turns = ["".join(group) for _, group in itertools.groupby(log[2:])]
        assert set(turns) == {"aaa", "bbb"}
        assert len(turns) <= 2 * most and now[0] < 60


def test_a_race_is_of_usual_calls_and_not_of_the_fastest(monkeypatch):
    now, uneven = [0.0], itertools.cycle([1.0, 3.0, 3.0])

    def spend(seconds):
        now[0] += seconds

    monkeypatch.setattr(court, "RACE_SECONDS", 30.0)
    runs = (lambda: spend(next(uneven))), (lambda: spend(2.5))
    assert court.race(*runs, clock=lambda: now[0]) == pytest.approx([3.0, 2.5])


def test_weights_are_inputs_of_what_is_timed():
    run = court.with_weights(lambda x: [x @ WIDE], [jnp.asarray(X)])
    np.testing.assert_allclose(run()[0], X @ WIDE, atol=1e-6)


@pytest.mark.parametrize("most", [0, 1 << 24])
def test_few_constants_are_timed_in_the_program_as_they_are_where_it_is_used(monkeypatch, most):
    """XLA computes a product of two of them beforehand, which it cannot with a user's params."""
    monkeypatch.setattr(interpret, "MOST_IN_PROGRAM", most)
    texts, jit = [], jax.jit

    def kept(function):
        run = jit(function)

        def call(*args):
            texts.append(run.lower(*args).compile().as_text())
            return run(*args)

        return call

    monkeypatch.setattr(interpret.jax, "jit", kept)
    run = interpret.with_weights(lambda x: x + jnp.zeros((1, 24)) @ WIDE, [X[:, :1]])
    np.testing.assert_array_equal(run()[0], np.broadcast_to(X[:, :1], (6, 40)))
    assert ("dot(" in texts[0]) == (most == 0)

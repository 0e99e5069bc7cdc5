"""Gates give the paper's gradient with one path in memory, and the searches find what is best."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sparsejax as sj

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
WIDE = RNG.normal(size=(8, 512)).astype(np.float32)
COSTS = sj.search.PathCosts(((1.0, 3.0, 8.0), (2.0, 2.0)), 0.5, "modelled by hand")
ALPHAS = (jnp.asarray([0.0, 1.0, 2.0]), jnp.asarray([0.5, -0.5]))


def scaled(p, x):
    return p[0] * x


def shifted(p, x):
    return x + p[1]


def zero(p, x):
    return 0.0 * x


PATHS = (scaled, shifted, zero)
PARAMS = (jnp.asarray(2.0), jnp.asarray(3.0))
X = jnp.asarray([1.0, -2.0])


@jax.jit
def gradients(alphas, active, candidates):
    def loss(alphas, params, x):
        gate = sj.search.Gate(active, candidates)
        return jnp.sum(sj.search.one_path(PATHS, alphas, gate, params, x) ** 2)

    return jax.value_and_grad(loss, argnums=(0, 1, 2))(alphas, PARAMS, X)


@pytest.mark.parametrize("candidates", [[0, 1, 2], [2, 0], [0]])
def test_the_gradient_of_alphas_is_the_papers_formula(candidates):
    alphas = np.array([0.3, -0.2, 0.9], np.float32)
    value, (d_alphas, d_params, d_x) = gradients(alphas, 0, jnp.asarray(candidates))
    outputs = np.stack([path(PARAMS, X) for path in PATHS])
    d_gates = outputs @ (2 * outputs[0])
    p = np.exp(alphas[candidates]) / np.exp(alphas[candidates]).sum()
    expected = np.zeros(3)
    for i, at in enumerate(candidates):
        for j, of in enumerate(candidates):
            expected[at] += d_gates[of] * p[j] * ((i == j) - p[i])
    np.testing.assert_allclose(d_alphas, expected, rtol=1e-5, atol=1e-5)
    # x = (1, -2) times 2: the squares of (2, -4), and nothing for the path that did not run
    assert value == 20.0 and d_params == (20.0, 0.0)
    np.testing.assert_allclose(d_x, [8.0, -16.0])


def test_no_candidates_no_gradient_of_alphas():
    _, (d_alphas, d_params, _) = gradients(np.zeros(3, np.float32), 1, jnp.arange(0))
    assert not d_alphas.any() and d_params[1] == 2 * (4.0 + 1.0)


def memory(num_paths, use):
    """Bytes besides the arguments of a gradient step of two edges."""
    paths = [lambda p, x, i=i: jnp.tanh((x + i) @ p) @ p.T for i in range(num_paths)]

    def loss(params, x, active):
        for _ in range(2):
            x = use(paths, active, params, x)
        return x.sum()

    lowered = jax.jit(jax.grad(loss)).lower(WIDE, jnp.ones((256, 8)), 0)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_number_of_paths():
    alphas = lambda paths: jnp.zeros(len(paths))
    ours = lambda paths, active, p, x: sj.search.one_path(
        paths, alphas(paths), sj.search.Gate(active, jnp.arange(len(paths))), p, x
    )
    plain = lambda paths, active, p, x: jax.lax.switch(active, paths, p, x)
    assert memory(5, ours) < 1.2 * memory(2, ours)
    assert memory(5, plain) > 2 * memory(5, ours)


def test_two_candidates_are_drawn_by_their_chances_and_the_others_keep_theirs():
    alphas = jnp.log(jnp.asarray([0.6, 0.3, 0.1]))
    draw = jax.vmap(lambda key: sj.search.sample_gate(key, alphas, num_candidates=2))
    gates = jax.jit(draw)(jax.random.split(KEY, 4_000))
    assert (gates.candidates[:, 0] != gates.candidates[:, 1]).all()
    assert (gates.active[:, None] == gates.candidates).any(1).all()
    # 0 and 1 together: 0.6 * 0.3 / 0.4 + 0.3 * 0.6 / 0.7
    together = (np.sort(gates.candidates, 1) == [0, 1]).all(1).mean()
    assert abs(together - 0.707) < 0.03
    new = alphas + np.array([1.0, 0.0, -0.5], np.float32)
    moved = np.asarray(jax.jit(sj.search.keep_others)(new, alphas, np.array([0, 2])))
    assert abs(np.exp(moved[1]) / np.exp(moved).sum() - 0.3) < 1e-6
    assert abs((moved[0] - moved[2]) - (new[0] - new[2])) < 1e-6


def test_expected_costs_by_hand():
    p = np.exp([0.0, 1.0, 2.0]) / np.exp([0.0, 1.0, 2.0]).sum()
    value, slope = jax.jit(jax.value_and_grad(COSTS.expected))(ALPHAS)
    assert abs(value - (0.5 + p @ [1.0, 3.0, 8.0] + 2.0)) < 1e-5
    np.testing.assert_allclose(slope[0], p * ([1.0, 3.0, 8.0] - p @ [1.0, 3.0, 8.0]), rtol=1e-5)
    assert np.abs(slope[1]).max() < 1e-6  # equal costs pull nowhere
    gates = [sj.search.Gate(0, np.array([0, 2])), sj.search.Gate(0, np.array([0, 1]))]
    q = np.exp([0.0, 2.0]) / np.exp([0.0, 2.0]).sum()
    found = jax.jit(lambda alphas: COSTS.expected(alphas, gates))(ALPHAS)
    assert abs(found - (2.5 + q @ [1.0, 8.0])) < 1e-5
    assert COSTS.of((2, 0)) == 10.5


def test_terms_by_hand():
    loss, cost = jnp.asarray(2.0), jnp.asarray(100.0)
    product = sj.search.times_log_cost(10.0)(loss, cost)
    assert abs(product - 0.2 * 2.0 * 2.0**0.3) < 1e-6
    assert abs(sj.search.plus_cost(80.0)(loss, cost) - (2.0 + 0.1 * 0.25)) < 1e-6


def network_loss(params, alphas, gates, batch):
    """Two edges: with the paths 1 or 2, and 0, a weight of 2 gives twice the input."""
    x, y = batch
    first = [lambda p, x: 0.0 * x, lambda p, x: p["w"] * x, lambda p, x: p["w"] * x]
    second = [lambda p, x: x, lambda p, x: 0.1 * x]
    for edge, paths in enumerate((first, second)):
        x = sj.search.one_path(paths, alphas[edge], gates[edge], params, x)
    return jnp.mean((x - y) ** 2), jnp.exp(-jnp.mean((x - y) ** 2))


def run(search, num_steps=60):
    x = jnp.asarray(RNG.normal(size=16), jnp.float32)
    state = search.init({"w": jnp.asarray(0.3)}, (3, 2), KEY)
    for _ in range(num_steps // 2):
        state, _ = search.warm_up(state, (x, 2.0 * x))
    for _ in range(num_steps):
        state, _ = search.train_weights(state, (x, 2.0 * x))
        state, loss = search.train_alphas(state, (x, 2.0 * x))
    return state, loss


FAST = sj.search.adam_for_gates(0.1)
TX = optax.sgd(0.05)
SEARCHES = {
    "two paths, log": lambda: sj.search.proxyless(
        network_loss, TX, COSTS, sj.search.times_log_cost(4.0), alphas_tx=FAST
    ),
    "all paths, sum": lambda: sj.search.proxyless(
        network_loss, TX, COSTS, sj.search.plus_cost(4.0), num_candidates=None, alphas_tx=FAST
    ),
    "reinforce": lambda: sj.search.proxyless_reinforce(
        network_loss, TX, COSTS, 4.0, alphas_tx=FAST
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_finds_the_paths_that_fit_and_cost_less(name):
    state, _ = run(SEARCHES[name]())
    assert [int(own.argmax()) for own in state.alphas] == [1, 0]  # 2 fits as well and costs more
    assert jax.tree.structure(state) == jax.tree.structure(state._replace())


def test_a_search_goes_on_from_its_state_alone():
    search = SEARCHES["two paths, log"]()
    x = jnp.asarray(RNG.normal(size=16), jnp.float32)
    state = search.init({"w": jnp.asarray(0.3)}, (3, 2), KEY)
    states = []
    for _ in range(2):
        own = state
        for _ in range(3):
            own, _ = search.train_weights(own, (x, x))
            own, _ = search.train_alphas(own, (x, x))
        states.append(jax.tree.map(np.asarray, own._replace(key=jax.random.key_data(own.key))))
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sj.search.one_path(PATHS, jnp.zeros(2), None, PARAMS, X), "an alpha for each"),
        (lambda: sj.search.sample_gate(KEY, jnp.zeros(2), num_candidates=3), "from 0 to the 2"),
        (lambda: COSTS.expected([jnp.zeros(2), jnp.zeros(2)]), "an alpha for each path"),
        (lambda: sj.search.times_log_cost(1.0), "a reference above 1"),
        (lambda: sj.search.plus_cost(0.0), "a reference above 0"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_measured_costs_say_where_they_are_from():
    slow = lambda: np.linalg.inv(np.ones((60, 60)) + np.eye(60))
    costs = sj.search.PathCosts.measure([[lambda: None, slow]], fixed=1.0)
    assert costs.source.startswith("measured on ") and costs.edges[0][0] < costs.edges[0][1]

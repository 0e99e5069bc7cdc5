"""Deep deterministic policy gradient: an agent that makes one choice after the other."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from sparsejax.search.samplers import Sampler, Trial
from sparsejax.search.space import Choice, Interval, Space, check_space, drawn

Observe = Callable[[Sequence[float]], Float[np.ndarray, "steps features"]]
Network = list[tuple[Array, Array]]


class DDPGSettings(NamedTuple):
    """How the agent learns; the defaults are AMC's, its number of episodes apart.

    Attributes:
      num_random: trials at random before it acts.
      sigma: of the truncated normal noise, as a fraction of an action's interval, at first.
      sigma_decay: what a trial makes of it.
      hidden: units of each of the two hidden layers, of the actor and of the critic.
      actor_rate, critic_rate: of Adam.
      discount: of the next step's value.
      tau: how far the targets follow at each update.
      batch_size: transitions of an update; there is one update for each step of a trial.
      capacity: trials that are remembered.
      baseline: how far the mean reward follows that of a batch.
    """

    num_random: int = 100
    sigma: float = 0.5
    sigma_decay: float = 0.95
    hidden: int = 300
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    discount: float = 1.0
    tau: float = 0.01
    batch_size: int = 64
    capacity: int = 100
    baseline: float = 0.5


AMC = DDPGSettings()


class Agent(NamedTuple):
    """What is learned."""

    actor: Network
    critic: Network
    actor_target: Network
    critic_target: Network
    actor_state: Any
    critic_state: Any
    mean_reward: Float[Array, ""]


class Replay(NamedTuple):
    """Transitions, the oldest of which go first; `last` where there is no next state."""

    states: Float[Any, "capacity features"]
    actions: Float[Any, "capacity 1"]
    rewards: Float[Any, " capacity"]
    nexts: Float[Any, "capacity features"]
    last: Float[Any, " capacity"]


class DDPGState(NamedTuple):
    """The agent, what it remembers, and how many trials it has seen."""

    agent: Agent
    replay: Replay
    trials: int


def ddpg(space: Space, observe: Observe, *, seed: int, settings: DDPGSettings = AMC) -> Sampler:
    """A sampler that chooses step by step: an actor sees what it chose before, a critic values it.

    The reward of every step is the score of the trial, less its moving mean. Warm-up at random,
    then the actor's choice with noise of a truncated normal distribution, which shrinks.

    Args:
      space: an `Interval` for each step, in order; of `ChannelSearch.space` or `BitSearch.space`.
      observe: `observe(actions) -> states` before each of these actions and the next one, if there
        is one; `ChannelSearch.observe` or `BitSearch.observe`.
      seed: of its weights, its noise and its batches.
      settings: how it learns.

    Raises:
      ValueError: the space has something else than intervals.

    Reference: Lillicrap et al., "Continuous control with deep reinforcement learning", ICLR 2016,
    arXiv 1509.02971; He et al., "AMC", ECCV 2018, arXiv 1802.03494, settings of the authors' code.
    """
    check_space("ddpg", space)
    if others := [name for name, own in space.items() if not isinstance(own, Interval)]:
        raise ValueError(f"ddpg needs an Interval for each step, got none for {', '.join(others)}.")
    intervals = [Interval(*own) for own in space.values()]  # type: ignore[misc]
    num_features = observe([]).shape[1]
    rooms = settings.capacity * len(intervals)
    update = functools.partial(_updated, settings, len(intervals))

    def init() -> DDPGState:
        return DDPGState(_agent(num_features, seed, settings), _replay(rooms, num_features), 0)

    def ask(state: DDPGState, number: int) -> Choice:
        rng = np.random.default_rng((seed, number))
        if number < settings.num_random:
            return drawn(space, rng)
        sigma = settings.sigma * settings.sigma_decay ** (number - settings.num_random)
        actions: list[float] = []
        for own in intervals:
            chosen = _noisy(float(_act(state.agent.actor, observe(actions)[-1])), sigma, rng)
            actions.append(own.low + (own.high - own.low) * chosen)
        return dict(zip(space, actions, strict=True))

    def tell(state: DDPGState, trial: Trial) -> DDPGState:
        actions = [trial.choice[name] for name in space]
        units = [
            (action - own.low) / max(own.high - own.low, 1e-12)
            for action, own in zip(actions, intervals, strict=True)
        ]
        begin = state.trials * len(intervals) % rooms
        replay = _remembered(state.replay, begin, observe(actions), units, trial.score)
        agent, trials = state.agent, state.trials + 1
        if trial.number >= settings.num_random:
            filled = min(trials * len(intervals), rooms)
            agent = update(agent, replay, filled, np.uint32(seed), np.uint32(trial.number))
        return DDPGState(agent, replay, trials)

    return Sampler(space, init, ask, tell)


def _noisy(mean: float, sigma: float, rng: np.random.Generator) -> float:
    """Of a normal distribution that is cut to [0, 1]."""
    from scipy.stats import truncnorm  # slow to import

    ends = -mean / sigma, (1.0 - mean) / sigma
    return float(truncnorm.rvs(*ends, loc=mean, scale=sigma, random_state=rng))


def _replay(rooms: int, features: int) -> Replay:
    zeros = lambda *shape: np.zeros((rooms, *shape), np.float32)
    return Replay(zeros(features), zeros(1), zeros(), zeros(features), zeros())


def _remembered(
    replay: Replay, begin: int, states: np.ndarray, units: list[float], reward: float
) -> Replay:
    """The replay with a trial's steps in the places from `begin` on."""
    own, steps = jax.tree.map(np.copy, replay), len(units)
    here = slice(begin, begin + steps)
    own.states[here], own.actions[here, 0] = states[:steps], units
    own.nexts[here] = np.concatenate([states[1:steps], np.zeros_like(states[:1])])
    own.rewards[here], own.last[here] = reward, np.arange(steps) == steps - 1
    return own


def _agent(features: int, seed: int, settings: DDPGSettings) -> Agent:
    rng = np.random.default_rng(seed)
    sizes = (settings.hidden, settings.hidden, 1)
    actor, critic = _network(rng, features, sizes), _network(rng, features + 1, sizes)
    copy = lambda network: jax.tree.map(jnp.array, network)
    return Agent(
        actor,
        critic,
        copy(actor),
        copy(critic),
        optax.adam(settings.actor_rate).init(actor),
        optax.adam(settings.critic_rate).init(critic),
        jnp.array(jnp.nan, jnp.float32),
    )


def _network(rng: np.random.Generator, inputs: int, sizes: Sequence[int]) -> Network:
    """Weights as PyTorch draws them: uniform within 1 / sqrt(inputs)."""
    layers = []
    for outputs in sizes:
        bound = inputs**-0.5
        draw = lambda *shape, bound=bound: jnp.asarray(
            rng.uniform(-bound, bound, shape), jnp.float32
        )
        layers.append((draw(inputs, outputs), draw(outputs)))
        inputs = outputs
    return layers


def _run(network: Network, x: Float[Array, "... inputs"]) -> Float[Array, "..."]:
    for number, (kernel, bias) in enumerate(network):
        x = (jax.nn.relu(x) if number else x) @ kernel + bias
    return x[..., 0]


def _policy(actor: Network, states: Float[Array, "... features"]) -> Float[Array, "..."]:
    return jax.nn.sigmoid(_run(actor, states))


_act = jax.jit(_policy)


def _value(critic: Network, states: Array, actions: Array) -> Float[Array, " batch"]:
    return _run(critic, jnp.concatenate([states, actions[:, None]], 1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _updated(
    settings: DDPGSettings, num_updates: int, agent: Agent, replay: Replay, filled: Any, *seeds: Any
) -> Agent:
    """The agent after some updates, each on a batch of what it remembers."""
    key = functools.reduce(jax.random.fold_in, seeds, jax.random.key(0))

    def update(agent: Agent, key: Array) -> tuple[Agent, None]:
        rows = jax.random.randint(key, (settings.batch_size,), 0, filled)
        return _update(agent, jax.tree.map(lambda own: own[rows], replay), settings), None

    return jax.lax.scan(update, agent, jax.random.split(key, num_updates))[0]


def _update(agent: Agent, batch: Replay, settings: DDPGSettings) -> Agent:
    found = batch.rewards.mean()
    mean = agent.mean_reward + settings.baseline * (found - agent.mean_reward)
    mean = jnp.where(jnp.isnan(agent.mean_reward), found, mean)
    after = _value(agent.critic_target, batch.nexts, _policy(agent.actor_target, batch.nexts))
    wanted = batch.rewards - mean + settings.discount * (1.0 - batch.last) * after

    def error(critic: Network) -> Array:
        return jnp.mean((_value(critic, batch.states, batch.actions[:, 0]) - wanted) ** 2)

    critic, critic_state = _stepped(
        settings.critic_rate, jax.grad(error)(agent.critic), agent.critic_state, agent.critic
    )
    loss = lambda actor: -jnp.mean(_value(critic, batch.states, _policy(actor, batch.states)))
    actor, actor_state = _stepped(
        settings.actor_rate, jax.grad(loss)(agent.actor), agent.actor_state, agent.actor
    )
    follow = functools.partial(optax.incremental_update, step_size=settings.tau)
    return Agent(
        actor,
        critic,
        follow(actor, agent.actor_target),
        follow(critic, agent.critic_target),
        actor_state,
        critic_state,
        mean,
    )


def _stepped(rate: float, grads: Network, state: Any, network: Network) -> tuple[Network, Any]:
    updates, state = optax.adam(rate).update(grads, state, network)
    return optax.apply_updates(network, updates), state

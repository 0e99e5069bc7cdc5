"""Training of an NNX classifier in epochs of nothing but steps: resumable bit for bit.

Everything that decides the next step is in `TrainState` and in the position of the data iterator;
both go into a checkpoint. Ctrl-C finishes the step, saves and stops; the same call goes on.
"""

import contextlib
import functools
import hashlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

import sparsejax as sj
from experiments.runs.table import Interrupted


class TrainState(NamedTuple):
    """What a step reads and writes; the masks are in `opt_state`."""

    params: Any
    statistics: Any
    opt_state: Any
    step: Int[Array, ""]


class Network(NamedTuple):
    """An NNX module taken apart: its structure, and functions of (params, statistics)."""

    graph: nnx.GraphDef
    params: Any
    statistics: Any

    def apply(
        self, variables: tuple[Any, Any], x: Float[Array, "batch ..."]
    ) -> Float[Array, "batch classes"]:
        """Logits of the network in inference mode."""
        module = nnx.merge(self.graph, *variables, copy=True)
        module.eval()
        return module(x)


class Metrics(NamedTuple):
    """Of one step, on its batch."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]


class CannotGoOnError(Exception):
    """The newest checkpoint is damaged or of another training; the message says what to do."""


def take_apart(module: nnx.Module) -> Network:
    """The network of a module; everything that is no parameter counts as statistics.

    Both are nested dicts of arrays, which a jitted function takes in faster than `nnx.State`.
    """
    graph, params, statistics = nnx.split(module, nnx.Param, ...)
    return Network(graph, nnx.to_pure_dict(params), nnx.to_pure_dict(statistics))


# Of a program that runs once: compiled in a third of the time.
_RUNS_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def built(make: Callable[[], nnx.Module]) -> Network:
    """The network of the module that `make()` makes, its initial weights drawn by one program."""
    graph = nnx.eval_shape(lambda: take_apart(make())).graph
    draw = jax.jit(lambda: take_apart(make())[1:], compiler_options=_RUNS_ONCE)
    return Network(graph, *draw())


def make_loss(network: Network, temperature: float = 1.0) -> Callable:
    """A function `f(params, statistics, images, labels) -> (loss, (statistics, metrics))`.

    Logits are divided by the temperature.
    """

    def loss_of(params, statistics, images, labels):
        module = nnx.merge(network.graph, params, statistics, copy=True)
        module.train()
        logits = module(images) / temperature
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        accuracy = (logits.argmax(-1) == labels).mean()
        statistics = nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))
        return loss, (statistics, Metrics(loss, accuracy))

    return loss_of


def make_gradients(network: Network) -> Callable:
    """The gradients of `make_loss`, see `gradients_of`."""
    return gradients_of(make_loss(network))


def gradients_of(loss_of: Callable) -> Callable:
    """A jitted `f(params, statistics, images, labels) -> (grads, statistics, metrics)`.

    Apart from the optimizer, so that a dense and a sparse training share its compilation.
    """
    loss_of = sj.accelerate(loss_of)

    @jax.jit
    def gradients(params, statistics, images, labels):
        grads, (statistics, metrics) = jax.grad(loss_of, has_aux=True)(
            params, statistics, images, labels
        )
        return grads, statistics, metrics

    return gradients


def make_step(gradients: Callable, tx: optax.GradientTransformation) -> Callable:
    """A `step(state, images, labels) -> (state, metrics)`; it takes the state's buffers.

    The gradients are those at the weights that the method's forward pass uses.
    """

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def step(state: TrainState, images: Array, labels: Array) -> tuple[TrainState, Metrics]:
        grads, statistics, metrics = gradients(forward(state), state.statistics, images, labels)
        params, opt_state = update(state.params, state.opt_state, grads)
        return TrainState(params, statistics, opt_state, state.step + 1), metrics

    return step


_forward = jax.jit(sj.forward)


def forward(state: TrainState) -> Any:
    """The weights at which the loss is computed; a dense training's are its params."""
    return _forward(state.params, state.opt_state) if is_sparse(state.opt_state) else state.params


def hard_weights(params: Any, opt_state: Any) -> Any:
    """The weights to deploy: exact zeros where the masks prune."""
    return sj.harden(params, opt_state) if is_sparse(opt_state) else params


def is_sparse(opt_state: Any) -> bool:
    """Whether there are masks somewhere in the optimizer's state."""
    return bool(_sparsify_states(opt_state))


def _sparsify_states(opt_state: Any) -> list[sj.training.SparsifyState]:
    is_state = lambda node: isinstance(node, sj.training.SparsifyState)
    return [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]


def initial_state(network: Network, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step; a copy, since a step takes its buffers."""
    params, statistics = jax.tree.map(jnp.array, (network.params, network.statistics))
    return TrainState(params, statistics, tx.init(params), jnp.zeros((), jnp.int32))


def make_judge(network: Network, images: Any, labels: np.ndarray, *, batch_size: int) -> Callable:
    """`judge(params, statistics, limit=None) -> right`, of all or the first `limit` images.

    The images are standardised already.
    """
    apply = jax.jit(sj.accelerate(network.apply))

    def judge(params: Any, statistics: Any, limit: int | None = None) -> Bool[np.ndarray, "images"]:
        wanted = labels[:limit]
        starts = range(0, len(wanted), batch_size)
        logits = (apply((params, statistics), images[at : at + batch_size]) for at in starts)
        found = np.concatenate([np.asarray(part).argmax(-1) for part in logits])
        return found[: len(wanted)] == wanted

    return judge


def make_evaluate(network: Network, images: Any, labels: np.ndarray, *, batch_size: int):
    """`evaluate(params, statistics, limit=None) -> accuracy` over all or the first `limit` images.

    The images are standardised already.
    """
    judge = make_judge(network, images, labels, batch_size=batch_size)

    def evaluate(params: Any, statistics: Any, limit: int | None = None) -> float:
        right = judge(params, statistics, limit)
        return int(right.sum()) / len(right)

    return evaluate


@contextlib.contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed inside; the second press is the usual one."""
    pressed = False

    def handle(number, frame):
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def train(
    step: Callable,
    state: TrainState,
    batches: grain.DatasetIterator,
    *,
    num_steps: int,
    checkpoints: sj.training.Checkpoints,
    measure: Callable[[TrainState], dict[str, float]],
    measure_every: int,
    report: Callable[[TrainState, dict[str, float]], None],
) -> tuple[TrainState, list[dict[str, float]]]:
    """The state after `num_steps` steps and the history of measurements on the way.

    Args:
        step: of `make_step`.
        state: the initial one; the newest checkpoint replaces it.
        batches: as of `experiments.data.dataset.batches`; its position is saved with the state.
        num_steps: in total, those before a resumption included.
        checkpoints: written at every measurement and at Ctrl-C.
        measure, measure_every: what goes to the history, every so many steps and at the last.
        report: called after each step with the state, smoothed loss and accuracy.

    Raises:
        CannotGoOnError: the newest checkpoint cannot be restored.
        Interrupted: Ctrl-C was pressed and the state is saved.
    """
    smooth: dict[str, float] = {}
    history: list[dict[str, float]] = []
    try:
        start, state = checkpoints.restore(state)
    except ValueError as error:
        raise CannotGoOnError(str(error)) from error
    if start:
        notes = checkpoints.notes(start)
        batches.set_state(notes["position"])
        smooth, history = notes["smooth"], notes["history"]

    def save() -> None:
        notes = {"position": batches.get_state(), "smooth": smooth, "history": history}
        checkpoints.save(int(state.step), state, notes=notes)

    with ctrl_c() as pressed:
        for number in range(start + 1, num_steps + 1):
            state, metrics = step(state, *next(batches))
            smooth = {
                name: 0.95 * smooth.get(name, float(value)) + 0.05 * float(value)
                for name, value in metrics._asdict().items()
            }
            report(state, smooth)
            if number % measure_every == 0 or number == num_steps:
                history.append({"step": number, **smooth, **measure(state)})
                save()
            if pressed() and number < num_steps:
                save()
                raise Interrupted(f"after step {number} of {num_steps}")
    return state, history


def sparsity_of(opt_state: Any) -> float:
    """Zeros / weights over the leaves that have a mask; 0 for an optimizer without masks."""
    if not is_sparse(opt_state):
        return 0.0
    leaves = jax.tree.leaves(sj.masks_of(opt_state))
    return 1.0 - sum(int(leaf.sum()) for leaf in leaves) / sum(leaf.size for leaf in leaves)


def fingerprint(state: TrainState) -> str:
    """A hash of every bit of the trained weights and statistics."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((state.params, state.statistics)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def count_zeros(params: Any, plan: sj.Plan) -> dict[str, int]:
    """Weights that are exactly 0.0 in the plan's leaves, and all weights."""
    leaves = sj.tree.leaves_with_paths(params)
    pruned = [np.asarray(leaf) for path, leaf in leaves if plan.get(path)]
    return {
        "zeros": sum(int((leaf == 0).sum()) for leaf in pruned),
        "prunable": sum(leaf.size for leaf in pruned),
        "parameters": sum(leaf.size for _, leaf in leaves),
    }

"""MobileNet-v1 on one core: forward 1.0/224, batch 1, and a training step of 0.5/32, batch 64.

    python -m benchmarks.mobilenet --json FILE
    python -m benchmarks.mobilenet --keep      freed memory is kept, for all of them

Both dense baselines stand beside ours: flax as written, and the same model with its depthwise
convolutions as shifted multiply-adds. All are jitted, run in turns on one core, and give equal
outputs before they are timed: gradients on the closest of eight batches, as a ReLU whose input is
within rounding of zero goes either way, and one alone moves them by up to a hundredth. A turn is
one call to warm the caches and three that count. Times are medians in milliseconds, on the wall and
of the process's CPU, which others' load disturbs less; speed-ups are medians of the ratios within a
turn.
"""

import argparse
import functools
import json
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":  # before jax makes its thread pool
    from experiments.runs.cores import use_one_core

    use_one_core()

import jax
import jax.numpy as jnp
import optax

import sparsejax as sj
from experiments.demo.latency import forward
from experiments.models.mobilenet_v1 import MobileNetV1Linen, shifted_depthwise
from experiments.runs.cores import cpu_name
from experiments.runs.timing import rows_of, show, tree_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--smoke", action="store_true", help="small images, few repeats")
    parser.add_argument("--keep", action="store_true", help="as sj.keep_freed_memory() has it")
    options = parser.parse_args()
    if options.keep and not sj.keep_freed_memory():
        parser.error("--keep needs glibc")
    size, repeats = (32, 3) if options.smoke else (224, options.repeats)
    results = {"forward": forward(size, repeats), "training step": training_step(repeats)}
    for name, rows in results.items():
        show(name, rows)
    if options.json:
        machine = {"cpu": cpu_name(), "cores": 1, "jax": jax.__version__, "repeats": repeats}
        machine |= {"kept": options.keep}
        with open(options.json, "w") as file:
            json.dump({"machine": machine, **results}, file, indent=1)


def training_step(repeats: int) -> list[dict[str, Any]]:
    """An SGD step with momentum, with and without accelerate."""
    batches = jax.random.normal(jax.random.key(1), (8, 64, 32, 32, 3))
    labels = jnp.arange(64) % 10
    model = MobileNetV1Linen(num_classes=10, width=0.5)
    shifted = MobileNetV1Linen(num_classes=10, width=0.5, depthwise=shifted_depthwise)
    variables = jax.jit(model.init)(jax.random.key(0), batches[0])
    optimizer = optax.sgd(0.01, momentum=0.9)
    state = (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))

    def loss_of(model: MobileNetV1Linen) -> Callable:
        def loss(params, statistics, images):
            variables = {"params": params, "batch_stats": statistics}
            logits, new = model.apply(variables, images, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), new["batch_stats"]

        return loss

    def step_of(loss: Callable) -> Callable:
        def step(params, statistics, opt_state, images):
            value_and_grad = jax.value_and_grad(loss, has_aux=True)
            (value, statistics), grads = value_and_grad(params, statistics, images)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), statistics, opt_state, value, grads

        return jax.jit(step)

    steps = {
        "flax as written": step_of(loss_of(model)),
        "JAX, shifted depthwise": step_of(loss_of(shifted)),
        "accelerate": step_of(sj.accelerate(loss_of(model))),
    }
    grads = {name: [step(*state, x)[4] for x in batches] for name, step in steps.items()}
    exact = grads["JAX, shifted depthwise"]
    errors = {name: min(map(tree_error, own, exact)) for name, own in grads.items()}
    calls = {name: functools.partial(step, *state, batches[0]) for name, step in steps.items()}
    return rows_of(calls, errors, repeats, baseline="flax as written", tolerance=1e-3)


if __name__ == "__main__":
    main()

"""What masks cost: gradual magnitude pruning of ResNet-50 against its training step.

    python -m benchmarks.mask_update --json mask_update.json

Three questions. How much longer is a training step (224x224, SGD with momentum) under
`sj.gmp(every=100)`: the quiet step's overhead plus a hundredth of the step that changes the masks;
target < 2 %. How long does the exact top-k of 25 M weights take against jax.lax.top_k and a sort;
target 3x faster; `benchmarks.top_k` says more. And the step that changes the masks on 1, 2 and 4
forced host devices, weights sharded over their output channels (the devices share the machine's
cores, so this shows overhead, not speed-up). Times are medians in milliseconds of calls that
alternate.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax as sj
from benchmarks import publish
from benchmarks.top_k import compare
from experiments.runs.timing import time_ms

EVERY = 100
STAGES = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]  # width, blocks, stride
Params = dict[str, Any]


def layers() -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Name, shape and stride of each of ResNet-50's 53 convolutions, and the classifier."""
    yield "stem", (7, 7, 3, 64), 2
    inputs = 64
    for stage, (width, blocks, stride) in enumerate(STAGES):
        for block in range(blocks):
            name, step = f"{stage}_{block}", stride if block == 0 else 1
            yield f"{name}_a", (1, 1, inputs, width), 1
            yield f"{name}_b", (3, 3, width, width), step
            yield f"{name}_c", (1, 1, width, 4 * width), 1
            if block == 0:
                yield f"{name}_skip", (1, 1, inputs, 4 * width), step
            inputs = 4 * width
    yield "head", (2048, 1000), 1


def initial_params() -> Params:
    """He-scaled kernels; batch norm is left out: a cheaper step is the harder test."""
    rng = np.random.default_rng(0)
    params = {}
    for name, shape, _ in layers():
        scale = np.float32(np.sqrt(1.0 / np.prod(shape[:-1])))
        params[name] = jnp.asarray(rng.standard_normal(shape, dtype=np.float32) * scale)
    return params


def forward(params: Params, images: jax.Array) -> jax.Array:
    """ResNet-50 without batch norm."""
    strides = {name: stride for name, _, stride in layers()}

    def conv(x: jax.Array, name: str) -> jax.Array:
        window = (strides[name],) * 2
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, params[name], window, "SAME", dimension_numbers=numbers
        )

    x = jax.nn.relu(conv(images, "stem"))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    for stage, (_, blocks, _) in enumerate(STAGES):
        for block in range(blocks):
            name = f"{stage}_{block}"
            inner = jax.nn.relu(conv(jax.nn.relu(conv(x, f"{name}_a")), f"{name}_b"))
            skip = conv(x, f"{name}_skip") if block == 0 else x
            x = jax.nn.relu(conv(inner, f"{name}_c") + skip)
    return jnp.mean(x, axis=(1, 2)) @ params["head"]


def sparsified(params: Params) -> optax.GradientTransformationExtraArgs:
    plan = sj.plan(params, {".*": sj.Unstructured()}, sparsity=0.9)
    method = sj.gmp(0, 10 * EVERY, every=EVERY)
    return sj.sparsify(optax.sgd(0.1, momentum=0.9), method, plan, key=jax.random.key(0))


def update_calls(params: Params) -> dict[str, Callable[[], Any]]:
    """The optimizer alone: dense, in a quiet step, and in the step that changes the masks."""
    dense, sparse = optax.sgd(0.1, momentum=0.9), sparsified(params)

    def compiled(tx: Any) -> Any:
        def apply(grads: Any, opt_state: Any, params: Any) -> Any:
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return jax.jit(apply)

    dense_update, sparse_update = compiled(dense), compiled(sparse)
    dense_state, state = dense.init(params), sparse.init(params)
    at = lambda step: state._replace(step=jnp.asarray(step, jnp.int32))
    quiet, due = at(5 * EVERY + 1), at(5 * EVERY)
    return {
        "dense update": lambda: dense_update(params, dense_state, params),
        "quiet update": lambda: sparse_update(params, quiet, params),
        "mask update": lambda: sparse_update(params, due, params),
    }


def amortised(batch: int, repeats: int) -> dict[str, Any]:
    """The training step and what pruning adds to it."""
    params = initial_params()
    images = jnp.asarray(np.random.default_rng(1).normal(size=(batch, 224, 224, 3)), jnp.float32)
    loss = lambda params: jnp.mean(jax.nn.logsumexp(forward(params, images), axis=-1))
    gradient = jax.jit(jax.grad(loss))
    times = time_ms(update_calls(params), repeats)
    backward = time_ms({"gradient": lambda: gradient(params)}, max(repeats // 3, 2))["gradient"]
    step = backward + times["dense update"]
    added = times["quiet update"] - times["dense update"]
    added += (times["mask update"] - times["quiet update"]) / EVERY
    return {
        "weights": sum(leaf.size for leaf in params.values()),
        "batch": batch,
        **{f"{name} ms": value for name, value in times.items()},
        "training step ms": step,
        "added ms": added,
        "added percent": 100 * added / step,
    }


def on_devices(repeats: int) -> dict[str, Any]:
    """The optimizer's times with each leaf sharded over its output channels, on all devices."""
    count = len(jax.devices())
    mesh = jax.make_mesh((count,), ("devices",), (AxisType.Auto,))
    place = lambda leaf: jax.device_put(
        leaf, NamedSharding(mesh, P(*(None,) * (leaf.ndim - 1), "devices"))
    )
    with jax.set_mesh(mesh):
        times = time_ms(update_calls(jax.tree.map(place, initial_params())), repeats)
    return {"devices": count, **{f"{name} ms": value for name, value in times.items()}}


def in_subprocess(devices: int, repeats: int) -> dict[str, Any]:
    """`on_devices` in a process of its own: the number of host devices is fixed at start."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "benchmarks.mask_update", "--devices-only"]
    output = subprocess.run(
        [*command, "--repeats", str(repeats)],
        env={**os.environ, "XLA_FLAGS": flags},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8, help="images in the training step")
    parser.add_argument("--devices-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.devices_only:
        print(json.dumps(on_devices(options.repeats)))
        return
    results = {
        "resnet50": amortised(options.batch, options.repeats),
        "top_k": compare("distinct", max(options.repeats // 4, 1)),
        "devices": [in_subprocess(count, options.repeats) for count in (1, 2, 4)],
    }
    publish(results, options.json)


if __name__ == "__main__":
    main()

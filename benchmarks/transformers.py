"""Transformers against jax.jit and other engines: encoders, a prefill and decode steps.

    taskset -c 0 python -m benchmarks.transformers --json transformers.json

The blocks of a BERT-base (128 tokens), a ViT-S/16 (197) and a GPT-2-small (64, causal) behind their
embeddings, and one step of the latter with a cache of 64 tokens; random weights, of which a
fraction of those in matrices is zero. Outputs are compared first; then the calls take turns, on one
core. onnxruntime, openvino and deepsparse run an ONNX file of the same, each in the environment
that `benchmarks.peers` makes for it; of a step with a cache it is one in which the token's key and
value are put behind those of the 63 tokens before. `--layers 1` tries it out in a minute; all of it
takes half an hour and 4 GB.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # before jax makes its thread pool
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import sparsejax as sj
from benchmarks import publish
from benchmarks.peers import onnx_export, onnx_step
from benchmarks.peers.environments import ENGINES, CannotBeHadError
from benchmarks.peers.process import Worker, start
from benchmarks.peers.rounds import cores
from benchmarks.recurrent import params_of
from experiments.runs.cores import bind, usable_cores
from experiments.runs.timing import refuse_wrong, relative_error, summaries, timed
from sparsejax.compiler.passes.rewrite import rewrite
from sparsejax.compiler.passes.trace import trace


class Block(nn.Module):
    """Attention and a perceptron; layer norm before each, or behind it."""

    heads: int
    before: bool
    causal: bool
    decode: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = nn.LayerNorm(epsilon=1e-5), nn.LayerNorm(epsilon=1e-5)
        attention = nn.MultiHeadDotProductAttention(self.heads, decode=self.decode)
        up, down = nn.Dense(4 * x.shape[-1]), nn.Dense(x.shape[-1])
        mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
        attend = lambda x: attention(x, mask=None if self.decode else mask)
        mlp = lambda x: down(nn.gelu(up(x)))
        if self.before:
            x = x + attend(first(x))
            return x + mlp(second(x))
        x = first(x + attend(x))
        return second(x + mlp(x))


class Blocks(nn.Module):
    """A stack of them."""

    layers: int
    heads: int
    before: bool = True
    causal: bool = False
    decode: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(self.layers):
            x = Block(self.heads, self.before, self.causal, self.decode)(x)
        return nn.LayerNorm(epsilon=1e-5)(x) if self.before else x


class Net(NamedTuple):
    """What is run.

    Attributes:
        model: the blocks.
        tokens, width: of the input.
        sparsities: that are tried.
    """

    model: Blocks
    tokens: int
    width: int
    sparsities: tuple[float, ...]


NETS = {
    "BERT-base": Net(Blocks(12, 12, before=False), 128, 768, (0.0, 0.8, 0.9)),
    "ViT-S/16": Net(Blocks(12, 6), 197, 384, (0.0, 0.8, 0.9)),
    "GPT-2-small, prefill": Net(Blocks(12, 12, causal=True), 64, 768, (0.0, 0.5, 0.7, 0.9)),
    "GPT-2-small, decode": Net(
        Blocks(12, 12, causal=True, decode=True), 64, 768, (0.0, 0.5, 0.7, 0.9)
    ),
}


PEERS = ("onnxruntime", "openvino", "deepsparse")


def drawn(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def function_of(net: Net, batch: int, sparsity: float) -> tuple[Callable, Any, tuple]:
    """A function of weights and inputs, the weights, and the inputs."""
    params = params_of(net.model.clone(decode=False), drawn(1, net.tokens, net.width), sparsity)
    if not net.model.decode:
        return net.model.apply, params, (drawn(batch, net.tokens, net.width),)
    whole = drawn(batch, net.tokens, net.width)
    cache = jax.eval_shape(net.model.init, jax.random.key(0), whole)["cache"]
    fill = lambda a: drawn(*a.shape) if a.ndim else jnp.asarray(net.tokens - 1, a.dtype)

    def step(params: Any, x: jax.Array, cache: Any) -> Any:
        return net.model.apply({**params, "cache": cache}, x, mutable="cache")

    return step, params, (drawn(batch, 1, net.width), jax.tree.map(fill, cache))


def write_onnx(net: Net, function: Callable, params: Any, inputs: tuple, folder: Path) -> None:
    """The same as `net.onnx`, and what goes into it as `input.npz`."""
    x, *caches = inputs
    if net.model.decode:
        onnx_step.export_step(params["params"], len(x), net.tokens - 1, folder / "net.onnx")
        kept = [caches[0][f"Block_{i}"].values() for i in range(net.model.layers)]
        rows = [cache[f"cached_{side}"] for (cache,) in kept for side in ("key", "value")]
        return np.savez(folder / "input.npz", x, *(row[:, : net.tokens - 1] for row in rows))
    onnx_export.export(rewrite(trace(function, params, (x,))[0]), folder / "net.onnx")
    np.savez(folder / "input.npz", x)


def peers(folder: Path, closing: ExitStack) -> Iterator[tuple]:
    """The other engines that can be had: name and version, a process that waits, its output."""
    model, given, made = (str(folder / name) for name in ("net.onnx", "input.npz", "output.npy"))
    order = {"model": model, "input": given, "output": made, "threads": 1}
    for engine in (engine for engine in ENGINES if engine.name in PEERS):
        try:
            worker = start(engine, cores(1), folder)
            closing.callback(worker.close)
            version = worker.ask(order)["version"]
        except CannotBeHadError as error:
            print(f"without {engine.name}: {error}", file=sys.stderr)
            continue
        yield f"{engine.name} {version}", worker, np.load(made)


def asked(worker: Worker) -> list[tuple[float, float]]:
    """Seconds of three calls in another process, as `timed` has them."""
    answer = worker.ask({"seconds": 0})
    times = zip(answer["times_ms"], answer["cpu_ms"], strict=True)
    return [(wall / 1e3, cpu / 1e3) for wall, cpu in times]


def compare(net: Net, batch: int, sparsity: float, repeats: int) -> dict[str, Any]:
    """Milliseconds of a call by each way, and how often ours fits into each."""
    function, params, inputs = function_of(net, batch, sparsity)
    start = time.perf_counter()
    fast = sj.compile(function, params, *inputs)
    seconds = time.perf_counter() - start
    weights = jax.tree.map(jnp.asarray, params)
    plain = jax.jit(function)
    calls = {
        "jit": functools.partial(plain, weights, *inputs),
        "compile": functools.partial(jax.jit(fast), *inputs),
    }
    outputs = {name: _output(call()) for name, call in calls.items()}
    workers = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        write_onnx(net, function, params, inputs, Path(folder))
        for name, worker, output in peers(Path(folder), closing):
            workers[name], outputs[name] = worker, output.reshape(outputs["jit"].shape)
        refuse_wrong({n: relative_error(y, outputs["jit"]) for n, y in outputs.items()}, 1e-3)
        ways = {name: functools.partial(timed, call) for name, call in calls.items()}
        ways |= {name: functools.partial(asked, worker) for name, worker in workers.items()}
        times = [[time_it() for time_it in ways.values()] for _ in range(repeats)]
    rows = dict(zip(ways, summaries(times, [*ways].index("compile")), strict=True))
    return {
        **{name: round(row["wall_ms"], 3) for name, row in rows.items()},
        "of the time": {name: round(row["wall_speedup"], 3) for name, row in rows.items()},
        "regions": fast.report().num_regions,
        "seconds to compile": round(seconds, 1),
    }


def _output(result: Any) -> jax.Array:
    return jnp.asarray(jax.tree.leaves(result)[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--layers", type=int, help="of each network; 12 as published")
    parser.add_argument("--nets", nargs="*", choices=[*NETS, []], default=list(NETS))
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--sparsities", type=float, nargs="*", help="in place of each one's own")
    options = parser.parse_args()
    bind(usable_cores()[:1])
    results = {}
    for name in options.nets:
        net = NETS[name]
        if options.layers:
            net = net._replace(model=net.model.clone(layers=options.layers))
        for batch in options.batches:
            for sparsity in options.sparsities or net.sparsities:
                label = f"{name}, batch {batch}, {sparsity:.0%} zeros"
                results[label] = compare(net, batch, sparsity, options.repeats)
                print(f"{label}: {results[label]}", file=sys.stderr, flush=True)
    publish(results, options.json)


if __name__ == "__main__":
    main()

"""Other engines are given the network that ours runs, and results are judged as the bars say."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from benchmarks.peers import results, table, worker
from benchmarks.peers.bars import BARS, DENSE, cases
from benchmarks.peers.case import Case, flops
from benchmarks.peers.environments import CannotBeHadError, Engine, python_of
from benchmarks.peers.onnx_export import export
from benchmarks.peers.process import Worker
from benchmarks.peers.rounds import CANNOT, summary
from tests.compiler.graphs import rewritten

IMAGE = (2, 9, 9, 8)
AROUND = ((0, 0), (1, 2), (0, 1), (0, 0))


def weights(*shape):
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    return values / np.float32(np.sqrt(np.prod(shape[:-1])))


def conv(x, kernel, strides=(1, 1), padding="SAME", groups=1, layout="NHWC"):
    dims = (layout, "HWIO", layout)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dims, feature_group_count=groups
    )


def gated(x):
    y = jax.nn.silu(conv(x, weights(5, 5, 1, 8), groups=8))
    gate = jax.nn.sigmoid(conv(y.mean((1, 2), keepdims=True), weights(1, 1, 8, 8)))
    return conv(y * gate, weights(1, 1, 8, 8)) + x


def shuffled(x):
    halves = jnp.concatenate([x[..., 4:], nn.avg_pool(x, (3, 3), padding="SAME")[..., :4]], -1)
    return halves.reshape(2, 9, 9, 2, 4).swapaxes(3, 4).reshape(IMAGE)


FUNCTIONS = {
    "stride, padding, relu6, head": lambda x: (
        jax.nn.relu6(conv(x, weights(3, 3, 8, 16), (2, 2))).mean((1, 2)) @ weights(16, 5)
    ),
    "gate and residual": gated,
    "pools and flatten": lambda x: (
        nn.max_pool(x, (3, 3), (2, 2), "SAME").reshape(2, -1) @ weights(200, 3)
    ),
    "channels moved": shuffled,
    "linear on rows, gelu": lambda x: jax.nn.gelu(x.reshape(2, 81, 8) @ weights(8, 7)),
    "hard swish, tanh": lambda x: jnp.tanh(jax.nn.hard_swish(conv(x, weights(1, 1, 8, 4)))),
    "channels first": lambda x: jax.nn.elu(conv(x, weights(3, 3, 9, 4), layout="NCHW")),
    "zeros around": lambda x: conv(jnp.pad(nn.relu(x), AROUND), weights(1, 1, 8, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exported_file_computes_what_jax_does(name, tmp_path):
    function = FUNCTIONS[name]
    x = jax.random.normal(jax.random.key(1), IMAGE)
    expected = jax.jit(function)(x)
    export(rewritten(lambda _, x: function(x), {}, x), tmp_path / "net.onnx")
    session = ReferenceEvaluator(str(tmp_path / "net.onnx"))
    first = session.input_types_[0].tensor_type.shape.dim[1].dim_value == IMAGE[-1]
    given = np.asarray(x).transpose(0, 3, 1, 2) if first else np.asarray(x)
    (y,) = session.run(None, {session.input_names[0]: given})
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_a_step_that_compile_does_not_know_is_named(tmp_path):
    graph = rewritten(lambda _, x: jnp.sort(x), {}, jnp.ones((3, 4)))
    with pytest.raises(ValueError, match="got sort"):
        export(graph, tmp_path / "net.onnx")


def test_useful_flops_leave_zeros_out():
    kernel = jnp.ones((4, 6)).at[0].set(0)
    graph = rewritten(lambda p, x: x @ p["kernel"], {"kernel": kernel}, jnp.ones((3, 4)))
    assert flops(graph) == (2 * 3 * 24, 2 * 3 * 18)


def test_time_is_the_median_over_rounds_of_the_medians_of_calls():
    walls, cpus = ([1.0, 9.0, 2.0], [3.0], [8.0, 4.0, 5.0]), ([1.0] * 3, [2.0], [4.0] * 3)
    found = summary([{"times_ms": w, "cpu_ms": c} for w, c in zip(walls, cpus, strict=True)])
    assert found == {"ms": 3.0, "low": 2.0, "high": 5.0, "cpu ms": 2.0, "calls": 7}


def row(ours_ms, **peers_ms):
    case = Case("mobilenet_v1", DENSE, 0.0)
    engines = {name: {"ms": ms} for name, ms in {"ours": ours_ms, **peers_ms}.items()}
    rates = {"effective gflop": 1.0, "useful gflop": 0.5}
    return {**case._asdict(), **rates, "engines": engines}


def test_bars_are_judged_by_the_ratio_of_one_run():
    (judged,) = results.judged([row(3.0, onnxruntime=2.0, mnn=9.0)])
    bar, _, ratio = judged
    assert (bar.peer, bar.at_most, ratio) == ("onnxruntime", 1.10, 1.5)
    assert results.judged([row(3.0, mnn=9.0)]) == []


def test_every_bar_has_its_case():
    assert {bar[:3] for bar in BARS} <= set(cases())


def test_an_engine_that_cannot_be_had_is_in_the_table_with_the_reason():
    made = row(1.0, onnxruntime=2.0)
    made["engines"]["deepsparse"] = {CANNOT: "no wheel"}
    machine = {"cpu": "c", "instruction set": "avx2", "jax": "1"}
    text = table.markdown({"machine": machine, "cases": [made]})
    assert "| 2.00 (0.50) | none |" in text
    assert f"deepsparse {CANNOT} for mobilenet_v1, dense, batch 1, threads 1: no wheel" in text
    assert "<svg" in table.picture([row(1.0, onnxruntime=2.0)])


def test_a_case_measured_again_takes_the_place_of_the_first(tmp_path):
    file = tmp_path / "peers.json"
    for ms in (1.0, 2.0):
        results.merge(file, row(ms))
    assert [case["engines"]["ours"]["ms"] for case in results.read(file)["cases"]] == [2.0]
    file.write_text(json.dumps({"machine": {}, "cases": [row(1.0)]}))
    assert results.read(file)["cases"] == []


def test_a_worker_answers_lines_and_an_ended_one_gives_its_last_words(tmp_path):
    program = (
        "import sys, json; print(json.dumps(json.loads(input())), flush=True); sys.exit('oops')"
    )
    process = Worker([sys.executable, "-c", program], [0], tmp_path / "log")
    assert process.ask({"seconds": 1}) == {"seconds": 1}
    with pytest.raises(CannotBeHadError, match="it ended with: oops"):
        process.ask({"seconds": 1})
    process.close()


def test_an_engine_that_pip_does_not_find_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.peers.environments.FOLDER", tmp_path)
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(CannotBeHadError, match="No matching distribution"):
        python_of(Engine("none", ("none==1",)))


def test_the_worker_knows_every_engine():
    from benchmarks.peers.environments import ENGINES

    assert {engine.name for engine in ENGINES} == set(worker.ENGINES)

"""What stays in XLA is named, and goes into a program beside the file when that is allowed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from tests.compiler.files.functions import ROWS, drawn, perceptron

LEFT = "1 sort (no kind of node)"
LOOP = "1 while (a loop that ends when the values say so)"


def ranked(params, x):
    return {"top": jnp.sort(perceptron(params, x["in"])) + x["shift"]}


def looped(params, x):
    turn = lambda x: perceptron(params, x) @ params["back"]
    return jax.lax.while_loop(lambda x: x[0, 0] != turn(x)[0, 0], lambda x: 0 * turn(x), x)


def halved(params, x):
    return jnp.sort(perceptron(params, x.reshape(int(x.shape[0]) // 2, 48)[:, :24]))


INPUTS = {"in": drawn(2, 24), "shift": drawn(8)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    fast = sj.compile(ranked, ROWS, INPUTS, tune=False)
    path = tmp_path_factory.mktemp("files") / "net.sjx"
    sj.save(fast, path, allow_xla=True)
    return fast, path


def test_the_program_beside_the_file_is_the_function(saved):
    fast, path = saved
    loaded = sj.load(path, allow_xla=True)
    x = INPUTS | {"in": drawn(5, 24)}
    np.testing.assert_allclose(loaded(x)["top"], fast(x)["top"], rtol=1e-5, atol=1e-5)
    total = lambda run: lambda x: jnp.sum(run(x)["top"] ** 2)
    grads = jax.jit(lambda x: [jax.grad(total(run))(x) for run in (loaded, fast)])(x)
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-4, atol=1e-5), *grads)
    assert loaded(INPUTS | {"in": drawn(0, 24)})["top"].shape == (0, 8)
    assert [str(port) for port in loaded.inputs] == ["float32[batch, 24]", "float32[8]"]
    assert f"In XLA: {LEFT}" in str(loaded.report())


def test_who_did_not_ask_for_code_gets_none(saved, tmp_path):
    _, path = saved
    with pytest.raises(ValueError, match=r"JAX alone runs it, for in XLA stays 1 sort \(no kind"):
        sj.load(path)
    (tmp_path / "net.sjx").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"not beside it: net\.sjx\.stablehlo"):
        sj.load(tmp_path / "net.sjx", allow_xla=True)
    (tmp_path / "net.sjx.stablehlo").write_bytes(b"another")
    with pytest.raises(ValueError, match="not the program that was saved with it"):
        sj.load(tmp_path / "net.sjx", allow_xla=True)


DAMAGED = {
    "no program": lambda graph: graph.pop("program"),
    "a program without a digest": lambda graph: graph["program"].pop("sha256"),
    "a program that is a list": lambda graph: graph.update(program=[]),
    "no inputs": lambda graph: graph.pop("inputs"),
    "inputs that are a number": lambda graph: graph.update(inputs=3),
    "an input without a shape": lambda graph: graph["inputs"][0].pop("shape"),
    "an output that is text": lambda graph: graph["outputs"].__setitem__(0, "y"),
    "a tree of other leaves": lambda graph: graph.update(output_tree={"a": 4}),
    "brackets without end": lambda graph: graph.update(xla="deep"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_an_error_of_one_sentence(saved, tmp_path, name):
    file = saved[1].read_bytes()
    head = json.loads(file[8:])
    graph = json.loads(head["__metadata__"]["sparsejax"])
    DAMAGED[name](graph)
    written = json.dumps(graph).replace('"deep"', "[" * 100_000 + "]" * 100_000)
    whole = json.dumps({"__metadata__": {"sparsejax": written}}).encode()
    (tmp_path / "net").write_bytes(len(whole).to_bytes(8, "little") + whole)
    (tmp_path / "net.stablehlo").write_bytes(b"")
    with pytest.raises(ValueError, match=r"load needs a file that sj\.save wrote"):
        sj.load(tmp_path / "net", allow_xla=True)


def test_other_inputs_are_refused(saved):
    loaded = sj.load(saved[1], allow_xla=True)
    with pytest.raises(ValueError, match=r"needs in as float32\[batch, 24\] .* got int32\[2, 24\]"):
        loaded(INPUTS | {"in": np.ones((2, 24), np.int32)})
    with pytest.raises(TypeError, match="needs inputs as"):
        loaded(INPUTS["in"])


def test_a_loop_without_known_turns_is_named_and_allowed(tmp_path):
    params, x = ROWS | {"back": drawn(8, 24)}, drawn(3, 24)
    fast = sj.compile(looped, params, x, tune=False)
    with pytest.raises(ValueError, match=r"got in XLA 1 while .* allow_xla=True"):
        sj.save(fast, tmp_path / "net")
    with pytest.warns(UserWarning, match=r"has no gradient: .* does not work for lax\.while_loop"):
        sj.save(fast, tmp_path / "net", allow_xla=True)
    loaded = sj.load(tmp_path / "net", allow_xla=True)
    np.testing.assert_allclose(loaded(x), fast(x), rtol=1e-4, atol=1e-4)
    assert LOOP in loaded.report().xla


def test_a_batch_that_is_no_free_one_is_said(tmp_path):
    fast = sj.compile(halved, ROWS, drawn(4, 24), tune=False)
    with pytest.warns(UserWarning, match="the batch of the saved function is that of the example"):
        sj.save(fast, tmp_path / "net", allow_xla=True)
    assert sj.load(tmp_path / "net", allow_xla=True).inputs[0].shape == (4, 24)


def test_what_the_kernels_run_whole_has_no_program_beside_it(tmp_path):
    fast = sj.compile(perceptron, ROWS, drawn(2, 24), tune=False)
    sj.save(fast, tmp_path / "net", allow_xla=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    with pytest.raises(ValueError, match='values="float32" for what XLA runs, got "float16"'):
        sj.save(sj.compile(halved, ROWS, drawn(4, 24), tune=False), "no", values="float16",
                allow_xla=True)  # fmt: skip

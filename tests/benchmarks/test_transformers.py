"""Other engines are given the step of generation that ours runs."""

import jax
import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from benchmarks.transformers import Blocks, Net, function_of, write_onnx


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("decode", [True, False])
def test_the_file_computes_what_the_function_does(tmp_path, batch, decode):
    net = Net(Blocks(2, 2, causal=True, decode=decode), 5, 16, (0.5,))
    function, params, inputs = function_of(net, batch, 0.5)
    write_onnx(net, function, params, inputs, tmp_path)
    session = ReferenceEvaluator(str(tmp_path / "net.onnx"))
    given = np.load(tmp_path / "input.npz").values()
    found = session.run(None, dict(zip(session.input_names, given, strict=True)))
    if not decode:
        wanted = [function(params, *inputs)]
    else:
        row, state = function(params, *inputs)
        caches = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
        wanted = [row, *caches]
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(np.asarray(theirs), rel=1e-4, abs=1e-5)

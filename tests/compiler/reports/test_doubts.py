"""What compile says at once: layers left in XLA with their reasons, and models in training mode."""

import re
import warnings
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import sparsejax as sj
from sparsejax.compiler.layouts import tune

compiled = partial(sj.compile, tune=False)
KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
ROWS = IMAGES[:, :, 0]


class Net(nn.Module):
    dtype: object = None

    @nn.compact
    def __call__(self, x, train=True, dropout=True):
        x = nn.Conv(4, (3, 3), dtype=self.dtype)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x))
        x = nn.Dropout(0.5, deterministic=not dropout)(x.mean((1, 2)))
        return nn.Dense(3, dtype=self.dtype)(x)


class Module(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.layer = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.layer(self.dropout(self.norm(x)))


def linen(dtype=None, **modes):
    model = Net(dtype)
    variables = jax.jit(partial(model.init, train=False, dropout=False))(KEY, IMAGES)
    options = {"mutable": ["batch_stats"], "rngs": {"dropout": KEY}} if modes else {}
    modes = {"train": False, "dropout": False} | modes
    return partial(model.apply, **options, **modes), variables, IMAGES


def flax_nnx(mode):
    module = Module(nnx.Rngs(0))
    getattr(module, mode)()
    graph, state = nnx.split(module)
    return lambda state, x: nnx.merge(graph, state)(x), state, ROWS[:, 0]


def product(dtype, x_dtype=None):
    weights = {"kernel": jnp.ones((3, 4), dtype)}
    return lambda p, x: jax.nn.relu(x @ p["kernel"]), weights, jnp.asarray(ROWS, x_dtype or dtype)


BATCH, DROPOUT, CAST = "BatchNorm.*train=False", "dropout.*train=False", "cast params and inputs"
DOUBTS = {
    "linen, train": (lambda: linen(train=True), [BATCH]),
    "linen, dropout": (lambda: linen(dropout=True), [DROPOUT]),
    "linen, both": (lambda: linen(train=True, dropout=True), [BATCH, DROPOUT]),
    "nnx, train": (lambda: flax_nnx("train"), [BATCH, DROPOUT]),
    "bfloat16": (lambda: product(jnp.bfloat16), [f"kernel .*bfloat16 .*{CAST}"]),
    "float16": (lambda: product(jnp.float16), [f"kernel .*float16 .*{CAST}"]),
    "weights in bfloat16": (lambda: product(jnp.bfloat16, np.float32), [f"bfloat16.*{CAST}"]),
    "a model in bfloat16": (lambda: linen(jnp.bfloat16), [f"Conv_0/kernel .*bfloat16.*{CAST}"]),
    "three dimensions": (
        lambda: (
            lambda p, x: lax.conv_general_dilated(
                x[None, None],
                p["k"],
                (1, 1, 1),
                "SAME",
                dimension_numbers=("NDHWC", "DHWIO", "NCDHW"),
            ),
            {"k": np.ones((1, 1, 3, 3, 3), np.float32)},
            ROWS,
        ),
        ["k .3-D convolution: in 3 dimensions"],
    ),
    "no layers": (lambda: (lambda p, x: x * p, np.ones(3, np.float32), ROWS), ["is no layer"]),
}
IN_ORDER = {"linen": linen, "nnx": lambda: flax_nnx("eval")}


def said(function, params, *inputs, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiled(function, params, *inputs, **options)
    assert all(w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("name", DOUBTS)
def test_what_is_doubtful_is_said_at_once(name):
    make, expected = DOUBTS[name]
    messages = said(*make())
    assert len(messages) == len(expected), messages
    for message, words in zip(messages, expected, strict=True):
        assert re.search(words, message) and message.endswith("."), message


@pytest.mark.parametrize("name", IN_ORDER)
def test_what_is_in_order_is_left_unsaid(name):
    assert said(*IN_ORDER[name]()) == []


def left(p, x):
    x = lax.conv_general_dilated(
        x, p["turned"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "WNC")
    ).transpose(1, 0, 2)
    x = lax.scan(lambda c, k: (jnp.tanh(c @ k), None), x, p["loop"])[0]
    x = jnp.einsum("btk,tkd->btd", x, p["batched"]) + x @ p["dense"]
    image = lax.conv_general_dilated(
        x[:, :, None], p["up"], (1, 1), ((1, 1), (1, 1)), (2, 2),
        dimension_numbers=("NHWC", "HWIO", "NWHC"),
    ).swapaxes(1, 2)  # fmt: skip
    volume = lax.conv_general_dilated(
        image[:, None], p["volume"], (1, 1, 1), "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NCDHW"),
    )  # fmt: skip
    return volume


def test_layers_that_stay_in_xla_have_rows_with_reasons():
    shapes = {
        "turned": (3, 3, 4),
        "loop": (65, 4, 4),
        "batched": (6, 4, 4),
        "dense": (4, 4),
        "up": (2, 2, 4, 4),
        "volume": (1, 1, 1, 4, 2),
    }
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    params["loop"][:, :, :2] = 0
    plan = sj.plan(params, {"loop|dense": sj.Unstructured()}, sparsity=0.5)
    with pytest.warns(UserWarning, match=r"1 of the 2 leaves .* loop \(scan: inside scan"):
        fast = compiled(left, params, ROWS, plan=plan)
    np.testing.assert_allclose(fast(ROWS), left(params, ROWS), rtol=1e-4, atol=1e-4)
    report = fast.report()
    rows = {row.path: row for row in report.layers}
    assert set(rows) == set(shapes)
    assert {path for path, row in rows.items() if row.kernel != "xla"} == {"dense"}
    words = {
        "turned": ("1-D convolution", "neither last nor first", 2 * 6 * 3 * 3 * 4),
        "loop": ("scan", "inside scan", 65 * 2 * 6 * 4 * 4),
        "batched": ("product", "along the batch", 2 * 6 * 4 * 4),
        "up": ("2-D transposed convolution", "neither last nor first", None),
        "volume": ("3-D convolution", "in 3 dimensions", 2 * 12 * 2 * 4 * 2),
    }
    for path, (kind, reason, adds) in words.items():
        row = rows[path]
        assert row.kind == kind and reason in row.reason and row.region == -1, path
        assert adds is None or row.multiply_adds == adds, path
    assert rows["loop"].sparse_multiply_adds == rows["loop"].multiply_adds // 2
    assert "scan: inside scan" in " ".join(str(report).split())


def test_a_plan_that_names_nothing_is_named():
    params = {"other": np.ones((3, 4), np.float32)}
    plan = sj.plan(params, {"other": sj.Unstructured()}, sparsity=0.5)
    with pytest.warns(UserWarning, match=r"other \(no layer has these weights\)"):
        compiled(lambda p, x: x @ p["kernel"], {"kernel": params["other"]}, ROWS, plan=plan)


def test_times_and_multiply_adds_are_of_one_call(monkeypatch):
    monkeypatch.setattr(tune, "profile", lambda program, **_: [1e-6] * len(program.owners) * 3)
    kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 8)).astype(np.float32)
    net = lambda p, x: lax.conv_general_dilated(
        x, p, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    one, four = (
        sj.compile(net, kernel, np.repeat(IMAGES[:1], n, 0)).report().layers[0] for n in (1, 4)
    )
    assert (one.batch, four.batch) == (1, 4)
    assert four.multiply_adds == 4 * one.multiply_adds
    assert four.microseconds == pytest.approx(4 * one.microseconds)
    assert four.microseconds_per_image == pytest.approx(one.microseconds)


def test_the_report_fits_80_columns():
    deep = {
        f"block_{i}": {"a_rather_long_name_of_a_layer": {"kernel": np.eye(3)}} for i in range(3)
    }

    def net(params, x):
        for block in params.values():
            x = jax.nn.relu(x @ block["a_rather_long_name_of_a_layer"]["kernel"])
        return x

    report = compiled(net, {"params": deep}["params"], ROWS).report()
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80 and "block_2" in text
    assert "<table>" in report._repr_html_() and "block_2" in report._repr_html_()
    assert "In XLA: nothing" in text

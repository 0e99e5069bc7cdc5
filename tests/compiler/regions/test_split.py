"""compile's regions: as large as can be, never waiting for themselves, and right in any order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparsejax.compiler.graph.graph import Region
from sparsejax.compiler.regions.split import split
from tests.compiler.graphs import assert_close, assert_same, regions, rewritten, stepwise

X = jax.random.normal(jax.random.key(0), (2, 5, 6, 8))
SQUARE = jax.random.normal(jax.random.key(2), (2, 8, 6, 6))
ROWS = jax.random.normal(jax.random.key(1), (3, 4, 8))
RNG = np.random.default_rng(0)
P = {
    "conv": jnp.asarray(RNG.normal(size=(3, 3, 8, 8)), jnp.float32),
    "one": jnp.asarray(RNG.normal(size=(1, 1, 8, 8)), jnp.float32),
    "matrix": jnp.asarray(RNG.normal(size=(8, 8)), jnp.float32),
    "scale": jnp.asarray(RNG.normal(size=8), jnp.float32),
}


def conv(x, kernel, **options):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, **options)


def foreign(x):
    """What no region may hold."""
    return jnp.cumsum(x, axis=1)


def over_a_foreign_node(p, x):
    y = conv(x, p["conv"])
    return conv(y + foreign(y), p["conv"])


def crossing(p, x):
    a, b = conv(x, p["conv"]), conv(foreign(x), p["conv"])
    return jax.nn.relu(a + foreign(b)) * jax.nn.relu(b + foreign(a))


def late_merge(p, x):
    a = conv(x, p["one"])
    b = conv(foreign(a), p["one"])
    c = conv(foreign(x), p["one"])
    return a + b * c


def several_outputs(p, x):
    y = conv(x, p["conv"])
    return {"y": y, "list": [jax.nn.relu(y), y.mean((1, 2)) @ p["matrix"]], "x": x}


def queries_keys_values(p, x):
    q, k, v = x @ p["matrix"], x @ p["matrix"].T, jax.nn.relu(x @ (2 * p["matrix"]))
    return jax.nn.softmax(q @ k.swapaxes(1, 2)) @ v + x


def images_and_rows(p, x):
    y = conv(x, p["conv"])
    rows = y.reshape(2, 30, 8) @ p["matrix"]
    return jax.nn.relu(rows.reshape(2, 5, 6, 8) @ p["matrix"])


def pixels_as_batch(p, x):
    return jax.nn.relu(conv(x, p["conv"]).reshape(-1, 8) @ p["matrix"])


def head(p, x):
    y = jax.nn.relu(conv(x, p["conv"])).mean((1, 2))
    return jax.nn.sigmoid(y @ p["matrix"] + y)


def squeezed(p, x):
    y = conv(x.mean((1, 2), keepdims=True), p["one"])
    return jnp.squeeze(y, (1, 2)) @ p["matrix"]


def mixed_layouts(p, x):
    y = conv(x, p["one"]).transpose(0, 3, 1, 2)
    layout = ("NCHW", "HWIO", "NCHW")
    z = lax.conv_general_dilated(y, p["one"], (1, 1), "SAME", dimension_numbers=layout)
    return jax.nn.relu(z * 2.0)


def patches(p, x):
    """Rows of NCHW images, by a layer of NHWC images that the residual skips."""
    x = x.transpose(0, 2, 3, 1)
    y = jax.nn.relu(conv(x, p["one"])) + x
    rows = jnp.concatenate([jnp.zeros((2, 1, 8)), y.reshape(2, 36, 8)], 1)
    return jax.nn.relu(rows @ p["matrix"])


def flattened(p, x):
    """The same where channels stay first until images are rows."""
    layout = ("NCHW", "HWIO", "NCHW")
    y = lax.conv_general_dilated(x, p["one"], (1, 1), "SAME", dimension_numbers=layout)
    y = jax.nn.relu(y) + x
    rows = jnp.concatenate([jnp.zeros((2, 1, 8)), y.reshape(2, 8, 36).swapaxes(1, 2)], 1)
    return jax.nn.relu(rows @ p["matrix"])


def patches_twice(p, x):
    y = conv(x.transpose(0, 2, 3, 1), p["one"])
    return jax.nn.relu(y.reshape(2, 36, 8) @ p["matrix"]), foreign(y.transpose(0, 3, 1, 2))


def form(region):
    return "rows" if region.rows else "images"


# name -> function, input, (nodes, form, channels_last) of each region
GRAPHS = {
    "over a foreign node": (over_a_foreign_node, X, [(1, "images", 1), (2, "images", 1)]),
    "crossing": (crossing, X, None),
    "late merge": (late_merge, X, None),
    "several outputs": (several_outputs, X, [(4, "images", 1)]),
    "queries, keys, values": (queries_keys_values, ROWS, [(5, "rows", 1)]),
    "images and rows": (images_and_rows, X, None),
    "pixels as batch": (pixels_as_batch, X, [(1, "images", 1), (1, "rows", 1)]),
    "head": (head, X, [(3, "images", 1)]),
    "squeezed": (squeezed, X, [(4, "images", 1)]),
    "mixed layouts": (mixed_layouts, X, [(2, "images", 1)]),
    "patches": (patches, SQUARE, [(6, "images", 1)]),
    "flattened": (flattened, SQUARE, [(6, "images", 1)]),
    "patches twice": (patches_twice, SQUARE, None),
    "no layer": (lambda p, x: jax.nn.relu(x * p["scale"]) + x, X, []),
    "one number": (lambda p, x: x[0, 0] @ p["matrix"], ROWS, [(1, "rows", 1)]),
    "no images": (lambda p, x: conv(x[:0], p["conv"]) + 1, X, []),
    "only data": (lambda p, x: x[..., ::-1], X, []),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_regions_are_as_expected_and_right(name):
    fn, x, expected = GRAPHS[name]
    graph = assert_same(fn, P, x)
    found = [
        (len(r.nodes), "rows" if r.rows else "images", r.channels_last) for r in regions(graph)
    ]
    assert expected is None or found == expected


@pytest.mark.parametrize("name", GRAPHS)
def test_every_node_is_in_one_step_and_follows_what_it_reads(name):
    fn, x, _ = GRAPHS[name]
    graph = rewritten(fn, P, x)
    known, nodes = set(graph.inputs), []
    for step in split(graph):
        assert all(v in known or v.constant is not None for v in step.inputs)
        known.update(step.outputs)
        nodes += step.nodes if isinstance(step, Region) else [step]
    assert sorted(map(id, nodes)) == sorted(map(id, graph.nodes))


def test_what_changes_the_order_ahead_of_a_region_is_one_for_all_that_read_it():
    (region,) = regions(rewritten(flattened, P, SQUARE))
    assert len(region.inputs) == 1


def test_what_stayed_in_xla_is_named_with_its_reason():
    graph = rewritten(lambda p, x: foreign(jax.nn.relu(conv(x, p["one"]))) * x, P, X)
    split(graph)
    left = {name: (left.count, left.reason) for name, left in graph.left.items()}
    assert left == {
        "cumsum": (1, "no kind of node"),
        "Elementwise": (1, "no layer beside it"),
    }
    fn = lambda p, x: conv(x, p["one"].astype(jnp.float16), preferred_element_type=None)
    graph = rewritten(fn, P, X.astype(jnp.float16))
    split(graph)
    assert graph.left["conv_general_dilated"].reason == "float16 (its weights), not float32"


def test_a_graph_in_one_region_has_nothing_left():
    graph = rewritten(head, P, X)
    (region,) = regions(graph)
    assert graph.left == {} and region.inputs == graph.inputs and region.outputs == graph.outputs
    assert str(region).splitlines()[0] == "inputs  %0 float32[2,5,6,8]"


def test_regions_serve_any_batch_and_vmap():
    run = stepwise(rewritten(squeezed, P, X))
    xs = jax.random.normal(jax.random.key(2), (3, 2, 5, 6, 8))
    assert_close(jax.vmap(run)(xs)[0], jax.vmap(lambda x: squeezed(P, x))(xs))

"""Channels that go together are found, and in any order of them the function is the same."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sparsejax as sj
from sparsejax.jaxprs.widths.held import held, kept
from sparsejax.jaxprs.widths.spans import Spans

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4)).astype(np.float32)


def normal(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def conv(x, kernel, groups=1):
    dims = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dims, feature_group_count=groups
    )


def places(group):
    """Each place as path.axis, with the number of places of a unit if it is not one."""
    names = [(f"{p.path}.{p.axis}", p.positions.shape[1]) for p in group.places]
    return " ".join(name if count == 1 else f"{name}*{count}" for name, count in names)


def free(f, params, *args):
    found = sj.channel_groups(f, params, *args)
    return {(group.size, places(group)) for group in found if not group.reason}


def shuffled(params, groups):
    """The params with the units of each group in another order, in all its places."""
    arrays = dict(params)
    for group in groups:
        order = RNG.permutation(group.size)
        for path, axis, positions in group.places if not group.reason else ():
            new = np.arange(arrays[path].shape[axis])
            new[positions] = positions[order]
            arrays[path] = arrays[path].take(new, axis)
    return arrays


def check_any_order(f, params, *args):
    groups = sj.channel_groups(f, params, *args)
    run = jax.jit(f)
    before, after = run(params, *args), run(shuffled(params, groups), *args)
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-5)


def attention(h, heads, shared):
    """Grouped-query attention as decoders write it, on flat widths."""
    q, k, v = (h[n].reshape(*h[n].shape[:-1], -1, 2) for n in "qkv")
    k, v = (jnp.repeat(x, heads // shared, axis=-2) for x in (k, v))
    weights = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / 2)
    return jnp.einsum("hqk,khd->qhd", weights, v).reshape(h["q"].shape)


def framed(h):
    return jnp.pad(h, ((0, 0), (1, 2)))


TOWARDS = {  # name: (widths of a and b, what lies between them, the free groups)
    "relu": ((6, 6), jax.nn.relu, {(6, "a.1 b.0")}),
    "softmax": ((6, 6), jax.nn.softmax, {(6, "a.1 b.0")}),
    "norm": (
        (6, 6),
        lambda h: (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1),
        {(6, "a.1 b.0")},
    ),
    "jit": ((6, 6), jax.jit(jax.nn.relu), {(6, "a.1 b.0")}),
    "checkpoint": ((6, 6), jax.checkpoint(jnp.sin), {(6, "a.1 b.0")}),
    "custom": ((6, 6), lambda h: jax.nn.silu(jax.nn.relu6(h)), {(6, "a.1 b.0")}),
    "vmap": ((6, 6), jax.vmap(lambda h: h / h.max()), {(6, "a.1 b.0")}),
    "twice": ((6, 12), lambda h: jnp.concatenate([h, h], -1), {(6, "a.1 b.0*2")}),
    "halves": (
        (6, 3),
        lambda h: jax.nn.silu(h[:, :3]) * h[:, 3:],
        {(3, "a.1*2 b.0")},
    ),
    "thirds": (
        (6, 6),
        lambda h: jnp.concatenate(jnp.split(h, 3, -1)[::-1], -1),
        {(2, "a.1 b.0")},
    ),
    "concatenation": (
        (6, 8),
        lambda h: jnp.concatenate([h, h[:, :2]], -1),
        {(2, "a.1 b.0*2"), (4, "a.1 b.0")},
    ),
    "padded": ((6, 9), lambda h: jnp.pad(h, ((0, 0), (1, 2))), {(6, "a.1 b.0")}),
    "heads": (
        (6, 6),
        lambda h: jax.nn.softmax(h.reshape(-1, 3, 2)).reshape(h.shape),
        {(3, "a.1*2 b.0*2"), (2, "a.1*3 b.0*3")},
    ),
    "sum of pairs": (
        (6, 3),
        lambda h: h.reshape(-1, 3, 2).sum(-1),
        {(3, "a.1*2 b.0"), (2, "a.1*3")},
    ),
    "channel shuffle": (
        (6, 6),
        lambda h: h.reshape(-1, 2, 3).swapaxes(1, 2).reshape(h.shape),
        {(2, "a.1*3 b.0*3"), (3, "a.1*2 b.0*2")},
    ),
    "repeat": ((3, 6), lambda h: jnp.repeat(h, 2, -1), {(3, "a.1 b.0*2")}),
    "tile": ((3, 6), lambda h: jnp.tile(h, 2), {(3, "a.1 b.0*2")}),
    "transpose": ((6, 6), lambda h: h.T.reshape(6, 2).T, {(6, "a.1 b.0")}),
    "flat image": (
        (6, 18),
        lambda h: (h[:, None] * jnp.arange(3.0)[:, None]).reshape(2, -1),
        {(6, "a.1 b.0*3")},
    ),
    "loop": (
        (6, 6),
        lambda h: jax.lax.fori_loop(0, 2, lambda _, c: jnp.sin(c) + h, jnp.zeros_like(h)),
        {(6, "a.1 b.0")},
    ),
    "while": (
        (6, 6),
        lambda h: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c * c + 1, h),
        {(6, "a.1 b.0")},
    ),
    "branches": (
        (6, 6),
        lambda h: jax.lax.cond(h.sum() > 0, jnp.sin, lambda h: h[:, ::1] * 2, h),
        {(6, "a.1 b.0")},
    ),
    "every other": ((6, 3), lambda h: h[:, ::2], {(3, "a.1*2 b.0")}),
    "every third behind the first": ((9, 3), lambda h: h[:, 1::3], {(3, "a.1*3 b.0")}),
    "every other of a part": ((9, 3), lambda h: h[:, 3:8:2], {(2, "a.1"), (3, "a.1*2 b.0")}),
    "interleaved pairs": (
        (6, 6),
        lambda h: jnp.stack([-h[:, 1::2], h[:, ::2]], -1).reshape(h.shape) + h,
        {(3, "a.1*2 b.0*2")},
    ),
    # What looks at the order of channels keeps them.
    "one block that is not whole": ((7, 4), lambda h: h[:, ::2], set()),
    "constant": ((6, 6), lambda h: h * jnp.arange(6.0), set()),
    "cumulative sum": ((6, 6), lambda h: jnp.cumsum(h, -1), set()),
    "sorted": ((6, 6), lambda h: jnp.sort(h, -1), set()),
    "gathered": ((6, 6), lambda h: h[:, jnp.array([1, 0, 2, 3, 5, 4])], set()),
    "flipped": ((6, 6), lambda h: h[:, ::-1], set()),
    "index": ((6, 6), lambda h: h * jnp.argmax(h, -1, keepdims=True), set()),
    "rolled": ((6, 6), lambda h: jnp.roll(h, 1, -1) + h, None),
    "rolled far": ((60, 60), lambda h: jnp.roll(h, 1, -1) + h, set()),
    "rows that overlap": (
        (8, 22),
        lambda h: framed(framed(jnp.tile(h, 2))).reshape(-1, 2, 11).reshape(-1, 22),
        None,
    ),
    "fft": ((6, 6), lambda h: jnp.fft.fft(h).real, set()),
}


@pytest.mark.parametrize("case", TOWARDS)
def test_what_lies_between_two_layers_says_which_channels_go_together(case):
    (made, used), between, expected = TOWARDS[case]
    params = {"a": normal(4, made), "b": normal(used, 3)}
    f = lambda p, x: between(x @ p["a"]) @ p["b"]
    if expected is not None:
        assert free(f, params, X) == expected
    check_any_order(f, params, X)


def test_a_residual_addition_joins_and_the_output_keeps_its_order():
    params = {"in": normal(4, 6), "f": normal(6, 6), "out": normal(6, 3)}

    def f(p, x):
        h = x @ p["in"]
        return (h + jnp.tanh(h @ p["f"])) @ p["out"]

    assert free(f, params, X) == {(6, "f.0 f.1 in.1 out.0")}
    last = sj.channel_groups(lambda p, x: x @ p["in"] @ p["f"], params, X)
    assert [(g.name, g.reason) for g in last] == [
        ("in", ""),
        ("f", "an output of the function"),
    ]


def test_depthwise_grouped_and_following_convolutions():
    params = {"a": normal(1, 1, 4, 6), "dw": normal(3, 3, 1, 6), "b": normal(1, 1, 6, 8)}
    params |= {"grouped": normal(3, 3, 4, 6), "c": normal(1, 1, 6, 5)}

    def f(p, x):
        h = conv(conv(x, p["a"]), p["dw"], 6)
        return conv(conv(conv(h, p["b"]), p["grouped"], 2), p["c"])

    images = normal(1, 5, 5, 4)
    assert free(f, params, images) == {
        (6, "a.3 b.2 dw.3"),
        (2, "b.3*4 c.2*3 grouped.3*3"),  # whole groups
        (4, "b.3*2 grouped.2"),  # inputs, the same of each group
        (3, "c.2*2 grouped.3*2"),  # and outputs
    }
    check_any_order(f, params, images)


def test_grouped_queries_have_heads_groups_of_heads_and_widths():
    params = {n: normal(4, w) for n, w in zip("qkvo", (8, 4, 4, 8), strict=True)}
    params["o"] = normal(8, 4)
    f = lambda p, x: attention({n: x @ p[n] for n in "qkv"}, 4, 2) @ p["o"]
    tokens = normal(3, 4)
    assert free(f, params, tokens) == {
        (2, "k.1*2 o.0*4 q.1*4 v.1*2"),  # heads of keys, with those of the queries on them
        (2, "o.0*4 q.1*4"),  # heads of queries, the same of each head of keys
        (2, "k.1*2 q.1*4"),  # width of keys
        (2, "o.0*4 v.1*2"),  # width of values
    }
    check_any_order(f, params, tokens)


def test_a_scan_over_stacked_layers_keeps_the_layers():
    params = {"w": normal(3, 4, 4), "u": normal(3, 4, 6), "d": normal(3, 6, 4)}

    def layer(h, p):
        return h @ p["w"] + jnp.tanh(h @ p["u"]) @ p["d"], h[:, :1]

    f = lambda p, x: jax.lax.scan(layer, x, p)[0]
    assert free(f, params, X) == {(6, "d.1 u.2")}
    check_any_order(f, params, X)


def test_experts_lose_the_same_channels():
    params = {"up": normal(2, 4, 6), "gate": normal(2, 4, 6), "down": normal(2, 6, 4)}
    params["out"] = normal(4, 3)

    def f(p, x, sizes):
        own = lambda x, name: jax.lax.ragged_dot(x, p[name], sizes)
        return own(jax.nn.silu(own(x, "gate")) * own(x, "up"), "down") @ p["out"]

    rows, sizes = normal(5, 4), np.array([3, 2])
    assert free(f, params, rows, sizes) == {
        (6, "down.1 gate.2 up.2"),
        (4, "down.2 out.0"),
    }
    check_any_order(f, params, rows, sizes)


def test_tied_embeddings_and_lookups():
    params = {"table": normal(9, 4), "w": normal(4, 4)}
    f = lambda p, ids: (p["table"][ids] @ p["w"] + p["table"][ids]) @ p["table"].T
    ids = np.array([[1, 2, 8]])
    assert free(f, params, ids) == {(4, "table.1 w.0 w.1")}
    check_any_order(f, params, ids)


def test_a_reason_names_the_primitive_and_where_it_is():
    def f(p, x):
        with jax.named_scope("my_layer"):
            return jnp.cumsum(x @ p["a"], -1) @ p["b"]

    first = sj.channel_groups(f, {"a": normal(4, 6), "b": normal(6, 3)}, X)["a"]
    assert first.reason == "`cumsum` in my_layer" and not first.prunable


NORMS = {
    "slow variance": (lambda h: (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True), True),
    "rms": (lambda h: h / jnp.sqrt((h * h).mean(-1, keepdims=True)), False),
    "softmax": (jax.nn.softmax, True),
    "largest": (lambda h: h * h.max(-1, keepdims=True), True),
    "relu": (jax.nn.relu, None),
}


@pytest.mark.parametrize("case", NORMS)
def test_a_norm_that_sees_zeros_counts_its_channels(case):
    norm, counts = NORMS[case]
    f = lambda p, x: norm(x @ p["a"]) @ p["b"]
    group = sj.channel_groups(f, {"a": normal(4, 6), "b": normal(6, 3)}, X)["a"]
    assert not group.reason and bool(group.counts) == bool(counts)
    assert group.sums == (counts is not None)
    if counts:
        assert "reduce" in group.counts


@pytest.mark.parametrize("look", [lambda h: jnp.argsort(h, 0), lambda h: jnp.exp(h)])
def test_what_makes_zeros_other_numbers_is_seen_behind_it(look):
    f = lambda p, x: look(x @ p["a"]).astype(jnp.float32) @ jnp.abs(p["b"] + 1)
    group = sj.channel_groups(f, {"a": normal(4, 6), "b": normal(6, 3)}, X)["a"]
    assert group.counts == "`dot_general`" and not group.sums


def decoder(num_layers, width=16):
    """The params and function of a causal decoder with grouped queries and gated layers."""
    own = {"q": (width, width), "k": (width, width // 2), "v": (width, width // 2)}
    own |= {"o": (width, width), "g": (width, 24), "u": (width, 24), "d": (24, width)}
    own |= {"n1": (width,), "n2": (width,)}
    layers = [
        {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in own.items()}
        for _ in range(num_layers)
    ]

    def rms(x, scale):
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale

    def f(params, x):
        for p in params:
            h = rms(x, p["n1"])
            x = x + attention({n: h @ p[n] for n in "qkv"}, width // 2, width // 4) @ p["o"]
            h = rms(x, p["n2"])
            x = x + (jax.nn.silu(h @ p["g"]) * (h @ p["u"])) @ p["d"]
        return x.sum()

    return f, layers


def test_a_deep_decoder_takes_seconds():
    f, params = decoder(32)
    start = time.process_time()
    groups = sj.channel_groups(f, params, np.zeros((5, 16), np.float32))
    assert time.process_time() - start < 10
    assert len(groups.prunable) == 32 * 5
    assert [g.size for g in groups.prunable[:5]] == [4, 2, 2, 2, 24]


def test_groups_print_as_a_table():
    f = lambda p, x: jnp.cumsum(x @ p["a"] @ p["b"], -1) @ p["c"]
    params = {"a": normal(4, 6), "b": normal(6, 5), "c": normal(5, 2)}
    lines = str(sj.channel_groups(f, params, X)).splitlines()
    assert any("a" in line and "6" in line and line.rstrip().endswith("-") for line in lines)
    assert any("`cumsum`" in line for line in lines)


def test_spans_by_hand():
    spans = Spans()
    one, other = spans.new(6), spans.new(6)
    whole = spans.joined([spans.new(4), spans.new(2)])
    spans.unify(one, whole)  # 4 and 2
    spans.unify(other, one)
    outer, inner = spans.divided(other, (3, 2))  # (2 pairs, 1 pair): all pairs alike
    assert [spans.size(part) for part in spans.parts(outer)] == [2, 1]
    positions, units = held(spans, one)[spans.find(inner)]
    assert dict(zip(positions.tolist(), units.tolist(), strict=True)) == {
        i: i % 2 for i in range(6)
    }
    assert (
        kept(spans, one, {spans.find(inner): np.array([True, False])}).tolist() == [True, False] * 3
    )


def test_a_span_nested_in_one_position_is_that_span():
    spans = Spans()
    one, run = spans.range(spans.new(3), 0, 1), spans.new(4)
    spans.unify(run, spans.nested([one, run]))
    assert spans.runs(run) == [run]
    spans.because = "the reason"
    other = spans.range(spans.new(3), 0, 1)
    spans.unify(spans.nested([other, run]), run)
    assert spans.reason(spans.find(other)) == "the reason" and not spans.reason(run)

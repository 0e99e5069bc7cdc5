"""Attention as it is written elsewhere: heads, masks, groups of queries, turned positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

RNG = np.random.default_rng(0)
BATCH, LENGTH, WIDTH, HEADS = 2, 7, 12, 3


def drawn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


P = {name: drawn(WIDTH, WIDTH) for name in "qkvo"} | {"qkv": drawn(WIDTH, 3 * WIDTH)}
P["bias"] = drawn(HEADS, LENGTH, LENGTH)
X = drawn(BATCH, LENGTH, WIDTH)
SEEN = np.arange(LENGTH) < np.array([[LENGTH], [4]])  # of each sequence
NOT_LAST = np.array([[True], [False]])  # nothing of the second
PLACES = np.arange(LENGTH) * np.array([[1.0], [2.5]], np.float32)
TRIANGLE = np.tri(LENGTH, dtype=bool)


def heads(x, count=HEADS):
    return x.reshape(*x.shape[:-1], count, -1)


def attend(q, k, v, mask=lambda scores: scores, times=lambda weights: weights):
    scores = mask(jnp.einsum("...qhd,...khd->...hqk", q, k) / 2)
    out = jnp.einsum("...hqk,...khd->...qhd", times(jax.nn.softmax(scores)), v)
    return out.reshape(*out.shape[:-2], -1)


def plain(p, x, mask=lambda scores: scores, times=lambda weights: weights):
    return attend(*(heads(x @ p[name]) for name in "qkv"), mask, times) @ p["o"]


def of_heads(numbers):
    """What the weights of each head are multiplied by, as Hugging Face's BERT does."""
    return lambda p, x: plain(p, x, times=lambda w: jnp.einsum("...hqk,h->...hqk", w, numbers))


def halved(p, x):
    numbers = np.array([0.5, 0, 2], np.float32)[:, None, None]
    return plain(p, x, times=lambda weights: 0.5 * (weights * numbers))


def of_linen(**options):
    module = nn.MultiHeadDotProductAttention(HEADS, **options)
    params = jax.jit(module.init)(jax.random.key(0), X)
    return lambda p, x, *mask: module.apply(params, x, mask=mask[0] if mask else None)


def of_nnx():
    module = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=nnx.Rngs(0))
    structure, state = nnx.split(module)
    return lambda p, x: nnx.merge(structure, state)(x)


def fused(p, x):
    """As in timm: (batch, length, 3, heads, size)."""
    parts = (x @ p["qkv"]).reshape(*x.shape[:-1], 3, HEADS, -1).transpose(2, 0, 3, 1, 4)
    q, k, v = parts[0], parts[1], parts[2]
    weights = jax.nn.softmax(0.5 * q @ k.swapaxes(-1, -2), -1)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(x.shape) @ p["o"]


def scaled(p, x):
    """A factor of queries, keys and values."""
    return attend(*(heads(y) for y in jnp.split(x @ p["qkv"] / 2, 3, -1))) @ p["o"]


def grouped(p, x):
    """Two heads of queries for each of keys."""
    q, k, v = heads(x @ p["q"], 4), heads(x @ p["k"][:, :6], 2), heads(x @ p["v"][:, :6], 2)
    out = attend(q, jnp.repeat(k, 2, -2), jnp.repeat(v, 2, -2))
    return out @ p["o"]


def padded(p, x, seen):
    return plain(p, x, lambda s: s + jnp.where(seen[:, None, None, :], 0, -1e9))


def padded_off(p, x, seen):
    """As Hugging Face's DistilBERT."""
    return plain(p, x, lambda s: s - 1e9 * (1.0 - seen[:, None, None, :].astype(jnp.float32)))


def unbiased(p, x):
    return plain(p, x, lambda s: s - p["bias"])


def interleaved(p, x):
    """Queries, keys and values of a head beside each other: Hugging Face's BLOOM, GPT-NeoX."""
    return attend(*jnp.split(heads(x @ p["qkv"]), 3, -1)) @ p["o"]


def causal(p, x):
    return plain(p, x, lambda s: jnp.where(jnp.tril(jnp.ones((LENGTH,) * 2, bool)), s, -jnp.inf))


def causal_and_padded(p, x, seen):
    mask = seen[:, None, None, :] & np.tri(LENGTH, dtype=bool)
    return plain(p, x, lambda s: jnp.where(mask, s, jnp.finfo(jnp.float32).min))


def inverted(p, x, seen):
    return plain(p, x, lambda s: jnp.where(~seen[:, None, None, :], -1e30, s))


def biased(p, x):
    """Relative positions: numbers for each head, query and key."""
    return plain(p, x, lambda s: s + p["bias"])


def biased_and_padded(p, x, seen):
    return plain(p, x, lambda s: s + (p["bias"] + jnp.where(seen[:, None, None, :], 0, -1e9)))


def windowed(p, x):
    return plain(p, x, lambda s: jnp.where(np.tri(LENGTH, k=2) - np.tri(LENGTH, k=-3) > 0, s, -1e9))


def alibi(p, x):
    return plain(p, x, lambda s: jnp.where(TRIANGLE, s + p["bias"], -jnp.inf))


def of_jax(p, x):
    q, k, v = (heads(x @ p[name]) for name in "qkv")
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ p["o"]


def grouped_of_jax(p, x):
    """Of fewer heads of keys and values, as jax.nn has them."""
    q, k, v = heads(x @ p["q"], 4), heads(x @ p["k"][:, :6], 2), heads(x @ p["v"][:, :6], 2)
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ p["o"]


def of_matmul(p, x):
    """Heads ahead of rows: `jnp.matmul` leaves out a batch of 1."""
    q, k, v = (jnp.swapaxes(heads(x @ p[name]), -3, -2) for name in "qkv")
    out = jnp.matmul(jax.nn.softmax(jnp.matmul(q, jnp.swapaxes(k, -1, -2)) / 2), v)
    return jnp.swapaxes(out, -3, -2).reshape(x.shape) @ p["o"]


def angles_of(x, places):
    """Of channels, for rows at known places or at those that are an input."""
    places = np.arange(x.shape[-3]) if places is None else places
    return (places[..., None] * 100.0 ** -np.arange(0, 1, 2 / x.shape[-1]))[..., None, :]


def rotary(x, places=None):
    angles = angles_of(x, places)
    cos, sin = (f(angles).astype(np.float32) for f in (jnp.cos, jnp.sin))
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def rotary_by_halves(x, places=None):
    """As in Hugging Face's Llama."""
    angles = jnp.concatenate([angles_of(x, places)] * 2, -1)
    half = x.shape[-1] // 2
    turned = jnp.concatenate([-x[..., half:], x[..., :half]], -1)
    return x * jnp.cos(angles) + turned * jnp.sin(angles)


def pairs(x, angles):
    angles = jnp.repeat(angles, 2, -1)
    turned = jnp.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape)
    return x * jnp.cos(angles) + turned * jnp.sin(angles)


def rotary_by_pairs(x, places=None):
    """As in Hugging Face's GPT-J."""
    return pairs(x, angles_of(x, places))


def rotary_by_stack(x, places=None):
    """Each of a pair by itself."""
    cos, sin = (f(angles_of(x, places)) for f in (jnp.cos, jnp.sin))
    a, b = x[..., ::2], x[..., 1::2]
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)


def rotary_by_complex(x, places=None):
    """As in the Llama of its authors."""
    turns = jnp.exp(1j * angles_of(x, places).astype(np.float32))
    both = x.reshape(*x.shape[:-1], -1, 2)
    turned = jax.lax.complex(both[..., 0], both[..., 1]) * turns
    return jnp.stack([turned.real, turned.imag], -1).reshape(x.shape)


def rotary_of_some(x, places=None, turn=rotary):
    """As in GPT-NeoX: the channels in front alone."""
    some = x.shape[-1] // 2
    return jnp.concatenate([turn(x[..., :some], places), x[..., some:]], -1)


def rotary_of_all(x, places=None):
    """The same of as many as there are: none are left."""
    size = x.shape[-1]
    return jnp.concatenate([rotary(x[..., :size], places), x[..., size:]], -1)


def rotary_of_parts(x, places=None):
    """As in V-JEPA 2 and DINOv3: heads ahead of rows, parts of a head, and not the first rows."""
    places = np.arange(2, x.shape[-3]) if places is None else places[:, 2:]
    angles = jnp.swapaxes(angles_of(x[..., ::2], places), -3, -2)
    first, rest = jnp.split(jnp.swapaxes(x, -3, -2), [2], -2)
    turned = jnp.concatenate([pairs(part, angles) for part in jnp.split(rest, 2, -1)], -1)
    return jnp.swapaxes(jnp.concatenate([first, turned], -2), -3, -2)


def llama(p, x, turn=rotary):
    q, k = turn(heads(x @ p["q"], 3)), turn(heads(x @ p["k"][:, :4], 1))
    k, v = (jnp.repeat(y, 3, -2) for y in (k, heads(x @ p["v"][:, :4], 1)))
    return attend(q, k, v, lambda s: jnp.where(TRIANGLE, s, -jnp.inf)) @ p["o"]


def neox(p, x):
    """Queries, keys and values of one product, which lie one behind the other."""
    q, k, v = jnp.moveaxis((x @ p["qkv"]).reshape(*x.shape[:-1], 3, HEADS, -1), -3, 0)
    return attend(rotary_by_halves(q), rotary_by_halves(k), v) @ p["o"]


def shifted(p, x, seen):
    """A number is added to all scores, and a mask selects then."""
    return plain(p, x, lambda s: jnp.where(seen[:, None, None, :], s + 3.0, 1.0))


def slopes(p, x, seen, places):
    """Biases that grow with the distance of places which are given, and some keys are left out."""
    far = jnp.abs(places[:, None, :, None] - places[:, None, None, :])
    bias = -far * np.array([0.5, 0.25, 1.0], np.float32)[:, None, None]
    return plain(p, x, lambda s: jnp.where(seen[:, None, None, :], s + bias, -1e9))


def two_biases(p, x, seen, places):
    """As T5 generates: a bias of distances, and one that is large for keys which are left out."""
    bias = jnp.sin(places[:, None, :, None] - places[:, None, None, :])
    far = jnp.where(seen[:, None, None, :], 0.0, -1e9)
    return plain(p, x, lambda s: s - bias + far)


def slopes_of_jax(p, x, places):
    """The same in JAX's own attention, causal."""
    q, k, v = (heads(x @ p[name]) for name in "qkv")
    bias = places[:, None, :, None] * places[:, None, None, :] / 50
    attended = jax.nn.dot_product_attention(q, k, v, bias, is_causal=True)
    return attended.reshape(x.shape) @ p["o"]


def known_slopes(p, x, seen):
    """A known bias, and an input that leaves keys out."""
    return plain(p, x, lambda s: jnp.where(seen[:, None, None, :], s + p["bias"], -2.0))


def windowed_slopes(p, x):
    """Both are known."""
    near = np.abs(np.subtract.outer(np.arange(x.shape[-2]), np.arange(x.shape[-2]))) < 3
    return plain(p, x, lambda s: jnp.where(near, s + p["bias"], -jnp.inf))


def normed(p, x):
    """Queries and keys of each head are normed, as in Qwen 3 and Gemma 3, and then turned."""
    norm = lambda y: y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + 1e-6)
    q, k = (rotary(norm(heads(x @ p[name])) * p["k"][0, :4]) for name in "qk")
    return attend(q, k, heads(x @ p["v"])) @ p["o"]


TURNS = [
    *(rotary, rotary_by_halves, rotary_by_pairs, rotary_by_stack, rotary_by_complex),
    *(rotary_of_some, rotary_of_all, rotary_of_parts),
]


def keys_before_heads(p, x, seen):
    """As in Qwen 3 of bonsai: scores (batch, query, key, head of keys, head of queries)."""
    q, k, v = heads(x @ p["q"], 4), heads(x @ p["k"][:, :6], 2), heads(x @ p["v"][:, :6], 2)
    q = q.reshape(*q.shape[:2], 2, 2, -1)
    scores = jnp.einsum("btkgh,bskh->btskg", q, k) / 2
    mask = (seen[:, None] & TRIANGLE)[..., None, None]
    weights = jax.nn.softmax(jnp.where(mask, scores, -1e30), axis=2)
    return jnp.einsum("btskg,bskh->btkgh", weights, v).reshape(x.shape) @ p["o"]


def in_order(order, *letters):
    """The scores' axes in an order, masked along some: b and k by an input, q and k causally."""

    def function(p, x, seen):
        q, k, v = (heads(x @ p[name]) for name in "qkv")
        scores = jnp.einsum(f"bqhd,bkhd->{order}", q, k) / 2
        mask = seen if "b" in letters else TRIANGLE
        mask = jnp.transpose(mask, sorted((0, 1), key=lambda axis: order.index(letters[axis])))
        shape = [n if a in letters else 1 for a, n in zip(order, scores.shape, strict=True)]
        scores = jnp.where(mask.reshape(shape), scores, -1e30)
        weights = jax.nn.softmax(scores, axis=order.index("k"))
        return jnp.einsum(f"{order},bkhd->bqhd", weights, v).reshape(x.shape) @ p["o"]

    return function


MASK = nn.make_attention_mask(SEEN, SEEN)
# name -> function, inputs, kind of mask
ATTENTIONS = {
    "plain": (plain, (X,), "none"),
    "one sequence": (plain, (X[0],), "none"),
    "linen": (of_linen(), (X,), "none"),
    "linen, masked": (of_linen(), (X, MASK), "select_queries"),
    "linen, keys masked": (of_linen(), (X, SEEN[:, None, None]), "select_keys"),
    "nnx": (of_nnx(), (X,), "none"),
    "fused": (fused, (X,), "none"),
    "scaled": (scaled, (X,), "none"),
    "grouped": (grouped, (X,), "none"),
    "heads are kept": (of_heads(np.ones(HEADS, np.int32)), (X,), "none"),
    "heads are weighed": (of_heads(np.array([0.5, 0, 2], np.float32)), (X,), "none"),
    "heads are halved": (halved, (X,), "none"),
    "padded": (padded, (X, SEEN), "add_keys"),
    "padded off": (padded_off, (X, SEEN), "add_keys"),
    "interleaved": (interleaved, (X,), "none"),
    "unbiased": (unbiased, (X,), "add_queries"),
    "causal": (causal, (X,), "causal"),
    "causal and padded": (causal_and_padded, (X, SEEN), "select_queries"),
    "biased": (biased, (X,), "add_queries"),
    "biased and padded": (biased_and_padded, (X, SEEN), "add_queries"),
    "windowed": (windowed, (X,), "select_queries"),
    "alibi": (alibi, (X,), "add_causal"),
    "slopes": (slopes, (X, SEEN, PLACES), "choose_queries"),
    "slopes, nothing seen": (slopes, (X, SEEN & NOT_LAST, PLACES), "choose_queries"),
    "two biases": (two_biases, (X, SEEN, PLACES), "add_queries"),
    "slopes of jax": (slopes_of_jax, (X, PLACES), "add_causal"),
    "known slopes": (known_slopes, (X, SEEN), "choose_queries"),
    "known slopes, nothing seen": (known_slopes, (X, SEEN & NOT_LAST), "choose_queries"),
    "windowed slopes": (windowed_slopes, (X,), "choose_queries"),
    "of jax": (of_jax, (X,), "causal"),
    "of jax, grouped": (grouped_of_jax, (X,), "causal"),
    "of matmul": (of_matmul, (X,), "none"),
    "of matmul, batch of 1": (of_matmul, (X[:1],), "none"),
    "of matmul, no batch": (of_matmul, (X[0],), "none"),
    "shifted": (shifted, (X, SEEN), "select_keys"),
    "inverted": (inverted, (X, SEEN), "select_keys"),
    "keys before heads": (keys_before_heads, (X, SEEN), "select_queries"),
    "bqkh": (in_order("bqkh", *"bk"), (X, SEEN), "select_keys"),
    "bhkq": (in_order("bhkq", *"bk"), (X, SEEN), "select_keys"),
    "bkqh": (in_order("bkqh", *"bk"), (X, SEEN), "select_keys"),
    "kbqh": (in_order("kbqh", *"bk"), (X, SEEN), "select_keys"),
    "bkhq, causal": (in_order("bkhq", *"qk"), (X, SEEN), "causal"),
    "bqkh, causal": (in_order("bqkh", *"qk"), (X, SEEN), "causal"),
}

"""A causal language model pruned without training: magnitude, Wanda, SparseGPT, by perplexity.

    pip install sparsejax
    python examples/language_model.py

A transformer of 0.4 M weights learns the characters of Python's own manual (`pydoc_data`, in every
Python) for 600 steps, a few minutes on one core. Half of the weights of its linear layers are then
removed at once, in any place and as 2 of 4, by three methods, and each network is compiled.
Perplexity is per character, on text that was not trained on: exp of the mean loss, lower is better.
"""

import argparse
from pydoc_data import topics

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import sparsejax as sj

LENGTH = 64  # characters that a prediction may look at


class Block(nn.Module):
    """Causal self-attention of 4 heads and a feed-forward layer."""

    @nn.compact
    def __call__(self, x):
        *batch, length, width = x.shape
        y = nn.LayerNorm()(x)
        query, key, value = (
            nn.Dense(width, name=name)(y).reshape(*batch, length, 4, -1)
            for name in ("query", "key", "value")
        )
        y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + nn.Dense(width, name="out")(y.reshape(x.shape))
        y = nn.gelu(nn.Dense(4 * width, name="up")(nn.LayerNorm()(x)))
        return x + nn.Dense(width, name="down")(y)


class LanguageModel(nn.Module):
    """Logits of the next character at every position."""

    num_characters: int
    width: int
    num_blocks: int

    @nn.compact
    def __call__(self, ids):
        places = self.param("places", nn.initializers.normal(0.02), (LENGTH, self.width))
        x = nn.Embed(self.num_characters, self.width)(ids) + places
        for i in range(self.num_blocks):
            x = Block(name=f"block{i}")(x)
        return nn.Dense(self.num_characters, name="head")(nn.LayerNorm()(x))


def read():
    """The text as numbers, as rows of LENGTH + 1: a tenth of it to test; how many characters."""
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    characters, ids = np.unique(np.array(list(text)), return_inverse=True)
    rows = ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    rows = np.random.default_rng(0).permutation(rows.astype(np.int32))
    return rows[len(rows) // 10 :], rows[: len(rows) // 10], len(characters)


def mean_loss(logits, rows):
    return optax.softmax_cross_entropy_with_integer_labels(logits, rows[:, 1:]).mean()


def train(model, rows, steps):
    """The params after some steps of AdamW."""
    tx = optax.adamw(optax.schedules.cosine_onecycle_schedule(steps, 4e-3), weight_decay=0.01)
    params = jax.jit(model.init)(jax.random.key(0), rows[:1, :-1])

    @jax.jit
    def step(params, opt_state, rows):
        loss = lambda params: mean_loss(model.apply(params, rows[:, :-1]), rows)
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state, random = tx.init(params), np.random.default_rng(1)
    for _ in range(steps):
        params, opt_state = step(params, opt_state, rows[random.integers(len(rows), size=32)])
    return params


def planned(params, pattern):
    """Half of the weights of the blocks' linear layers."""
    return sj.plan(params, {r"block\d/.*kernel": pattern}, sparsity=0.5)


def pruned(params, plan, calibration):
    """The weights by each method."""
    magnitude = sj.masks.masks_from_scores(
        lambda params: jax.tree.map(jnp.abs, params), globally=False
    )
    return {
        "magnitude": sj.masked(params, jax.jit(lambda params: magnitude(params, plan))(params)),
        "Wanda": sj.masked(params, sj.post.wanda(calibration)(params, plan)),
        "SparseGPT": sj.post.sparse_gpt(params, plan, calibration)[0],
    }


def perplexity(plain, params, rows):
    """Of the compiled network, which is compared with the plain one."""
    parts = [rows[at : at + 64] for at in range(0, len(rows) - 63, 64)]
    first = parts[0][:, :-1]
    fast = jax.jit(sj.compile(plain, params, first, tune=False))
    np.testing.assert_allclose(fast(first), plain(params, first), atol=2e-4)
    return float(np.exp(np.mean([mean_loss(fast(part[:, :-1]), part) for part in parts])))


def main(steps=600, width=128, num_blocks=2, num_test=1_024):
    train_rows, test_rows, num_characters = read()
    test_rows = test_rows[:num_test]
    model = LanguageModel(num_characters, width, num_blocks)
    params, plain = train(model, train_rows, steps), jax.jit(model.apply)
    some = train_rows[:256, :-1]
    calibration = sj.post.calibrate(model.apply, params, planned(params, sj.Unstructured()), [some])
    results = {"dense": perplexity(plain, params, test_rows)}
    for name, pattern in (("50 %", sj.Unstructured()), ("2:4", sj.NM(2, 4))):
        for method, weights in pruned(params, planned(params, pattern), calibration).items():
            results[f"{method} {name}"] = perplexity(plain, weights, test_rows)
    for name, value in results.items():
        print(f"{name:16} {value:7.3f}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    main(parser.parse_args().steps)

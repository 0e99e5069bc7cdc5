"""Benchmarks; `python -m benchmarks.NAME --json FILE` runs one, `python -m benchmarks` all."""

import json
import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

if find_spec("jax") is None:
    raise ImportError(
        "The benchmarks need sparsejax with its extra `experiments`, but this Python has not even "
        "jax: run `make setup` and use .venv/bin/python."
    )

import jax


def as_markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = False) -> str:
    """A table for a page, the columns behind the first to the left or right."""
    below = ["---", *["---:" if right else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, below, *rows))


def publish(results: dict[str, Any], file: str | None) -> None:
    """Print the results, and write them with the machine's cores and jax to a JSON file."""
    print(json.dumps(results, indent=1))
    if file:
        machine = {"cores": os.cpu_count(), "jax": jax.__version__}
        with open(file, "w") as out:
            json.dump({"machine": machine, **results}, out, indent=1)

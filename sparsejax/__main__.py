"""Look at a file that `sparsejax.save` wrote, run it, or check that it computes what it should."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

import sparsejax as sj
from sparsejax.compiler.files.ports import Port
from sparsejax.compiler.files.read import LoadedFunction

try:
    import tyro
except ImportError as error:
    raise SystemExit(
        "python -m sparsejax needs tyro, which is not installed; pip install 'sparsejax[cli]'."
    ) from error

TOLERANCE = 1e-4  # of the largest output; sums are added up in another order


@dataclass(frozen=True)
class Inspect:
    """Show layers, how they are stored, inputs and outputs."""

    file: tyro.conf.Positional[Path]
    """That sparsejax.save wrote."""

    def main(self) -> None:
        """Print the table."""
        print(sj.load(self.file, allow_xla=True).report())


@dataclass(frozen=True)
class Run:
    """Run the function on arrays or pictures."""

    file: tyro.conf.Positional[Path]
    """That sparsejax.save wrote."""
    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """A .npy file or a picture for each, as `inspect` lists them; pictures are scaled to [0, 1]."""
    output: Path | None = None
    """Folder for a .npy file of each output."""
    allow_xla: bool = False
    """Run the program for XLA that lies beside the file, where the file needs it."""

    def main(self) -> None:
        """Print what came out, and how long it took."""
        loaded = sj.load(self.file, allow_xla=self.allow_xla)
        if len(self.inputs) != len(loaded.inputs):
            wanted = ", ".join(f"{port.name} {port}" for port in loaded.inputs)
            raise ValueError(f"{self.file} needs inputs {wanted}, got {len(self.inputs)}.")
        arrays = map(array_of, self.inputs, loaded.inputs)
        args = jax.tree.unflatten(loaded.input_tree, arrays)
        outputs, milliseconds = timed(lambda: jax.tree.leaves(loaded(*args)))
        for port, array in zip(loaded.outputs, outputs, strict=True):
            print(f"{port.name} {port.dtype}{list(array.shape)}{largest(array)}")
            if self.output:
                self.output.mkdir(parents=True, exist_ok=True)
                np.save(self.output / f"{port.name.replace('/', '.')}.npy", array)
        print(f"{milliseconds:.2f} ms")


@dataclass(frozen=True)
class Check:
    """Read the file with all checks, and compare the kernels with plain JAX on random inputs."""

    file: tyro.conf.Positional[Path]
    """That sparsejax.save wrote."""

    def main(self) -> None:
        """Print by how much outputs differ; exits with 1 where that is too much."""
        loaded = sj.load(self.file)
        assert isinstance(loaded, LoadedFunction)
        found = difference(loaded)
        if not found <= TOLERANCE:
            raise ValueError(f"{self.file} computes what differs by {found:.1e} from plain JAX.")
        print(f"{self.file} is sound, and within {found:.1e} of plain JAX")


def array_of(path: Path, port: Port) -> np.ndarray:
    """A file's array for an input, with a batch of one where it has none."""
    array = np.load(path) if path.suffix == ".npy" else picture_of(path, port)
    return array[None] if array.ndim == len(port.shape) - 1 else array


def picture_of(path: Path, port: Port) -> np.ndarray:
    """A picture in the size of an input."""
    from PIL import Image

    height, width, channels = sides = port.sizes(1)[1:] if len(port.shape) == 4 else (0, 0, 0)
    if channels not in (1, 3):
        raise ValueError(f"a picture goes into [batch, height, width, 1 or 3], not {port}: {path}.")
    with Image.open(path) as image:
        picture = image.convert("RGB" if channels == 3 else "L").resize((width, height))
    return np.asarray(picture, np.float32).reshape(sides) / 255


def difference(loaded: LoadedFunction) -> float:
    """By how much the kernels differ from plain JAX on random inputs, of the largest output."""
    rng = np.random.default_rng(0)
    whole = lambda port: rng.integers(1, 3, port.sizes(1))  # of tokens, lengths, masks
    normal = lambda port: rng.normal(size=port.sizes(1))
    draw = lambda port: (normal if port.dtype == "float32" else whole)(port).astype(port.dtype)
    args = jax.tree.unflatten(loaded.input_tree, map(draw, loaded.inputs))
    leaves = lambda run: [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(run(*args))]
    meant, actual = leaves(loaded.in_jax), leaves(loaded)
    scale = max(float(np.abs(array).max()) for array in meant)
    errors = (float(np.abs(a - b).max()) for a, b in zip(actual, meant, strict=True))
    return max(errors) / max(scale, 1e-30)


def timed(run: Any) -> tuple[list[np.ndarray], float]:
    """What a function returns, and its milliseconds, the best of five after the first."""
    outputs, times = jax.block_until_ready(run()), []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return list(map(np.asarray, outputs)), 1000 * min(times)


def largest(array: np.ndarray, count: int = 5) -> str:
    """The largest numbers of the first item, with their places."""
    first = array[0].ravel() if array.ndim > 1 else array.ravel()
    places = np.argsort(first)[::-1][:count]
    return ": " + ", ".join(f"{first[place]:.4g} at {place}" for place in places)


def main() -> None:
    """The command of this process's arguments."""
    command = tyro.cli(
        Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Check, tyro.conf.subcommand("check")],
        description=__doc__,
    )
    try:
        command.main()
    except (OSError, ValueError, TypeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

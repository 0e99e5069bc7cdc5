"""The settings of the demo, and the run in its output folder that they belong to."""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from experiments.data.dataset import Dataset
from experiments.data.stored import read_json, write_json

OUTPUT = Path("demo-output")
MAX_STEPS = 2_000
MIN_STEPS = 500  # fewer are no training
TRAINING_SECONDS = 140  # of both; set-up and compilations take 200 to 280 s, the rest 60 to 90 s


@dataclass(frozen=True)
class Demo:
    """Train MobileNet-v1 on Fashion-MNIST dense and sparse, then run it sparse."""

    output: Path = OUTPUT
    """Folder for the report, the results and the checkpoints (of smoke runs: smoke/ in it)."""
    smoke: bool = False
    """A tiny budget, to see that everything works; its accuracies mean nothing."""
    fresh: bool = False
    """Delete an earlier run in the output folder instead of going on with it."""
    steps: int | None = None
    """Training steps of each network; by default 500 to 2,000, by the speed of this machine."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    sparsity: float = 0.9
    """Zeros / weights of the 1x1 convolutions, in the end."""
    penalty: float = 1e-3
    """Weight of the R2 penalty (the largest |w| of each 1x1 convolution) in the sparse training."""
    width: float = 0.5
    """Of MobileNet-v1: multiplier of all channel counts."""
    small_images: bool = False
    """Whether the first convolution has stride 1: 3x the time per step, which buys less here."""
    seed: int = 0
    """Of the initial weights, the batches and the flips."""

    def sized(self) -> "Demo":
        """The settings with the smoke budget and a folder of its own, if asked for."""
        if not self.smoke:
            return self
        output = OUTPUT / "smoke" if self.output == OUTPUT else self.output
        return replace(self, output=output, steps=20, batch_size=64, small_images=False)

    def recipe(self) -> dict[str, Any]:
        """What decides the numbers: two runs with equal recipes may go on with each other."""
        where = ("output", "fresh")
        return {name: value for name, value in asdict(self).items() if name not in where}

    def shape(self, dataset: Dataset) -> dict[str, Any]:
        """The options of the network."""
        return {
            "num_classes": len(dataset.classes),
            "width": self.width,
            "small_images": self.small_images,
            "seed": self.seed,
        }


def affordable_steps(seconds: float) -> int:
    """The steps of each training if one takes so many seconds."""
    return min(MAX_STEPS, max(MIN_STEPS, int(TRAINING_SECONDS / 2 / seconds)))


def prepare(demo: Demo) -> Demo:
    """Make the output folder; delete what an earlier run wrote, or refuse its other settings.

    Returns:
        The demo, with the number of steps of the run that it goes on with.
    """
    recipe_file = recipe_of(demo)
    if demo.fresh:
        shutil.rmtree(demo.output / "checkpoint", ignore_errors=True)
        for name in ("report.html", "results.json", "dense.npz", "sparse.npz"):
            (demo.output / name).unlink(missing_ok=True)
    recipe_file.parent.mkdir(parents=True, exist_ok=True)
    if not recipe_file.exists():
        return demo
    hint = "pass --fresh to delete the run that it belongs to, or another --output"
    try:
        before = read_json(recipe_file, {}, hint)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    demo = replace(demo, steps=demo.steps or before.get("steps"))
    changed = [name for name, value in demo.recipe().items() if before.get(name) != value]
    if changed:
        raise SystemExit(
            f"{demo.output} holds a run with other settings ({', '.join(changed)}): "
            "pass --fresh to delete it, or another --output."
        )
    return demo


def recipe_of(demo: Demo) -> Path:
    """The file with the settings of the run in the output folder."""
    return demo.output / "checkpoint" / "recipe.json"


def keep_recipe(demo: Demo) -> None:
    """Write down what a run that goes on with this one must have alike."""
    write_json(recipe_of(demo), demo.recipe())

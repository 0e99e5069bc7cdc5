"""Scalars of running tasks for tensorboard (`run NAME --tensorboard FOLDER`)."""

from collections.abc import Mapping
from pathlib import Path

from experiments.runs.engines import Report, Task
from experiments.runs.records import slug

EVERY = 10  # steps between two points


def also_to_tensorboard(report: Report, folder: Path, task: Task) -> Report:
    """A report that also writes to FOLDER/<setting>/seed<N>.

    Raises:
        SystemExit: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise SystemExit(
            "Scalars for tensorboard need tensorboardX: pip install 'sparsejax[tensorboard]'."
        ) from error
    writer = SummaryWriter(str(folder / slug(task.setting) / f"seed{task.seed}"))

    def both(done: int, total: int, numbers: Mapping[str, float]) -> None:
        report(done, total, numbers)
        if done % EVERY == 0 or done == total:
            for name, value in numbers.items():
                writer.add_scalar(name, value, done)
        if done == total:
            writer.close()

    return both

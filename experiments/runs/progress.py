"""The progress of a training: a bar on a terminal, twenty lines where the output goes elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

STATUS = (
    "loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.1%}  "
    "sparsity {task.fields[sparsity]:.1%}"
)
COLUMNS = ("{task.description:>6}", BarColumn(), "{task.completed}/{task.total}", STATUS)


@contextlib.contextmanager
def training_bar(
    name: str, total: int, console: Console
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A function `show(step, numbers)`, of the loss, the accuracy and the sparsity of a step."""
    progress = Progress(
        *COLUMNS, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    with progress:
        task = progress.add_task(name, total=total, loss=0.0, accuracy=0.0, sparsity=0.0)

        def show(done: int, numbers: dict[str, float]) -> None:
            if progress.tasks[0].completed == done:
                return
            if progress.tasks[0].completed == 0:  # earlier steps must not count in the time left
                progress.reset(task, total=total, completed=done - 1)
            progress.update(task, completed=done, **numbers)
            if not console.is_terminal and done % max(1, total // 20) == 0:
                print(plain_line(name, done, total, numbers), flush=True)

        yield show


def plain_line(name: str, done: int, total: int, numbers: dict[str, float]) -> str:
    """What the progress bar shows, for a log."""
    loss, accuracy, sparsity = (numbers[key] for key in ("loss", "accuracy", "sparsity"))
    shares = f"accuracy {accuracy:.1%}  sparsity {sparsity:.1%}"
    return f"{name:>6} {done}/{total}  loss {loss:.3f}  {shares}"

"""A setting that counts, in a module that a process which counts need not wait for."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from experiments.runs.table import Interrupted


@dataclass(frozen=True)
class Count:
    """Counts to `steps`, a file in the job's folder being its checkpoint."""

    headline: ClassVar[str] = "total"
    steps: int = 3
    stop_at: int | None = None
    fail: bool = False
    seconds: float = 0.0
    pid_file: str = ""

    @property
    def label(self):
        return f"count-{self.steps}"

    def run(self, job):
        if self.fail:
            raise RuntimeError("told to fail")
        job.folder.mkdir(parents=True, exist_ok=True)
        file = job.folder / "count"
        start = int(file.read_text()) if file.exists() else 0
        for number in range(start + 1, self.steps + 1):
            time.sleep(self.seconds)
            _written_whole(file, str(number))
            if self.pid_file and number == 20:
                _written_whole(Path(self.pid_file), str(os.getpid()))
            job.report(number, self.steps, {"loss": 1.0 / number})
            if number == self.stop_at and start < number:
                raise Interrupted(f"after step {number} of {self.steps}")
        return {"total": self.steps + job.seed, "steps_of_this_process": self.steps - start}


def _written_whole(file, text):
    """Whoever kills this process, or reads beside it, meets the text of before or this one."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)

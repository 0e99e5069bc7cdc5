"""Records: one JSON file per setting and seed, written whole or not at all, and claims on them."""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.data.stored import damaged, read_json, write_json
from experiments.runs.cores import cpu_name, usable_cores
from experiments.runs.table import Paper, Results, Row, Setting

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
WORK = ROOT / "build" / "experiments"  # checkpoints, locks, compiled programs, smoke results
ANEW = "delete it to run its task again"

# Today's name of a function or class -> its name in the records, once it has been renamed.
RENAMED: dict[str, str] = {
    "gap_on_one_schedule": "gap",
    "grasp_at_temperature_1": "grasp",
    "sr_ste_in_the_gradient": "sr_ste",
}


def describe(value: Any) -> Any:
    """A setting as JSON: functions by their names, dataclasses by class and fields.

    Names are without modules, so that a file may move; after a renaming `RENAMED` has the old one.

    Raises:
        TypeError: something in it has no name, such as a lambda.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"class": _name(type(value)), **_fields(value)}
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return _name(value)


def _name(value: Any) -> str:
    """The stable name of a class or of a function at the top of a module."""
    name = getattr(value, "__qualname__", "<unnamed>")
    if "<" in name:
        raise TypeError(
            f"A setting needs functions at the top of a module, got {value!r}; define it there."
        )
    version = getattr(value, "version", 1)  # of a recipe that has changed its meaning
    return RENAMED.get(name, name) + f".{version}" * (version > 1)


def _fields(setting: Any) -> dict[str, Any]:
    mentioned = (
        f
        for f in dataclasses.fields(setting)
        if not (f.metadata.get("added") and getattr(setting, f.name) == f.default)
    )
    return {f.name: describe(getattr(setting, f.name)) for f in mentioned}


def slug(setting: Setting) -> str:
    """The name of the setting's folder: its label for people, and a hash by which it is found.

    Hashed is what differs from the defaults, so that a new field leaves old records valid.
    """
    own = _fields(setting)
    defaults = {
        f.name: describe(f.default)
        for f in dataclasses.fields(setting)  # type: ignore[arg-type]
        if f.default is not dataclasses.MISSING
    }
    special = {
        name: own[name] for name in own if name not in defaults or own[name] != defaults[name]
    }
    text = json.dumps([_name(type(setting)), special], sort_keys=True)
    label = re.sub(r"[^\w.-]+", "_", setting.label).strip("_")
    return f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclasses.dataclass(frozen=True)
class Store:
    """Where records are: `RESULTS`, or a folder of smoke runs."""

    folder: Path = RESULTS

    def path(self, setting: Setting, seed: int) -> Path:
        """The file of a record."""
        return self._folder(setting) / f"seed{seed}.json"

    def _folder(self, setting: Setting) -> Path:
        """Where the setting's records are, whatever its label was when they were made."""
        name = slug(setting)
        digest = name.rpartition("-")[2]
        return next(self.folder.glob(f"*-{digest}"), self.folder / name)

    def read(self, setting: Setting, seed: int) -> dict[str, Any] | None:
        """The record, or None before it is written.

        Raises:
            ValueError: it is damaged, or its setting is another one: a default has changed since.
        """
        path = self.path(setting, seed)
        if not path.exists():
            return None
        record = read_json(path, {"setting": dict, "seed": int, "result": dict}, ANEW)
        if setting.headline not in record["result"]:
            raise damaged(path, f"its result has no {setting.headline}", ANEW)
        now = describe(setting)
        changed = [name for name, old in record["setting"].items() if now.get(name) != old]
        if changed:
            raise ValueError(f"{path} was made with another {', '.join(changed)}; delete it.")
        return record

    def write(
        self,
        setting: Setting,
        seed: int,
        result: dict[str, Any],
        made_on: dict[str, Any] | None = None,
    ) -> Path:
        """Write a record, whole or not at all.

        Args:
            setting, seed: name the file.
            result: of the setting's `run`.
            made_on: the `machine()` where it ran; this one if None.
        """
        record = {
            "setting": describe(setting),
            "seed": seed,
            "result": result,
            "commit": commit(),
            "machine": made_on or machine(),
        }
        path = self.path(setting, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        return path

    def results(self, paper: Paper) -> Results:
        """All records of the rows of a table."""
        return Results(
            {row.name: self._seeds(row) for row in paper.ROWS},
            {row.name: row.setting.headline for row in paper.ROWS},
        )

    def seeds(self, setting: Setting) -> list[int]:
        """The seeds of which there are records, ascending."""
        files = self._folder(setting).glob("seed*.json")
        names = (file.stem.removeprefix("seed") for file in files)
        return sorted(int(name) for name in names if name.isdecimal())

    def _seeds(self, row: Row) -> list[dict[str, Any]]:
        setting = row.setting
        return [record for seed in self.seeds(setting) if (record := self.read(setting, seed))]


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Whether this process alone may work in the folder; a process that dies loses its claim.

    The lock is the kernel's (flock) on a file beside the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@functools.cache
def commit() -> str:
    """The git commit, with + after it when tracked Python files differ from it.

    Asked once, before the first task: it is that of the code that runs, whatever is pulled later.
    """
    git = lambda *arguments: subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")


def machine() -> dict[str, Any]:
    """The processor, the cores this process may use, and the accelerator if there is one."""
    return {
        "cpu": cpu_name(),
        "cores": len(usable_cores()),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }

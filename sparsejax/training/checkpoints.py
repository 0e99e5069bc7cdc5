"""Checkpoints: plan, params, masks and optimizer state of a step, together and with checksums."""

import json
import math
import operator
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from sparsejax.masks.mask_checks import check_masks, check_plans, check_same_plan, check_state
from sparsejax.plans.plan import PATTERNS, Plan
from sparsejax.training.opt_states import SparsifyState
from sparsejax.training.stored_trees import (
    as_array,
    check_targets,
    checksum,
    describe,
    like,
    named_leaves,
    template,
    with_leaves,
)

VERSION = 1


def checkpoint(
    folder: str | os.PathLike, plan: Plan | None = None, *, every: int = 1, keep: int = 2
) -> "Checkpoints":
    """The checkpoints in a folder, to save to and to restore from; a context manager.

    Written by orbax, a folder for each step, which appears whole or not at all: a process that is
    killed while it saves leaves the steps before.

    Args:
      folder: is made if it is not there.
      plan: of the training; None takes it from the optimizer state, if that shows it.
      every: `save` keeps the steps that are multiples of it.
      keep: how many steps stay, the newest ones.

    Raises:
      ValueError: every or keep is below 1.

    Example:
      >>> import tempfile
      >>> opt_state = sj.sparsify(tx, method, plan, key=key).init(params)
      >>> with sj.checkpoint(tempfile.mkdtemp(), plan, every=1_000) as ckpt:
      ...     start, params, opt_state = ckpt.restore(params, opt_state)
      ...     for step in range(start + 1, 2_001):  # and train
      ...         saved = ckpt.save(step, params, opt_state)
      ...     print(ckpt.steps)
      (1000, 2000)
    """
    if every < 1 or keep < 1:
        raise ValueError(f"checkpoint needs every and keep of at least 1, got {every} and {keep}.")
    return Checkpoints(folder, plan, every, keep)


class Checkpoints:
    """The kept steps of one training; `checkpoint` makes it, `with` or `close` ends it."""

    def __init__(self, folder: str | os.PathLike, plan: Plan | None, every: int, keep: int):
        ocp = _orbax()
        self.folder = os.fspath(folder)
        self.every = every
        self._plan = plan
        self._at: int | None = None  # the step that was restored or saved last, -1 for the start
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        where = self.folder if "://" in self.folder else Path(self.folder).absolute()
        self._manager = ocp.CheckpointManager(where, options=options)

    @property
    def steps(self) -> tuple[int, ...]:
        """The kept steps, ascending."""
        return tuple(sorted(self._manager.all_steps()))

    def save(
        self, step: int, *trees: Any, notes: dict[str, Any] | None = None, force: bool = False
    ) -> bool:
        """Whether the step was saved; it is on the disk when this returns.

        After an older step was restored by its number, the steps after it are deleted.

        Args:
            step: how many steps led to these trees.
            trees: params, optimizer state and what else decides the next step: any pytrees of
                arrays and numbers. Other leaves, such as functions, are not stored.
            notes: what JSON can hold, for `notes(step)`: a position in the data, a history.
            force: also where the step is no multiple of `every`.

        Raises:
            ValueError: the folder holds steps of a training that was not restored, the step lies
                before the last one, or the optimizer state is of another plan.
        """
        step = operator.index(step)
        if (step % self.every and not force) or step == self._at:
            return False
        self._check_turn(step)
        plan = self._plan_of(trees)
        leaves = [named_leaves(tree) for tree in trees]
        arrays = [
            {name: as_array(f"{index}/{name}", leaf) for name, leaf in own.items()}
            for index, own in enumerate(leaves)
        ]
        records = [
            {name: [*describe(leaf), checksum(stored[name])] for name, leaf in own.items()}
            for own, stored in zip(leaves, arrays, strict=True)
        ]
        manifest = {"version": VERSION, "plan": plan and plan.to_json(), "notes": notes or {}}
        self._write(step, arrays, manifest | {"trees": records})
        self._at = step
        return True

    def restore(self, *trees: Any, step: int | None = None) -> tuple[Any, ...]:
        """The step and the trees as they were saved; (0, *trees) where nothing was saved yet.

        Each array comes back with the sharding of the target's, and uncommitted where that is.
        Nothing falls back: a damaged step is an error that names the steps to restore instead.

        Args:
            trees: targets like the trees that were saved, of arrays or jax.ShapeDtypeStructs; fewer
                of them, such as the params alone, are the first ones.
            step: one of `steps`; None for the newest.

        Raises:
            ValueError: a leaf of the plan or of a target differs from the saved one, there is no
                such step, or the step is damaged.
        """
        kept = self.steps
        if step is None and not kept:
            self._at = -1
            return (0, *trees)
        step = kept[-1] if step is None else operator.index(step)
        manifest = self._manifest(step)
        self._check_plan(step, manifest["plan"], self._plan_of(trees))
        leaves = [named_leaves(tree) for tree in trees]
        check_targets(leaves, manifest["trees"], f"step {step} of {self.folder}")
        arrays = self._read(step, leaves, manifest["trees"])
        pairs = zip(trees, leaves, arrays, strict=True)
        restored = [with_leaves(tree, map(like, own.values(), found)) for tree, own, found in pairs]
        for state in _sparsify_states(restored):
            check_masks(state.masks, state.reparam.plan)
        self._at = step
        return (step, *restored)

    def notes(self, step: int) -> dict[str, Any]:
        """The notes that were saved with the step."""
        return self._manifest(operator.index(step))["notes"]

    def plan(self, step: int) -> Plan | None:
        """The plan that was saved with the step, None for a dense training."""
        return self._plan_from(self._manifest(operator.index(step))["plan"])

    def close(self) -> None:
        """Release what orbax holds."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _check_turn(self, step: int) -> None:
        """The step comes next; what lies after the step that was restored makes room."""
        kept = self.steps
        if self._at is None and kept:
            raise ValueError(
                f"save needs the training that {self.folder} holds (step {kept[-1]}) to be "
                "restored first; call restore, or choose another folder."
            )
        last = -1 if self._at is None else self._at
        if step < last:
            raise ValueError(f"save needs a step after {last}, got {step}; steps ascend.")
        for abandoned in [other for other in kept if other > last]:
            self._manager.delete(abandoned)

    def _plan_of(self, trees: Sequence[Any]) -> Plan | None:
        """The training's plan, with which the optimizer states in the trees agree."""
        states = _sparsify_states(trees)
        if not states:
            return self._plan
        leaves = {leaf.path: leaf for state in states for leaf in state.reparam.plan.leaves}
        plan = self._plan or Plan(tuple(leaves.values()))
        hint = "pass the plan that sparsify was given"
        check_plans(states, plan, asker="checkpoint", hint=hint)
        for state in states:
            check_state(state, state.reparam.plan, asker="checkpoint", hint=hint)
        return plan

    def _check_plan(self, step: int, source: str | None, plan: Plan | None) -> None:
        if plan is None:
            return
        saved = self._plan_from(source, extra=plan) or Plan(())
        hint = f"plan as the checkpoint does (ckpt.plan({step})), or choose another folder"
        check_same_plan(saved, plan, asker="restore", whose="the checkpoint", hint=hint)

    def _plan_from(self, source: str | None, extra: Plan | None = None) -> Plan | None:
        own = [leaf.pattern for plan in (self._plan, extra) if plan for leaf in plan.leaves]
        known = dict.fromkeys([*PATTERNS, *map(type, own)])
        return None if source is None else Plan.from_json(source, patterns=tuple(known))

    def _write(self, step: int, arrays: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
        ocp = _orbax()
        text = json.dumps(manifest, sort_keys=True)
        items = {
            f"tree_{index}": ocp.args.StandardSave(full)
            for index, own in enumerate(arrays)
            if (full := {name: array for name, array in own.items() if array.size})
        }
        own = ocp.args.JsonSave({"manifest": json.loads(text), "crc32": zlib.crc32(text.encode())})
        self._manager.save(step, args=ocp.args.Composite(manifest=own, **items), force=True)
        self._manager.wait_until_finished()

    def _manifest(self, step: int) -> dict[str, Any]:
        ocp = _orbax()
        kept = self.steps
        if step not in kept:
            there = ", ".join(map(str, kept)) or "none"
            raise ValueError(f"There is no step {step} in {self.folder}, only {there}; name one.")
        try:
            args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
            found = self._manager.restore(step, args=args)["manifest"]
            manifest, crc = found["manifest"], found["crc32"]
        except Exception as error:
            raise self._damaged(step, f"its manifest cannot be read, {_short(error)}") from error
        if zlib.crc32(json.dumps(manifest, sort_keys=True).encode()) != crc:
            raise self._damaged(step, "its manifest has another checksum than when it was saved")
        if manifest["version"] != VERSION:
            raise ValueError(
                f"restore knows version {VERSION} of a checkpoint, step {step} in {self.folder} "
                f"has version {manifest['version']}; use the sparsejax that wrote it."
            )
        return manifest

    def _read(
        self, step: int, leaves: list[dict[str, Any]], records: list[dict[str, Any]]
    ) -> list[list[Any]]:
        """The arrays of each tree in the order of its leaves, with the checksums of the records."""
        ocp = _orbax()
        templates = [{name: template(leaf) for name, leaf in own.items()} for own in leaves]
        items = {
            f"tree_{index}": ocp.args.StandardRestore(full)
            for index, own in enumerate(templates)
            if (full := {name: array for name, array in own.items() if math.prod(array.shape)})
        }
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items)) if items else {}
            trees = [
                [
                    found[f"tree_{index}"][name] if math.prod(array.shape) else array
                    for name, array in own.items()
                ]
                for index, own in enumerate(templates)
            ]
        except Exception as error:
            raise self._damaged(step, f"its arrays cannot be read, {_short(error)}") from error
        for index, own in enumerate(leaves):
            for name, array in zip(own, trees[index], strict=True):
                if checksum(array) != records[index][name][-1]:
                    reason = f"{index}/{name} has another checksum than when it was saved"
                    raise self._damaged(step, reason)
        return trees

    def _damaged(self, step: int, reason: str) -> ValueError:
        others = [str(other) for other in self.steps if other != step]
        hint = "no other step is kept; start anew in another folder"
        if others:
            hint = (
                f"step {' or '.join(others)} can be restored: pass step={others[-1]} to restore, "
                f"or delete the folder {step}, to go on from there"
            )
        return ValueError(f"Step {step} in {self.folder} is damaged: {reason}; {hint}.")


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp  # 1.3 s that only its users pay
    except ImportError as error:
        raise ImportError(
            f"checkpoint needs orbax-checkpoint, which cannot be imported ({_short(error)}); "
            "pip install 'orbax-checkpoint>=0.11.25'."
        ) from error
    return ocp


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(".")


def _sparsify_states(trees: Any) -> list[SparsifyState]:
    is_state = lambda node: isinstance(node, SparsifyState)
    return [node for node in jax.tree.leaves(trees, is_leaf=is_state) if is_state(node)]

"""The engine that runs tasks on a ray cluster: `python -m experiments run NAME --engine ray`.

The driver keeps the records; workers may be on other machines and need this package only. A task
whose worker dies is started anew by ray, and goes on from its checkpoint where the new worker sees
the same folder, else from the beginning.
"""

from collections.abc import Callable, Sequence
from typing import Any

from experiments.runs.engines import Place, Task, is_settled, run_task

NOT_HERE = "The engine ray needs the package ray: pip install 'sparsejax[ray]'."


def work_on_ray(
    tasks: Sequence[Task],
    place: Place,
    *,
    done: Callable[[Task, dict | None], None],
    cpus_per_task: int = 1,
    address: str | None = None,
) -> int:
    """Run the tasks without a record on a cluster; how many failed.

    Args:
        tasks: in order of urgency.
        place: for records, here, and checkpoints, on the workers.
        done: called as tasks end, with the result, or with None for a failed one.
        cpus_per_task: how many cores of a worker a task takes.
        address: of the cluster; None takes the one this process is connected to, that of
            $RAY_ADDRESS, or a new one on this machine.

    Raises:
        SystemExit: ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise SystemExit(NOT_HERE) from error
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    remote = ray.remote(num_cpus=cpus_per_task, max_retries=5)(_run)
    damaged: set[Task] = set()
    open_tasks = [task for task in tasks if not is_settled(task, place, damaged)]
    running = {remote.remote(task, place): task for task in open_tasks}
    failed = len(damaged)
    while running:
        (reference,), _ = ray.wait(list(running), num_returns=1)
        task = running.pop(reference)
        result = _result_of(ray, reference, task)
        failed += result is None
        if result is not None:
            place.store.write(task.setting, task.seed, result["result"], result["machine"])
        done(task, None if result is None else result["result"])
    return failed


def _run(task: Task, place: Place) -> dict[str, Any]:
    """On a worker: the result, and the machine that made it."""
    from experiments.runs.records import machine

    return {"result": run_task(task, place, lambda *_: None), "machine": machine()}


def _result_of(ray: Any, reference: Any, task: Task) -> dict[str, Any] | None:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        print(f"{task.setting.label} seed {task.seed}: {error}", flush=True)
        return None

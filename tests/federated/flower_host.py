"""Ten clients of a Flower server as processes of their own, of which one is killed in a round.

    python -m tests.federated.flower_host FOLDER UPDATE

prints what came out as JSON. Forks come before anything that has threads: JAX's backend, which the
first array starts (so that the shared federation is imported late), and gRPC.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import flwr.server
import grpc
import jax
import numpy as np
import optax
import orbax.checkpoint  # noqa: F401 - imported once, not by each client
from flwr.client import start_client

import sparsejax as sj
from sparsejax.federated.variables import Variables, split

NUM_CLIENTS, ROUNDS, KILLED = 10, 3, 3
PARTS = [[i, (i + 5) % 12, (2 * i + 1) % 12][: 1 + i % 3] for i in range(NUM_CLIENTS)]


def world():
    """The shared federation, with its arrays."""
    from tests.federated import federations

    return federations


def federation(update):
    small = world()
    plan = sj.plan(small.PARAMS, {"body/kernel": sj.Unstructured()}, sparsity=0.75)
    updates = {"whole": None, "top-k": sj.federated.top_k_update(plan)}
    train = sj.federated.local_sgd(small.loss, optax.sgd(0.05), epochs=1, batch_size=None)
    return sj.federated.fedper(train, small.HEAD, update=updates[update])


def client(number, folder, update):
    whole = world().X, world().Y
    samples = jax.tree.map(lambda array: array[np.array(PARTS[number])], whole)
    return sj.federated.flower_client(
        federation(update),
        world().PARAMS,
        samples,
        name=f"client {number}",
        folder=folder / f"client{number}",
        key=jax.random.key(number),
    )


def live(number, address, folder, update, may_die):
    """The life of a client; the one that dies does so after it saved and before it answers."""
    own = client(number, folder, update)
    fit, answers = own.fit, []

    def observed(parameters, config):
        answers.append(fit(parameters, config))
        if may_die and len(answers) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return answers[-1]

    own.fit = observed
    while not answers:
        try:
            start_client(server_address=address, client=own.to_client(), insecure=True)
        except grpc.RpcError:  # the server is not there yet, or no more
            time.sleep(0.5)


def forked(run):
    """The id of a process that runs this and nothing else."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def twice(run):
    """Runs it in a process, and once more if that was killed."""
    _, status = os.waitpid(forked(lambda: run(True)), 0)
    if os.WIFSIGNALED(status):
        (Path(sys.argv[1]) / "killed").touch()
        os.waitpid(forked(lambda: run(False)), 0)


def simulated(update):
    """The same rounds in one program; the killed client is away in the second."""
    fed = federation(update)
    state, bytes_down = fed.init(world().PARAMS, num_clients=NUM_CLIENTS), []
    clients = sj.federated.stack_clients((world().X, world().Y), PARTS)
    for number in range(ROUNDS):
        active = np.arange(NUM_CLIENTS) != (KILLED if number == 1 else -1)
        state, report = fed.round(state, clients, jax.random.key(number), active)
        # What was sent to the killed client counts as well.
        bytes_down.append(int(report.bytes_down.sum()))
    return fed, state, bytes_down


def at_home(fed, folder):
    """How many rounds a client has, its personal layers, and what it has not sent."""
    base, own = split(Variables(world().PARAMS), fed.personal)
    like = base, (own, fed.train.init(world().PARAMS), fed.update.init(base))
    with sj.checkpoint(folder) as saved:
        rounds, _, (own, _, kept) = saved.restore(*like)
    return rounds, own, kept


def far(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max((float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs), default=0.0)


def main(folder, update):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    lives = [
        lambda may_die, number=number: live(number, address, folder, update, may_die)
        for number in range(NUM_CLIENTS)
    ]
    once = lambda run: run(False)
    pids = [
        forked(lambda run=run, way=twice if number == KILLED else once: way(run))
        for number, run in enumerate(lives)
    ]
    fed = federation(update)
    strategy = sj.federated.flower_strategy(fed, world().PARAMS, min_clients=NUM_CLIENTS, wait=600)
    config = flwr.server.ServerConfig(num_rounds=ROUNDS, round_timeout=600)
    history = flwr.server.start_server(server_address=address, config=config, strategy=strategy)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    _, state, bytes_down = simulated(update)
    homes = [at_home(fed, folder / f"client{number}") for number in range(NUM_CLIENTS)]
    of_client = lambda number: jax.tree.map(lambda leaf: leaf[number], (state.personal, state.kept))
    metrics = {
        name: [value for _, value in values]
        for name, values in history.metrics_distributed_fit.items()
    }
    print(
        json.dumps(
            {
                "base": far(strategy.base, state.base),
                "rounds": [rounds for rounds, *_ in homes],
                "homes": [far(own, of_client(i)) for i, (_, *own) in enumerate(homes)],
                "killed": (folder / "killed").exists(),
                "statuses": statuses,
                "simulated_bytes_down": bytes_down,
                **metrics,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

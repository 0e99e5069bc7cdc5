"""Flower: what two sides say to each other, and ten processes of which one is killed in a round."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

import sparsejax as sj
from sparsejax.federated import flower
from tests.federated.federations import HEAD, PARAMS, X, Y, close, sgd

ROOT = Path(__file__).parents[2]
PARTS = ([0, 1], [2, 3], [4, 5])
PLAN = sj.plan(PARAMS, {"body/kernel": sj.Unstructured()}, sparsity=0.75)
MESSAGES = flower._Flower(
    *(object, object),
    FitIns=lambda parameters, config: SimpleNamespace(parameters=parameters, config=config),
    GetPropertiesIns=lambda config: SimpleNamespace(config=config),
    to_parameters=list,
    to_arrays=list,
)


class Proxy:
    """A client as the server sees it; what is `lost` was answered and never arrives."""

    def __init__(self, client):
        self.client, self.away, self.lost = client, False, False

    def get_properties(self, ins, timeout, group_id):
        if self.away:
            raise ConnectionError
        return SimpleNamespace(properties=self.client.get_properties(ins.config))

    def fit(self, ins):
        arrays, count, metrics = self.client.fit(ins.parameters, ins.config)
        return SimpleNamespace(parameters=arrays, num_examples=count, metrics=metrics)


def a_round(strategy, proxies, number):
    manager = SimpleNamespace(
        wait_for=lambda count, timeout: True, all=lambda: dict(enumerate(proxies))
    )
    answers = [
        (proxy, proxy.fit(ins)) for proxy, ins in strategy.configure_fit(number, [], manager)
    ]
    heard = [(proxy, answer) for proxy, answer in answers if not proxy.lost]
    lost = [ConnectionError()] * (len(answers) - len(heard))
    return strategy.aggregate_fit(number, heard, lost)[1]


@pytest.fixture
def two_sides(tmp_path, monkeypatch):
    """A federated training, the server's side, and what makes a client by its number."""
    monkeypatch.setattr(flower, "_flower", lambda: MESSAGES)
    train = sgd(epochs=1, batch_size=None, tx=optax.sgd(0.05))
    fed = sj.federated.fedper(train, HEAD, update=sj.federated.top_k_update(PLAN))

    def client(number):
        samples = jax.tree.map(lambda array: array[np.array(PARTS[number])], (X, Y))
        options = {"name": str(number), "folder": tmp_path / str(number), "key": jax.random.key(0)}
        return sj.federated.flower_client(fed, PARAMS, samples, **options)

    return fed, sj.federated.flower_strategy(fed, PARAMS, min_clients=3), client


def test_lost_answers_and_absence_end_as_the_simulation_does_byte_for_byte(two_sides):
    fed, strategy, client = two_sides
    proxies = [Proxy(client(number)) for number in range(3)]
    state, clients = fed.init(PARAMS, num_clients=3), sj.federated.stack_clients((X, Y), PARTS)
    for number in range(1, 5):
        proxies[1].lost = number == 2
        proxies[2].away = number in (2, 3)
        metrics = a_round(strategy, proxies, number)
        active = np.array([True, number != 2, number not in (2, 3)])
        state, report = fed.round(state, clients, jax.random.key(number), active)
        close(strategy.base, state.base)
        assert metrics["failures"] == (number == 2)
        assert metrics["bytes_up"] == report.bytes_up.sum()
        # What was sent to the client whose answer was lost was sent all the same.
        assert number == 2 or metrics["bytes_down"] == report.bytes_down.sum()
    # A client that starts again has its rounds, the lost one not among them.
    assert client(1).get_properties({}) == {"name": "1", "rounds": 3}
    assert client(2).get_properties({}) == {"name": "2", "rounds": 2}


def test_two_clients_of_one_name_are_refused(two_sides):
    _, strategy, client = two_sides
    with pytest.raises(ValueError, match="needs a name of its own, two are '0'"):
        a_round(strategy, [Proxy(client(0)), Proxy(client(1)), Proxy(client(0))], 1)


@pytest.mark.skipif(
    find_spec("flwr") is None,
    reason="needs the extra federated: pip install 'sparsejax[federated]'",
)
@pytest.mark.parametrize("update", ["whole", "top-k"])
def test_a_client_killed_in_a_round_loses_nothing(tmp_path, update):
    command = [sys.executable, "-m", "tests.federated.flower_host", str(tmp_path), update]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_200)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["killed"] and found["failures"] == [0, 1, 0]
    # It had answered one round when it was killed, and the last one is its second that counts.
    assert found["rounds"] == [3, 3, 3, 2, 3, 3, 3, 3, 3, 3]
    assert found["base"] < 1e-5 and max(found["homes"]) < 1e-5
    whole = 48 + 16
    up = {"whole": whole, "top-k": 3 * 4 + 2 + 16}[update]
    assert found["bytes_up"] == [10 * up, 9 * up, 10 * up]
    down, simulated = found["bytes_down"], found["simulated_bytes_down"]
    assert down[0] == 10 * whole and (down[0], down[2]) == (simulated[0], simulated[2])

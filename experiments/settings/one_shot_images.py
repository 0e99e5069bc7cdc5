"""One-shot pruning of a trained image classifier: rows of `Compress` without any steps after it.

ResNet-20 on Fashion-MNIST at 14x14, with the dense training of `ma2021_sanity_checks`.
Methods see 256 training images; batch norm stays as it was trained.
"""

import sparsejax as sj
from experiments.data.half_size import fashion_mnist_14
from experiments.models import networks
from experiments.recipes import calibrated, momentum
from experiments.recipes.calibrated import Pruner
from experiments.recipes.magnitude import dense
from experiments.runs.table import Job, Row
from experiments.settings.classify import Classify
from experiments.settings.compress import Compress, Prepare
from experiments.settings.train import Network

PRETRAINING = Classify(
    momentum.sgd_large,
    net=networks.resnet20,
    data=fashion_mnist_14,
    prunable=r"blocks/.*kernel",
    steps=600,
)
NUM_BATCHES = 4


def by_magnitude(network: Network, setting: Classify, job: Job) -> Network:
    """The smallest weights of each layer go."""
    return _pruned(network, setting, job, calibrated.magnitude)


def by_wanda(network: Network, setting: Classify, job: Job) -> Network:
    """Pruned by `sj.post.wanda`."""
    return _pruned(network, setting, job, calibrated.wanda)


def by_sparse_gpt(network: Network, setting: Classify, job: Job) -> Network:
    """Pruned by `sj.post.sparse_gpt`."""
    return _pruned(network, setting, job, calibrated.sparse_gpt)


def one_shot_rows(name: str, prepare: Prepare) -> tuple[Row, ...]:
    """A method's rows "ResNet-20 name 60 %", "80 %" and "2:4", three seeds each."""
    half = sj.NM(2, 4)
    settings = {
        f"{percent} %": Compress(dense, PRETRAINING, percent / 100, steps=0, prepare=prepare)
        for percent in (60, 80)
    }
    settings["2:4"] = Compress(dense, PRETRAINING, 0.5, half, steps=0, prepare=prepare)
    return tuple(Row(f"ResNet-20 {name} {amount}", x, 3) for amount, x in settings.items())


def _pruned(network: Network, setting: Classify, job: Job, method: Pruner) -> Network:
    dataset = setting.data(job.data)
    _, plan = setting.optimizer(network, dataset, setting.steps, job.seed)
    images = [x for x, _ in setting.batches(dataset, job.seed, NUM_BATCHES)]

    def calibrate(gram: bool) -> dict[str, sj.post.LayerInputs]:
        apply = lambda params, x: network.apply((params, network.statistics), x)
        return sj.post.calibrate(apply, network.params, plan, images, gram=gram)

    return network._replace(params=method(network.params, plan, calibrate))

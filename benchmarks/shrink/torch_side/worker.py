"""A process that prunes a network by Torch-Pruning: `python worker.py NETWORK FRACTION...`.

It prints a line of JSON for each stage as soon as that is over: the counts of the whole network,
the CPU seconds of the analysis, and for each fraction the counts of what is left, or its error.
"""

import json
import sys
import time

import torch
import torch_pruning as tp
from networks import NETWORKS, TOKENS, outputs_of
from sequences import Attention
from torch import nn

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.LSTM, nn.GRU)


def built(name):
    """A network with random weights, and its inputs."""
    torch.manual_seed(0)
    model, *shapes = NETWORKS[name]
    draw = lambda shape: torch.randint(1000, shape) if shape == TOKENS else torch.randn(shape)
    return model().eval(), tuple(map(draw, shapes))


def multiply_adds(module, x, y):
    """Products of a layer's weights with its inputs `x`, for its outputs `y`."""
    if isinstance(module, (nn.LSTM, nn.GRU)):
        weights = module.weight_ih_l0.numel() + module.weight_hh_l0.numel()
        return weights * x.shape[0] * x.shape[1]
    if isinstance(module, nn.Linear):
        return y.numel() * module.in_features
    each = x if isinstance(module, nn.ConvTranspose2d) else y
    return each.numel() * module.weight[0].numel()


def counts(model, x):
    """Parameters, and multiply-adds with them in one call, which shows that the network runs."""
    found = []

    def hook(module, inputs, outputs):
        y = outputs[0] if isinstance(outputs, tuple) else outputs
        found.append(multiply_adds(module, inputs[0], y))

    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, WEIGHTED)]
    with torch.no_grad():
        model(*x)
    for own in hooks:
        own.remove()
    parameters = sum(weights.numel() for weights in model.parameters())
    return {"parameters": parameters, "multiply_adds": sum(found)}


def pruner_of(model, x, fraction):
    """Torch-Pruning's, by L1 norm, in multiples of 8; heads stay and become narrower."""
    heads = {}
    for module in model.modules():
        if isinstance(module, Attention):
            heads |= {module.q: module.heads, module.k: module.shared, module.v: module.shared}
    return tp.pruner.BasePruner(
        model,
        x,
        importance=tp.importance.MagnitudeImportance(p=1),
        pruning_ratio=fraction,
        round_to=8,
        ignored_layers=outputs_of(model),
        num_heads=heads,
    )


def analysed(name):
    """CPU seconds that the graph and its groups take."""
    model, x = built(name)
    start = time.process_time()
    list(pruner_of(model, x, 0.5).DG.get_all_groups(ignored_layers=outputs_of(model)))
    return time.process_time() - start


def pruned(name, fraction):
    """The counts of what is left."""
    model, x = built(name)
    pruner_of(model, x, fraction).step()
    return counts(model, x)


def tell(stage, work, *inputs):
    """Print what the work gives, or how it fails: whatever a network makes of it is a result."""
    try:
        found = work(*inputs)
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps({stage: found}), flush=True)


def main():
    name, *fractions = sys.argv[1:]
    torch.set_num_threads(1)
    tell("whole", lambda: counts(*built(name)))
    tell("analysis_seconds", analysed, name)
    for fraction in fractions:
        tell(fraction, pruned, name, float(fraction))


if __name__ == "__main__":
    main()

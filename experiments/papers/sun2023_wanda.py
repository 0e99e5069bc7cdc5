"""Wanda against magnitude, one-shot and without training, on MiniLM and movie sentiment.

Sun, Liu, Bair and Kolter, "A Simple and Effective Pruning Approach for Large Language Models", ICLR
2024, arXiv:2306.11695.

    pip install "sparsejax[text]"
    python -m experiments run sun2023_wanda

The paper prunes LLaMA models and reports perplexity (lower is better); we prune the dense layers of
MiniLM-L6 and report the accuracy of a head that was fitted to the dense encoder, with 1,000 test
sentences. Cost: about 10 minutes on one core. Expected: the same order; half of the weights go
almost unnoticed with Wanda, and magnitude falls first.
"""

from experiments.recipes import calibrated
from experiments.runs.table import Claim, PaperNumber, Row, more
from experiments.settings import one_shot_images
from experiments.settings.text import PERCENTS, OneShotText, one_shot_rows

TITLE = "Wanda: pruning by weights and activations"
README = "official repository's README"

ROWS = (
    Row("dense", OneShotText(), seeds=3),
    *one_shot_rows("magnitude", calibrated.magnitude),
    *one_shot_rows("wanda", calibrated.wanda),
    *one_shot_images.one_shot_rows("magnitude", one_shot_images.by_magnitude),
    *one_shot_images.one_shot_rows("wanda", one_shot_images.by_wanda),
)

PAPER = (
    PaperNumber("LLaMA-2-7B, WikiText, dense", 5.12, "perplexity", README, "dense"),
    PaperNumber("LLaMA-2-7B, WikiText, 50 %", 14.89, "perplexity", README, "magnitude 50 %"),
    PaperNumber("LLaMA-2-7B, WikiText, 50 %", 6.42, "perplexity", README, "wanda 50 %"),
    PaperNumber("LLaMA-2-7B, WikiText, 2:4", 54.59, "perplexity", README, "magnitude 2:4"),
    PaperNumber("LLaMA-2-7B, WikiText, 2:4", 11.02, "perplexity", README, "wanda 2:4"),
    PaperNumber("LLaMA-2-13B, WikiText, dense", 4.57, "perplexity", README),
    PaperNumber("LLaMA-2-13B, WikiText, Wanda, 50 %", 5.56, "perplexity", README),
    PaperNumber("LLaMA-2-13B, WikiText, Wanda, 2:4", 8.27, "perplexity", README),
    PaperNumber("LLaMA-2-70B, WikiText, dense", 3.12, "perplexity", README),
    PaperNumber("LLaMA-2-70B, WikiText, Wanda, 50 %", 3.98, "perplexity", README),
    PaperNumber("LLaMA-2-70B, WikiText, Wanda, 2:4", 5.16, "perplexity", README),
)

AMOUNTS = (*(f"{percent} %" for percent in PERCENTS), "2:4")


def keeps_more(better, worse, amounts=AMOUNTS):
    """That the features stay closer to the dense ones with `better`, at every amount."""
    pairs = [(f"{better} {amount}", f"{worse} {amount}") for amount in amounts]
    return tuple(more(*pair, "cosine_to_dense") for pair in pairs)


CLAIMS = (
    Claim(
        "Wanda is more accurate than magnitude at 60 % and at 2:4",
        more("wanda 60 %", "magnitude 60 %"),
        more("wanda 2:4", "magnitude 2:4"),
    ),
    Claim(
        "Wanda keeps the features closer to the dense ones than magnitude, everywhere",
        *keeps_more("wanda", "magnitude"),
    ),
    Claim("2:4 costs more than any half", more("wanda 50 %", "wanda 2:4")),
    Claim(
        "on convolutions, too, Wanda is more accurate than magnitude at 80 %",
        more("ResNet-20 wanda 80 %", "ResNet-20 magnitude 80 %"),
    ),
)

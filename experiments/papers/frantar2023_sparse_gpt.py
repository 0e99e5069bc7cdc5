"""SparseGPT against Wanda and magnitude, one-shot and without training, on MiniLM and ResNet-20.

Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
ICML 2023, arXiv:2301.00774.

    pip install "sparsejax[text]"
    python -m experiments run frantar2023_sparse_gpt

Data, network and what is reported are those of `sun2023_wanda`, whose records are
shared. The numbers of LLaMA-2 are perplexities (lower is better) that the authors of Wanda publish.
Cost: about 12 minutes on one core beyond those. Expected: reconstruction pays the more, the more is
pruned; at 50 % Wanda is as good.
"""

from experiments.papers.sun2023_wanda import ROWS as WANDA_ROWS
from experiments.papers.sun2023_wanda import keeps_more
from experiments.recipes import calibrated
from experiments.runs.table import Claim, PaperNumber, more
from experiments.settings import one_shot_images
from experiments.settings.text import one_shot_rows

TITLE = "SparseGPT: one-shot pruning with reconstruction"
README = "README of Wanda's official repository"

ROWS = (
    *WANDA_ROWS,
    *one_shot_rows("sparse_gpt", calibrated.sparse_gpt),
    *one_shot_images.one_shot_rows("sparse_gpt", one_shot_images.by_sparse_gpt),
)

PAPER = (
    PaperNumber("LLaMA-2-7B, WikiText, dense", 5.12, "perplexity", README, "dense"),
    PaperNumber("LLaMA-2-7B, WikiText, 50 %", 14.89, "perplexity", README, "magnitude 50 %"),
    PaperNumber("LLaMA-2-7B, WikiText, 50 %", 6.42, "perplexity", README, "wanda 50 %"),
    PaperNumber("LLaMA-2-7B, WikiText, 50 %", 6.51, "perplexity", README, "sparse_gpt 50 %"),
    PaperNumber("LLaMA-2-7B, WikiText, 2:4", 54.59, "perplexity", README, "magnitude 2:4"),
    PaperNumber("LLaMA-2-7B, WikiText, 2:4", 11.02, "perplexity", README, "wanda 2:4"),
    PaperNumber("LLaMA-2-7B, WikiText, 2:4", 10.17, "perplexity", README, "sparse_gpt 2:4"),
    PaperNumber("LLaMA-2-13B, WikiText, SparseGPT, 50 %", 5.63, "perplexity", README),
    PaperNumber("LLaMA-2-13B, WikiText, SparseGPT, 2:4", 8.32, "perplexity", README),
    PaperNumber("LLaMA-2-70B, WikiText, SparseGPT, 50 %", 3.98, "perplexity", README),
    PaperNumber("LLaMA-2-70B, WikiText, SparseGPT, 2:4", 5.40, "perplexity", README),
)

CLAIMS = (
    Claim(
        "SparseGPT is more accurate than magnitude at 60 % and at 2:4",
        more("sparse_gpt 60 %", "magnitude 60 %"),
        more("sparse_gpt 2:4", "magnitude 2:4"),
    ),
    Claim(
        "SparseGPT keeps the features closer to the dense ones than magnitude, everywhere",
        *keeps_more("sparse_gpt", "magnitude"),
    ),
    Claim(
        "and closer than Wanda at 70 %, 80 % and 2:4",
        *keeps_more("sparse_gpt", "wanda", ("70 %", "80 %", "2:4")),
    ),
    Claim(
        "on convolutions, too, SparseGPT is more accurate than Wanda at 80 %",
        more("ResNet-20 sparse_gpt 80 %", "ResNet-20 wanda 80 %"),
    ),
)

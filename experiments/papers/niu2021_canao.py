"""CANAO: depth, then widths, of a BERT-like encoder within milliseconds, distilled from MiniLM.

Niu, Kong, Yuan, Jiang, Guan, Ding, Zhao, Liu, Ren, Wang, "A Compression-Compilation Framework for
On-mobile Real-time BERT Applications", IJCAI 2021 demo, arXiv:2106.00526.

    pip install "sparsejax[text]"
    python -m experiments run niu2021_canao

Encoders are cut out of MiniLM-L6 and distilled from it, with a head, on movie sentiment. The first
phase has 6 trials for the number of layers, the second 10 for features, hidden units and heads; a
trial is 12 steps of 16 sentences, judged on 500 that are held back; what is found has 80 steps.
Milliseconds are of one sentence of 32 tokens through the layers, by times measured once on the
machine that the file of measured times names; half and a quarter of MiniLM's are allowed. Cost: 33
trainings of one to three minutes on one core, the first 2 minutes more for the teacher's features
(an estimate). Expected: what is searched is no less accurate than an encoder shrunk in depth or in
widths alone.

The paper's text was not at hand. Known are the two phases, that accuracy and latency make the
reward, and the numbers of the abstract; the controller is said to be recurrent and trained by
REINFORCE, ours has logits for each choice.
"""

from experiments.runs.table import Claim, Fact, PaperNumber, Results, Row, more, no_less
from experiments.settings import search_encoder
from experiments.settings.search_encoder import SearchEncoder

TITLE = "CANAO: an encoder's depth and widths"
ABSTRACT = "abstract"

SEARCHES = {
    "controller": search_encoder.controller,
    "TPE": search_encoder.tpe,
    "random search": search_encoder.random_search,
}
SHRUNK = {"fewer layers": search_encoder.shallow, "narrower": search_encoder.narrow}
PERCENTS = (50, 25)
ROWS = (
    Row("MiniLM", SearchEncoder(search_encoder.whole, 1.0), seeds=3),
    *(
        Row(f"{name}, {percent} % of the time", SearchEncoder(own, percent / 100), seeds=3)
        for percent in PERCENTS
        for name, own in (SEARCHES | SHRUNK).items()
    ),
)

PAPER = (
    PaperNumber("CANAO-BERT on a phone, at best", 45, "ms", ABSTRACT),
    PaperNumber("over TFLite, at most", 7.8, "times", ABSTRACT),
)


def at(name: str, percent: int) -> str:
    """The name of a row."""
    return f"{name}, {percent} % of the time"


def within(r: Results) -> bool:
    """What was searched takes no more than 2 % above what is allowed."""
    rows = [at(name, percent) for name in SEARCHES for percent in PERCENTS]
    return all(r.mean(row, "milliseconds") <= 1.02 * r.mean(row, "limit") for row in rows)


CLAIMS = (
    *(
        Claim(
            f"at {percent} % the controller's is no less accurate than fewer layers or narrower",
            *(no_less(at("controller", percent), at(name, percent)) for name in SHRUNK),
        )
        for percent in PERCENTS
    ),
    *(
        Claim(
            f"at {percent} % it is more accurate than random search's",
            more(at("controller", percent), at("random search", percent)),
        )
        for percent in PERCENTS
    ),
    Claim(
        "half of the time costs less than 2 points",
        no_less(at("controller", 50), "MiniLM", by=0.02),
    ),
    Claim("searches keep to the milliseconds allowed", Fact(within)),
)

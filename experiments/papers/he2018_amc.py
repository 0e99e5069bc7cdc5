"""AMC: how many channels each layer keeps at half of the multiply-adds, found by DDPG.

He, Lin, Liu, Wang, Li, Han, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices",
ECCV 2018, arXiv:1802.03494; the first part of Han et al., "Design Automation for Efficient Deep
Learning Computing", 2019, arXiv:1904.10616.

    python -m experiments run he2018_amc

MobileNet-v1 x 0.25 on Fashion-MNIST, trained for 1,000 steps; 60 trials, each of which cuts the
network to half of its multiply-adds, reconstructs its layers by least squares and tests 2,000
validation images; then 300 steps for the best. Random search and Optuna's TPE have as many trials.
Cost: 3 trainings of 30 s that the rows share, and 12 of a minute on one core (an estimate).
Expected: a search beats the same fraction everywhere, most before tuning; 60 trials of an agent are
a thirteenth of the paper's.

The numbers are those of the authors' repository. Its two lists of channels have 293.9 and 274.0
million multiply-adds by our count, stem and classifier included (a test holds them).
"""

from experiments.data.held_out import fashion_mnist_58k
from experiments.runs.table import Claim, PaperNumber, Row, more, no_less
from experiments.settings.classify import Classify
from experiments.settings.search_channels import SearchChannels
from experiments.settings.searching import ddpg, random_search, tpe

TITLE = "AMC: channels by a learned agent"
TRAINED = Classify(data=fashion_mnist_58k, steps=1_000)

ROWS = (
    Row("uniform", SearchChannels(None, TRAINED), seeds=3),
    Row("ddpg", SearchChannels(ddpg, TRAINED), seeds=3),
    Row("tpe", SearchChannels(tpe, TRAINED), seeds=3),
    Row("random", SearchChannels(random_search, TRAINED), seeds=3),
)

README = "README of the authors' repository"
V1, V2 = "MobileNet-v1, ImageNet", "MobileNet-v2, ImageNet"

PAPER = (
    PaperNumber(f"{V1}, whole", 70.6, "% top-1", README),
    PaperNumber(f"{V1}, x 0.75", 68.4, "% top-1", README, "uniform"),
    PaperNumber(f"{V1}, 50 % of FLOPs", 70.494, "% top-1", README, "ddpg"),
    PaperNumber(f"{V1}, 50 % of time", 70.2, "% top-1", README),
    PaperNumber(f"{V2}, x 0.75", 69.8, "% top-1", README),
    PaperNumber(f"{V2}, 70 % of FLOPs", 70.854, "% top-1", README),
)

CLAIMS = (
    Claim("DDPG > the same fraction everywhere", more("ddpg", "uniform")),
    Claim("before tuning, too", more("ddpg", "uniform", "accuracy_untuned")),
    Claim("DDPG > random search at equal cost", more("ddpg", "random")),
    Claim("DDPG is no worse than Optuna's TPE", no_less("ddpg", "tpe")),
)

"""What a network's execution tells about its architecture, and networks that tell less."""

from sparsejax.audit.attack import Attack as Attack
from sparsejax.audit.attack import Observations as Observations
from sparsejax.audit.attack import family_attack as family_attack
from sparsejax.audit.attack import transferred as transferred
from sparsejax.audit.features import execution_features as execution_features
from sparsejax.audit.hardening import Candidate as Candidate
from sparsejax.audit.hardening import Hardened as Hardened
from sparsejax.audit.hardening import harden_blocks as harden_blocks

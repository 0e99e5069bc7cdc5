"""Soft masks: methods with dense weights underneath, and what such methods are made of."""

from sparsejax.algorithms.soft.movement import movement as movement
from sparsejax.algorithms.soft.movement import soft_movement as soft_movement
from sparsejax.algorithms.soft.pdp import pdp as pdp
from sparsejax.algorithms.soft.spartan import spartan as spartan
from sparsejax.algorithms.soft.sr_ste import sr_ste as sr_ste
from sparsejax.algorithms.soft.str_ import str_ as str_
from sparsejax.algorithms.soft.top_kast import top_kast as top_kast
from sparsejax.reparams.reparam import Reparam as Reparam
from sparsejax.reparams.reparam import chain_reparams as chain_reparams
from sparsejax.reparams.reparam import straight_through as straight_through

"""Searches: of widths, bits, patterns and architectures under a budget, resumed after a kill."""

from sparsejax.search.agent import DDPGSettings as DDPGSettings
from sparsejax.search.agent import ddpg as ddpg
from sparsejax.search.channels import ChannelSearch as ChannelSearch
from sparsejax.search.channels import WidthCosts as WidthCosts
from sparsejax.search.channels import channel_search as channel_search
from sparsejax.search.channels import width_costs as width_costs
from sparsejax.search.fronts import front as front
from sparsejax.search.fronts import trade_off as trade_off
from sparsejax.search.layers import WeightLayer as WeightLayer
from sparsejax.search.layers import weight_layers as weight_layers
from sparsejax.search.loop import best as best
from sparsejax.search.loop import optimize as optimize
from sparsejax.search.reconstruct import reconstructed as reconstructed
from sparsejax.search.samplers import Sampler as Sampler
from sparsejax.search.samplers import Trial as Trial
from sparsejax.search.samplers import random_search as random_search
from sparsejax.search.samplers import tpe as tpe
from sparsejax.search.space import Interval as Interval

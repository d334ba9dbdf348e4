"""A kernel on every training row: the mixture, its codes, its bandwidths, and the model made of them."""

from diabolo.kernels.assembly import Places, Smoothing, padded_size
from diabolo.kernels.chart import Chart
from diabolo.kernels.columns import Division
from diabolo.kernels.learner import Learner
from diabolo.kernels.mixture import Kernels, low_rank_log_prob
from diabolo.kernels.model import KernelModel
from diabolo.kernels.neighbours import nearest

__all__ = [
    "Chart",
    "Division",
    "KernelModel",
    "Kernels",
    "Learner",
    "Places",
    "Smoothing",
    "low_rank_log_prob",
    "nearest",
    "padded_size",
]

"""Restricted Boltzmann machines: visible units of the columns, energies, chains, log Z, and the model made of them."""

from diabolo.boltzmann.annealing import Annealed, anneal, annealed_log_z
from diabolo.boltzmann.bernoulli import bernoulli
from diabolo.boltzmann.enumeration import (
    MAX_STATES_BITS,
    exact_log_z,
    log_each_state,
    log_observed,
    log_state_weights,
    states,
)
from diabolo.boltzmann.machine import Machine
from diabolo.boltzmann.model import LOOKED_AT_BITS, N_KEPT, RBMModel
from diabolo.boltzmann.units import Units

__all__ = [
    "LOOKED_AT_BITS",
    "MAX_STATES_BITS",
    "N_KEPT",
    "Annealed",
    "Machine",
    "RBMModel",
    "Units",
    "anneal",
    "annealed_log_z",
    "bernoulli",
    "exact_log_z",
    "log_each_state",
    "log_observed",
    "log_state_weights",
    "states",
]

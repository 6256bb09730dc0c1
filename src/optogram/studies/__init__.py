"""The seeds' experiments end to end, each writing a report, and the tour of all techniques."""

from optogram.studies.mlp_neurons import mlp_neurons as mlp_neurons
from optogram.studies.tour import tour as tour

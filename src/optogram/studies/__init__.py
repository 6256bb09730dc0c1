"""The seeds' experiments end to end, each writing a report, and the tour of all techniques."""

from optogram.studies.deconvnet import deconvnet_study as deconvnet_study
from optogram.studies.higher_layers import higher_layers as higher_layers
from optogram.studies.mlp_neurons import mlp_neurons as mlp_neurons
from optogram.studies.tour import tour as tour

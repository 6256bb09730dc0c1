"""The MNIST study: every figure and every finding of the hidden-neurons document, made again."""

from .study import mlp_neurons as mlp_neurons

"""What higher layers of a belief network and of an autoencoder stand for (Erhan et al., 2009)."""

from .study import higher_layers as higher_layers

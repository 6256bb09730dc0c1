"""The deconvnet study: what Zeiler and Fergus did with AlexNet, on networks of any size."""

from .study import deconvnet_study as deconvnet_study

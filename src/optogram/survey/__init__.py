"""What a data set excites: sets of images, shown to a network once for all its layers.

The room itself can be called: `og.survey(network, images)` is `og.survey.make(network, images)`.
"""

import sys
from types import ModuleType
from typing import Any, cast

from .agreement import Agreement as Agreement
from .agreement import agreement as agreement
from .archives import from_store as from_store
from .archives import from_tar as from_tar
from .clusters import Clusters as Clusters
from .datasets import ImageSet as ImageSet
from .datasets import fit as fit
from .priors import Priors as Priors
from .priors import priors as priors
from .result import Excited as Excited
from .result import Survey as Survey
from .run import as_images as as_images
from .run import opened as opened
from .run import survey as make
from .sources import from_arrays as from_arrays
from .sources import from_folder as from_folder
from .sources import from_npz as from_npz
from .sources import from_torch as from_torch


class Room(ModuleType):
    """This module, which is also the function that its name says."""

    __call__ = staticmethod(make)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


# `from optogram.survey import survey` and `og.survey` are this same callable room.
sys.modules[__name__].__class__ = Room
survey = cast(Room, sys.modules[__name__])

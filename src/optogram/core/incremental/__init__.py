"""Asking a network about many nearly equal images, and computing only what differs."""

from optogram.core.incremental.answers import Way as Way
from optogram.core.incremental.answers import answers as answers
from optogram.core.incremental.contents import instead as instead
from optogram.core.incremental.occluders import Occluders as Occluders
from optogram.core.incremental.occluders import grid as grid
from optogram.core.incremental.occluders import hull as hull

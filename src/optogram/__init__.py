"""See what the neurons of a trained network respond to, and which pixels drove its answer.

`__init__.pyi` beside this file is the table of contents. Names are fetched when they are first
used, so that `optogram --help` need not wait for torch.
"""

import lazy_loader

from optogram.version import __version__ as __version__

__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)

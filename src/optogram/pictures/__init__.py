"""What every technique hands back: pictures, maps and sheets that show and save themselves.

`__init__.pyi` beside this file is the table of contents. Names are fetched when first used, so that
a door which needs no more than RequestError loads no torch.
"""

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)

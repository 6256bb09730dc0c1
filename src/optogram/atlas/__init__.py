"""Every unit of a network in a folder: built once, looked at for ever.

`__init__.pyi` beside this file is the table of contents. Names are fetched when first used, so that
reading an atlas loads no torch.
"""

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)

"""The explorer: every unit of an atlas in a browser, on this machine or out of a folder."""

from .export import export as export
from .serving import serve as serve

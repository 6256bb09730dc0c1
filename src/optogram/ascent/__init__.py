"""Moving an image uphill: what may be painted, what it must survive, and the loop."""

from optogram.ascent import param as param
from optogram.ascent import transform as transform
from optogram.ascent.loop import Step as Step
from optogram.ascent.loop import ascend as ascend
from optogram.ascent.param import Parameterization as Parameterization
from optogram.ascent.presets import Preset as Preset
from optogram.ascent.presets import preset as preset
from optogram.ascent.verdict import judge as judge

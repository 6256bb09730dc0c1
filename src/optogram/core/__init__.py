"""How one speaks of a network: units, activations, objectives, rules and gradients."""

from optogram.core import objective as objective
from optogram.core import rules as rules
from optogram.core.activations import Activations as Activations
from optogram.core.chance import Streams as Streams
from optogram.core.expression import parse as parse
from optogram.core.field import ReceptiveField as ReceptiveField
from optogram.core.gradient import backpropagate as backpropagate
from optogram.core.gradient import value_and_gradient as value_and_gradient
from optogram.core.matrix import convolution_matrix as convolution_matrix
from optogram.core.network import Layer as Layer
from optogram.core.network import Network as Network
from optogram.core.objective import Objective as Objective
from optogram.core.rules import Rule as Rule
from optogram.core.technique import Technique as Technique
from optogram.core.technique import technique as technique
from optogram.core.technique import techniques as techniques
from optogram.core.unit import Direction as Direction
from optogram.core.unit import Unit as Unit
from optogram.core.unit import unit as unit

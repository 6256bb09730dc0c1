"""Networks and data to practise on, what the seeds train, and how a result is made again."""

from optogram.zoo.data import data as data
from optogram.zoo.networks import load as load
from optogram.zoo.networks import networks as networks
from optogram.zoo.networks import read_weights as read_weights
from optogram.zoo.replay import Replay as Replay
from optogram.zoo.replay import image_for as image_for
from optogram.zoo.replay import photograph_for as photograph_for
from optogram.zoo.replay import replay as replay

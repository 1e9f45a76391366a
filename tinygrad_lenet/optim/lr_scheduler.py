"""The schedules of the learning rate, where PyTorch has them."""

from .one_cycle import *
from .schedule import *
from .schedules import *

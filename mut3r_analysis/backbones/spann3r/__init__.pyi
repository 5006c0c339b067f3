from .bank import Bank as Bank
from .config import Spann3RConfig as Spann3RConfig
from .model import Spann3R as Spann3R

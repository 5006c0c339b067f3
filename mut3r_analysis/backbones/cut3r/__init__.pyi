from .config import CUT3RConfig as CUT3RConfig
from .model import CUT3R as CUT3R

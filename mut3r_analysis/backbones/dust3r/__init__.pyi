from .config import DUSt3RConfig as DUSt3RConfig
from .model import DUSt3R as DUSt3R

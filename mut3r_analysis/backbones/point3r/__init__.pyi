from .config import Point3RConfig as Point3RConfig
from .model import Point3R as Point3R
from .pointers import Pointers as Pointers

from .config import VGGTConfig as VGGTConfig
from .model import VGGT as VGGT

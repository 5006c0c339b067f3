from .checkpoint import (
    convert_checkpoint as convert_checkpoint,
)
from .checkpoint import (
    read_checkpoint as read_checkpoint,
)
from .checkpoint import (
    write_checkpoint as write_checkpoint,
)
from .config import CUT3RConfig as CUT3RConfig
from .cut3r import CUT3R as CUT3R
from .cut3r import Frame as Frame
from .cut3r import State as State
from .cut3r import Step as Step
from .loading import load_backbone as load_backbone
from .point3r.config import Point3RConfig as Point3RConfig
from .point3r.model import Point3R as Point3R
from .preparation import Preparation as Preparation

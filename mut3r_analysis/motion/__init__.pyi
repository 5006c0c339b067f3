from .cue import Cue as Cue
from .gate import Gate as Gate
from .gated_seam import GatedSeam as GatedSeam
from .gated_seam import GatePlan as GatePlan
from .gated_seam import bind as bind
from .meter import CueMeasured as CueMeasured
from .meter import MotionMeter as MotionMeter
from .probe import CueProbe as CueProbe
from .rates import (
    StaticMassProbe as StaticMassProbe,
)
from .rates import (
    frame_rate as frame_rate,
)
from .rates import (
    static_mass_rate as static_mass_rate,
)
from .readings import READINGS as READINGS
from .realisations import DIRECTIONS as DIRECTIONS
from .realisations import REALISATIONS as REALISATIONS
from .score import (
    CueHistory as CueHistory,
)
from .score import (
    Motion as Motion,
)
from .score import (
    live_score as live_score,
)
from .score import (
    mask_cells as mask_cells,
)
from .score import (
    motion_score as motion_score,
)
from .sources import SOURCES as SOURCES
from .sources import Source as Source

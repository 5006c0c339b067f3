from .gathering import gather as gather
from .pricing import SweepPlan as SweepPlan
from .pricing import plan as plan
from .results import open_sweep as open_sweep
from .sweeping import sweep as sweep

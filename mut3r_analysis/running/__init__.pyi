from .commit import Commit as Commit
from .configuration import Configuration as Configuration
from .forking import fork as fork
from .opening import open_run as open_run
from .planning import Plan as Plan
from .planning import plan as plan
from .streaming import run as run
from .streaming import run_batch as run_batch

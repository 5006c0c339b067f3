from . import (
    attention as attention,
)
from . import (
    backbones as backbones,
)
from . import (
    errors as errors,
)
from . import (
    evaluation as evaluation,
)
from . import (
    explaining as explaining,
)
from . import (
    exporting as exporting,
)
from . import (
    figures as figures,
)
from . import (
    foreign as foreign,
)
from . import (
    metrics as metrics,
)
from . import (
    motion as motion,
)
from . import (
    running as running,
)
from . import (
    scenes as scenes,
)
from . import (
    sequences as sequences,
)
from . import (
    studies as studies,
)
from . import (
    sweeps as sweeps,
)
from . import (
    widgets as widgets,
)
from .attention import Capture as Capture
from .backbones import load_backbone as load_backbone
from .evaluation import (
    check_dataset as check_dataset,
)
from .evaluation import (
    evaluate as evaluate,
)
from .evaluation import (
    import_predictions as import_predictions,
)
from .evaluation import (
    paired as paired,
)
from .evaluation import (
    table as table,
)
from .explaining import explain as explain
from .exporting import export_run as export_run
from .foreign import Tokens as Tokens
from .foreign import attach as attach
from .foundation.version import __version__ as __version__
from .literature import (
    compare as compare,
)
from .literature import (
    conflicts as conflicts,
)
from .literature import (
    headlines as headlines,
)
from .literature import (
    published as published,
)
from .motion import Cue as Cue
from .motion import Gate as Gate
from .motion import PairCue as PairCue
from .motion import PairGate as PairGate
from .motion import Patch as Patch
from .motion import WindowCue as WindowCue
from .motion import WindowGate as WindowGate
from .running import (
    Commit as Commit,
)
from .running import (
    Configuration as Configuration,
)
from .running import (
    fork as fork,
)
from .running import (
    open_pairs as open_pairs,
)
from .running import (
    open_run as open_run,
)
from .running import (
    reconstruct as reconstruct,
)
from .running import (
    run as run,
)
from .running import (
    run_batch as run_batch,
)
from .running import (
    run_pairs as run_pairs,
)
from .sequences import (
    export_sequence as export_sequence,
)
from .sequences import (
    open_sequence as open_sequence,
)
from .studies.paper_tables.table import paper_table as paper_table
from .sweeps import open_sweep as open_sweep
from .sweeps import plan as plan
from .sweeps import sweep as sweep

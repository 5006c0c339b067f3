from .attention_explorer import AttentionExplorer as AttentionExplorer
from .attention_rows import AttentionRows as AttentionRows
from .cloud_files import write_glb as write_glb
from .cloud_files import write_ply as write_ply
from .failure_explorer import FailureExplorer as FailureExplorer
from .gate_playground import GatePlayground as GatePlayground
from .scene_view import SceneView as SceneView

from .arrays import SceneArrays as SceneArrays
from .batches import (
    MOTION_THRESHOLD as MOTION_THRESHOLD,
)
from .batches import (
    random_batch as random_batch,
)
from .batches import (
    render_arrays as render_arrays,
)
from .bundled import load_scene as load_scene
from .bundled import open_scene as open_scene
from .bundled import scene_names as scene_names
from .distribution import (
    HELD_OUT_SEEDS as HELD_OUT_SEEDS,
)
from .distribution import (
    TRAINING_SEEDS as TRAINING_SEEDS,
)
from .distribution import (
    SceneDistribution as SceneDistribution,
)
from .distribution import (
    draw as draw,
)
from .figures import contact_sheet as contact_sheet
from .parts import (
    Camera as Camera,
)
from .parts import (
    Light as Light,
)
from .parts import (
    Path as Path,
)
from .parts import (
    Room as Room,
)
from .parts import (
    SceneObject as SceneObject,
)
from .parts import (
    Texture as Texture,
)
from .specification import Scene as Scene

from .catalogue import LAYOUTS as LAYOUTS
from .catalogue import find_layout as find_layout
from .export import export_sequence as export_sequence

from .catalogue import LAYOUTS as LAYOUTS
from .check import check_dataset as check_dataset
from .export import export_sequence as export_sequence

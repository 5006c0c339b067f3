from .layouts import export_sequence as export_sequence
from .model import check_sequence as check_sequence
from .opening import open_sequence as open_sequence

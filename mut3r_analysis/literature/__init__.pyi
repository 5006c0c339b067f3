from .comparison import compare as compare
from .conflicts import conflicts as conflicts
from .conflicts import headlines as headlines
from .table import published as published

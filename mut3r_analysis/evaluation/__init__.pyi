from .check import check_dataset as check_dataset
from .pairing import paired as paired
from .predictions import import_predictions as import_predictions
from .scores import evaluate as evaluate
from .tables import table as table

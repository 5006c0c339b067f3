"""The error of a metric that has no value on the data it was given."""

from mut3r_analysis.errors import InvalidArgument


class UndefinedMetric(InvalidArgument):
    """Data on which a metric or an alignment is not defined, such as a camera that stands still.

    Whoever scores many sequences reports such a sequence as skipped, by name, and averages the
    rest.
    """

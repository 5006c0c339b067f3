"""How far two runs of the same frames are from each other."""

import numpy as np
import xarray as xr

_LEAST = 1e-6


def differences(one: xr.DataTree, other: xr.DataTree) -> dict[str, float]:
    """Return how far each variable of a run is from the same one of another; timing is left out.

    Parameters
    ----------
    one, other : xarray.DataTree
        Every variable of `other` is compared.

    Returns
    -------
    dict of str to float
        ``"<group>/<variable>"`` to the largest difference over the largest number of `other`, or
        over 1e-6 where that is smaller. 0 is equal to the last bit; infinite is NaN in one alone,
        or other words.
    """
    nodes = dict(one.subtree_with_keys)
    return {
        f"{path}/{name}": _difference(nodes[path].dataset[name].values, values.values)
        for path, node in other.subtree_with_keys
        if path != "timing"
        for name, values in node.data_vars.items()
    }


def _difference(there: np.ndarray, here: np.ndarray) -> float:
    if there.shape != here.shape:
        return np.inf
    if here.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(there, here) else np.inf
    there, here = there.astype(np.float64), here.astype(np.float64)
    if not np.array_equal(np.isnan(there), np.isnan(here)):
        return np.inf
    unequal = (there != here) & ~np.isnan(here)
    apart = np.abs(there[unequal] - here[unequal]).max(initial=0.0)
    return float(apart / np.abs(here[np.isfinite(here)]).max(initial=_LEAST))

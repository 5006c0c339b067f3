"""Carry what is known of keys over to the queries that read them."""

from torch import Tensor


def on_queries(values: Tensor, weights: Tensor) -> Tensor:
    """Return, of each query, the mean of what it reads: patch scores on state tokens, say.

    Parameters
    ----------
    values : Tensor
        ``(batch, key)``.
    weights : Tensor
        ``(batch, query, key)`` attention, of which these keys may be a part.

    Returns
    -------
    Tensor
        ``(batch, query)``.
    """
    share = weights / weights.sum(dim=-1, keepdim=True)
    return (share @ values[..., None].to(share.dtype)).squeeze(-1)

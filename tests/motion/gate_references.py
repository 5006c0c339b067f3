"""Every gate in float64 with whole maps, written from the formulas and from nothing else."""

import numpy as np

CLAMP = np.float64(np.float32(1 - 1e-4))


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def logits(q, k):
    q, k = (np.asarray(part, dtype=np.float64) for part in (q, k))
    return q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])


def gated(site, name, q, k, v, g, beta, *, tau=0.5, r=None, null_logit=None):
    """Output (batch, head, query, channel) for token scores g (batch, token); r per state token."""
    z, v, g = logits(q, k), np.asarray(v, dtype=np.float64), np.asarray(g, dtype=np.float64)
    p = softmax(z)
    soft = np.minimum(g, CLAMP)
    key, query = soft[:, None, None, :], soft[:, None, :, None]
    hard_key, hard_query = g[:, None, None, :] > tau, g[:, None, :, None] > tau
    if site != "image_to_state":
        match name:
            case "pair_bias":
                return softmax(z + beta * np.log1p(-(1 - query) * key)) @ v
            case "key_bias" | "key_bias_write":
                return softmax(z + beta * np.log1p(-key)) @ v
            case "key_mask":
                return (p * (1 - key) ** beta) @ v
            case "hard":
                return softmax(np.where(hard_key, -np.inf, z)) @ v
            case "static_to_dynamic" if site == "image_self":
                return np.where(~hard_query & hard_key, 0, p) @ v
            case "static_to_dynamic":
                return np.where(hard_key, 0, p) @ v
    share = (1 - query) ** beta
    match name:
        case "literal":
            return softmax(z + beta * np.log1p(-query)) @ v
        case "output_scale":
            return share * (p @ v)
        case "postmask":
            return (share * p) @ v
        case "null_key":
            lse = np.log(np.exp(z).sum(axis=-1, keepdims=True))
            with np.errstate(divide="ignore"):
                extra = lse + np.log(1 / share - 1) if null_logit is None else null_logit
            bias = 0 if null_logit is None else beta * np.log1p(-query)
            extra = np.broadcast_to(extra, lse.shape)
            if null_logit is not None:
                extra = extra.copy()
                extra[:, :, 0] = -np.inf
            wide = softmax(np.concatenate([z + bias, extra], axis=-1))
            return wide @ np.concatenate([v, np.zeros_like(v[..., :1, :])], axis=-2)
        case "null_value":
            return share * (p @ v) + (1 - share) * v.mean(axis=-2, keepdims=True)
        case "temperature":
            return softmax(z * share) @ v
        case "pair_state":
            keys = np.minimum(np.asarray(r, dtype=np.float64), CLAMP)[:, None, None, :]
            return softmax(z + beta * np.log1p(-g[:, None, :, None] * keys)) @ v
        case "hard_skip":
            return np.where(hard_query, 0, p @ v)
    raise AssertionError(name)

"""Whether what was scored is all that a protocol's number is made of."""

from collections.abc import Collection, Mapping

from mut3r_analysis.metrics.protocols import Protocol

_NAMED = 6


def shortfall(
    protocol: Protocol, frames: Mapping[str, int], undefined: Collection[str] = ()
) -> str:
    """Say what a protocol's number lacks, ``"84 of 643 frames: not this protocol"``.

    Parameters
    ----------
    protocol : Protocol
    frames : mapping
        Sequence to the number of its frames that were scored.
    undefined : collection of str
        Sequences on which the metric has no value, as that of a camera at rest: the released code
        leaves them out too, so they are not missing.

    Returns
    -------
    str
        Empty where nothing is missing, and under protocols that take what is given.
    """
    scored = {name: count for name, count in frames.items() if count}
    wanted = {name: protocol.length_of(name) for name in (*scored, *undefined)}
    short = {name: count for name, count in scored.items() if count < (wanted[name] or 0)}
    total = sum(scored.values()) + sum(wanted[name] or 0 for name in undefined)
    lacks = []
    if protocol.expected_frames and total < protocol.expected_frames:
        lacks.append(f"{total} of {protocol.expected_frames} frames")
    if protocol.expected_sequences and len(wanted) < protocol.expected_sequences:
        lacks.append(f"{len(wanted)} of {protocol.expected_sequences} sequences")
    if not lacks:
        return ""
    named = [f"{name} has {count} of {wanted[name]}" for name, count in short.items()]
    more = [f"and {len(named) - _NAMED} more are short"] if len(named) > _NAMED else []
    words = f" ({', '.join(named[:_NAMED] + more)})" if named else ""
    return f"{', '.join(lacks)}{words}: not this protocol"

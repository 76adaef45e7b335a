"""Which scores of a pool a fit takes: those of the verifier that is named, or of the only one."""

from __future__ import annotations

from outthink.errors import UnknownName, UsageError
from outthink.records.pools import PoolData, scored


def scores_of(pool: PoolData, verifier: str | None) -> tuple[PoolData, str]:
    """Only the samples that a verifier has scored, and its name; raises UsageError where it is not clear which."""
    if not pool.scorers:
        raise UsageError(f"{pool.path} has no scores of a verifier.")
    if verifier is None and len(pool.scorers) > 1:
        raise UsageError(f"{pool.path} has scores of several verifiers: name one of {', '.join(pool.scorers)}.")
    verifier = verifier or pool.scorers[0]
    if verifier not in pool.scorers:
        raise UnknownName(f"verifier in {pool.path}", verifier, pool.scorers)
    return scored(pool, verifier), verifier

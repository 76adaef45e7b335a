"""How a server runs, as its operator says it."""

from __future__ import annotations

from dataclasses import dataclass, field

from outthink.server.body import Sizes
from outthink.server.routing import ONE


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the server runs.

    Args:
        max_tokens: of a sample where the request does not say, as far as the model's context allows; None: 4,096, or
            fewer where a budget has room for several samples then.
        timeout: seconds for a request that asks for no other deadline.
        concurrency, queue: requests at once, and requests that wait.
        sheds: requests spend less while most places are taken.
        price_follows_load: compute gets dearer while most places are taken, so that `auto` stops earlier.
        connections: of callers at once, those included that ask for nothing.
        sizes: of a request's body.
        keep_alive: seconds between comments on a stream that has nothing to say.
        grace: seconds that requests get to end when the server is stopped.
        metrics_key: the name of the one key that reads /metrics, and nothing else, where there are keys.
        shadow: share of requests that are also answered by `alternative`.
        learn: share of the requests that are answered by an action drawn at random.
        workers: processes that share these limits, of which this is one.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_tokens: int | None = None
    timeout: float = 300.0
    concurrency: int = 256
    queue: int = 1024
    sheds: bool = False
    price_follows_load: bool = False
    connections: int = 4096
    sizes: Sizes = field(default_factory=Sizes)
    keep_alive: float = 5.0
    grace: float = 30.0
    metrics_key: str = "metrics"
    shadow: float = 0.0
    alternative: str = ONE
    learn: float = 0.0
    workers: int = 1

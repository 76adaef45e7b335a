"""Fetches a published data set once, by the `datasets` package, into a JSONL file of the cache."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

from outthink import jsonl


def cached(repository: str, configuration: str | None, split: str) -> Path | None:
    """The file with the rows as published; None where it is not here and cannot be fetched.

    Tried only where the extra `datasets` is installed and HF_HUB_OFFLINE is not set.
    """
    from platformdirs import user_cache_path  # here, because most tasks need no cache

    folder = Path(os.environ.get("OUTTHINK_CACHE") or user_cache_path("outthink")) / "tasks"
    file = folder / f"{repository.replace('/', '--')}-{split}.jsonl"
    if file.exists():
        return file
    try:
        library = importlib.import_module("datasets")
        rows = library.load_dataset(repository, configuration, split=split)
    except Exception:  # not installed, offline, no such split: the client raises errors of several libraries
        return None
    folder.mkdir(parents=True, exist_ok=True)
    jsonl.write_whole(file, "".join(json.dumps(dict(row), ensure_ascii=False, default=str) + "\n" for row in rows))
    return file

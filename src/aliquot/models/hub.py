"""Ask the Hugging Face hub, before any expensive work, whether the model exists and whether we have access to it.

What is complete in the local cache is never requested. Access tokens are handled by huggingface_hub: none is read into
a config, a key, a log or a message.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from aliquot.models.files import check_directory, check_weights


def check_id(path: str, revision: str | None) -> None:
    """Raise ValueError unless path and revision name one commit of a hub repository."""
    if path.startswith((".", "/", "~", "pkg://")) or path.count("/") != 1:
        raise ValueError(f"model.path={path} is not a directory; give one, or a hub id such as org/name")
    if not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise ValueError(
            f"model.revision={revision} is not a commit, so what model.path={path} means may change; set "
            f"model.revision to one of https://huggingface.co/{path}/commits/main"
        )


@functools.cache
def check_repository(path: str, revision: str) -> None:
    """Raise ValueError unless the commit is complete in the local cache, or the hub would give us access to it now.

    Every stage and every run of a sweep calls this; each process asks the hub until it confirms, and then not again.
    """
    unfinished = _cache_gap(path, revision)
    if not unfinished:
        return
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # httpx, whichever it uses
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page, asked = f"https://huggingface.co/{path}", f"model.path={path}"
    try:
        HfApi().auth_check(path)
        files = HfApi().model_info(path, revision=revision, timeout=10).siblings or []
    except GatedRepoError as error:
        if get_token() is None:
            remedy = f"ask for access at {page}, then run `hf auth login`"
        else:
            remedy = f"the account that is logged in has none (`hf auth whoami`); ask for access at {page}"
        raise ValueError(f"{asked}: access to this repository is restricted; {remedy}") from error
    except RevisionNotFoundError as error:
        raise ValueError(
            f"{asked} has no revision {revision}; set model.revision to one of {page}/commits/main"
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"{asked}: the hub has no such repository, or it is private; check the spelling, or run `hf auth login`"
        ) from error
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"{asked} is not in the local cache ({unfinished}), and the Hugging Face hub cannot be asked: "
            f"{reason_of(error)}; "
            f"restore the connection, or fetch it where there is one with `hf download {path} --revision {revision}`"
        ) from error
    check_weights([file.rfilename for file in files], f"{asked} at revision {revision}")


def dataset_obstacle(name: str, seconds: float) -> str | None:
    """Say why the hub does not provide a data set within this many seconds; None if it does."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  # httpx, whichever it uses

    try:
        HfApi().dataset_info(name, timeout=seconds)
    except (HTTPError, OSError) as error:  # offline mode, no network, or no such data set
        return reason_of(error)
    return None


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, with the next if the first ends in a colon; if empty, its type."""
    first, second, *_ = [*(line.strip() for line in str(error).strip().splitlines()), "", ""]
    return (f"{first} {second}" if first.endswith(":") else first).rstrip(".") or type(error).__name__


def fetch(path: str, revision: str, name: str) -> Path | None:
    """Return a small file of the repository, downloaded if necessary, or None if the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(path, name, revision=revision))
    except EntryNotFoundError:
        return None


def cached_folder(path: str, revision: str) -> Path | None:
    """Return where the local cache holds the complete commit; None if it does not."""
    return None if _cache_gap(path, revision) else _cached(path, revision)


def _cached(path: str, revision: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(path, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def _cache_gap(path: str, revision: str) -> str:
    """Say what the local cache lacks of the commit; empty if it lacks nothing."""
    folder = _cached(path, revision)
    if folder is None:
        return "nothing of that revision"
    try:
        check_directory(folder)
    except ValueError as error:
        return str(error).partition(";")[0]
    return ""

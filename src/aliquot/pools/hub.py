"""Rows of a dataset on the Hugging Face hub, or of a directory with the same layout.

Only data is read, never a loading script. If the hub cannot be reached, the dataset is gated, or the commit does not
exist, one message says what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from aliquot.pools.column_names import refuse_repeated
from aliquot.pools.files import batch_records
from aliquot.pools.record import Record
from aliquot.runtime.wording import counted

if TYPE_CHECKING:
    from datasets import Dataset

_ROWS_AT_ONCE = 1000


def hub_records(
    dataset: Dataset, columns: Collection[str], where: Mapping[str, Sequence[str]], source: str
) -> Iterator[Record]:
    """Yield the rows whose columns hold one of the values in `where`, reading only the requested columns.

    Raises:
        ValueError: a column of `where` does not exist, or no row has one of its values.
    """
    names: list[str] = dataset.column_names
    refuse_repeated(names, source)
    for column in where:
        if column not in names:
            raise ValueError(f"{source} has no column '{column}' (pool.where); its columns are {', '.join(names)}")
    tops = [name for name in names if any(c == name or c.startswith(f"{name}.") for c in columns) or name in where]
    tops = tops or names[:1]  # any column, to count the rows
    start = matched = 0
    for batch in dataset.select_columns(tops).with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
        for record in batch_records(batch, names, source, start):
            if all(str(record.fields[column]) in values for column, values in where.items()):
                matched += 1
                yield record
        start += len(batch)
    if where and not matched:
        wanted = "; ".join(f"{column} = {', '.join(values)}" for column, values in where.items())
        raise ValueError(
            f"{source}: none of {counted(start, 'row')} has {wanted}; correct pool.where, or set pool.where={{}}"
        )


def open_dataset(repo: str, config: str | None, split: str, revision: str | None) -> Dataset:
    """Download a dataset, or find it in the cache, and map it into memory.

    Raises:
        ValueError: it is not available; the message has the remedy.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    asked = f"pool.path={repo}" + (f" at pool.revision={revision}" if revision else "")
    download = f"hf download --repo-type dataset {repo}" + (f" --revision {revision}" if revision else "")
    try:
        return load_dataset(repo, config, split=split, revision=revision)  # pyright: ignore[reportReturnType]
    except DatasetNotFoundError as error:
        text = str(error)
        if "gated" in text:
            remedy = f"accept its terms at https://huggingface.co/datasets/{repo}, then `hf auth login` or set HF_TOKEN"
        elif "Revision" in text:
            remedy = f"take a commit of https://huggingface.co/datasets/{repo}/commits/main"
        else:
            remedy = "correct the name; where it is private, `hf auth login` or set HF_TOKEN"
        raise ValueError(f"{asked}: {text}; {remedy}") from error
    except ConnectionError as error:
        raise ValueError(
            f"{asked}: {error}; it is not in the cache either. Run once with a network (HF_HUB_OFFLINE unset), "
            f"or download it (`{download} --local-dir copy`) and set pool.path=copy"
        ) from error
    except (ValueError, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the operating system, such as a full disk
            raise
        raise ValueError(
            f"{asked}, pool.split={split}, pool.config={config}: {error}; set these to what the dataset has"
        ) from error

"""Command-line help and user-facing error messages.

Imports nothing heavy: `python run.py --help` answers in a fraction of a second.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aliquot.config.command_line import read_arguments
from aliquot.config.quoting import typed
from aliquot.config.schema import FILES, GROUPS, ROOT, WORKERS, choices_of, did_you_mean
from aliquot.runtime.garbage import collect_rarely

_LONGEST = 500  # characters of an error to show
_HELP = """\
aliquot picks, in one inference pass, the prompts most worth annotating; has them annotated, finetunes, evaluates.

  python run.py strategy=facility_location budget=45k      the whole experiment
  python run.py strategy=min_margin budget=10% until=select   only choose; writes selected.jsonl
  python run.py strategy=random budget=1k check=true       validate everything, print the plan, do nothing
  python run.py -m strategy=random,k_center budget=1k,10k  a sweep: every stage it needs is done once
  python run.py sweeps=budgets hydra/launcher=slurm        a sweep kept as a file, on a cluster
  python run.py --cfg job                                  print the composed configuration

A run reads its pool and passes through five stages: score -> select -> annotate -> finetune -> evaluate. Each is stored
under what it depends on and never repeated: another strategy reuses the scoring pass, another gamma only ranks again.

Settings (NAME=VALUE)
  budget     prompts to annotate: 45k, 1234, 50% or all; or what they may cost: 200usd, 500k_tokens
  cost_aware true: with such a cost, choose by gain per cost
  rounds     4: spend it in four parts, each chosen with what the parts before taught; or [10%,50%,100%]
  stop_below end the rounds when the next is projected to gain fewer points of likelihood, such as 0.5
  seed       for random draws in selection and finetuning
  until      stop after: score, select, annotate, finetune, evaluate
  check      true: validate, print the plan, do nothing
  store      where results live (default: outputs/, or $ALIQUOT_STORE)
Put a value with commas, brackets, =, ~ or quotes in double quotes inside single quotes: 'pool.path="a, b.jsonl"'

Groups (GROUP=CHOICE; any field of a choice: GROUP.FIELD=VALUE, such as strategy.kernel.gamma=0.1); * is the default
{groups}
Results
  outputs/runs/<id>/         selected.jsonl (what to annotate, in order), results.json, config.yaml, metrics.jsonl
  outputs/<stage>/<key>/     what each stage made, with stage.json: its inputs, versions, seconds, memory
  outputs/sweeps/<id>/       the plan of a sweep, and the logs of its stages
  python -m aliquot report   results of finished runs: tables, figures, a page; also status, logs, cancel, sync

Set ALIQUOT_DEBUG=1 for tracebacks.
"""


def start(main: Callable[[], Any]) -> None:
    """Call a Hydra entry point, but handle --help here."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(help_text(), end="")
        return
    collect_rarely()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach us; Hydra would print half a traceback
    with errors_explained():
        sys.argv[1:] = read_arguments(sys.argv[1:])
        main()


@contextmanager
def errors_explained() -> Generator[None]:
    """End the process with a single message after a user's mistake or a problem with the machine."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; to resume, run the same command again")
    except Exception as error:
        if os.environ.get("ALIQUOT_DEBUG"):
            raise
        sys.exit(f"error: {explain(error) or _unforeseen(error)}")


def _unforeseen(error: Exception) -> str:
    """Save the traceback of an unexpected error, and return a one-line message about it."""
    with tempfile.NamedTemporaryFile("w", prefix="aliquot-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    return f"{' '.join(sys.argv[1:])}: {in_one_line(error)}; the traceback is in {file.name}"


def in_one_line(error: Exception) -> str:
    """Return the type and the message of an error, in one line of at most about 500 characters."""
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    words = " ".join(str(error).split())
    return f"{name}: {words if len(words) <= _LONGEST else words[:_LONGEST] + ' ...'}" if words else name


def explain(error: Exception) -> str | None:
    """Return the message for a user's mistake or a problem with the machine; None for a defect of aliquot."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _explain_config(error)
    if isinstance(error, OSError) and error.errno in (
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.ENOENT,
    ):
        return (
            f"{error.filename}: {error.strerror}; give files you may read, and set store=FOLDER to one you may write to"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left ({error.filename or 'while writing'}); free some and run again: what is done is kept"
    if isinstance(error, ValueError) and _raised_in(error, Path(__file__).parents[1]):
        return str(error)
    if isinstance(error, ValueError) and _raised_in(error, Path(hydra.__file__).parent):
        return f"{error}; `python run.py --help` lists groups and choices"
    return None


def _raised_in(error: Exception, package: Path) -> bool:
    """Distinguish a package's own checks from a ValueError deep inside another package, which needs its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(package)


def _ambiguous(found: re.Match[str]) -> str:
    """Explain what a comma means, and what to type for each meaning."""
    name, _, value = found[1].partition("=")
    whole = f"for one value with a comma type {typed(name, value)}"
    if name.split("/")[0] in GROUPS:
        whole = f"for one run type one choice: {name}={value.split(',')[0]}"
    return f"{found[1]}: a comma separates the values of a sweep; for a sweep add -m; {whole}"


#: Hydra's messages, and ours in their place: Hydra's own advice does not help here.
_REMEDIES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"Ambiguous value for argument '(.*)'\n", _ambiguous),
    (r"full_key: hydra\.launcher\.jobs", lambda _: WORKERS),
    (
        r"Multiple values for (\S+)\. To override a value use 'override \S+ (.*)'",
        lambda found: f"+{found[1]}={found[2]}: {found[1]} is there already; type it without +: {found[1]}={found[2]}",
    ),
    (
        r"force-add of config groups is not supported: '\+*(.*)'",
        lambda found: f"++{found[1]}: a choice is selected, not added; type it without ++: {found[1]}",
    ),
    (
        r"Could not override '(.*?)'\. No match in the defaults list",
        lambda found: (
            f"{found[1]}: what you chose for {found[1].split('/')[0]} has no such part; leave it out, or "
            f"choose another {found[1].split('/')[0]}"
        ),
    ),
    (
        r"Could not delete from config\. '(.*?)' does not exist",
        lambda found: f"~{found[1]}: there is no {found[1]} to remove; leave it out",
    ),
    (
        r"Could not delete '(.*?)'\. No match in the defaults list",
        lambda found: f"~{found[1]}: {found[1].partition('=')[0]} is not the current choice; leave it out",
    ),
    (
        r"Error merging override ((\S+?)=.*)\n[\s\S]*could not be converted to Integer",
        lambda found: f"{found[1]}: {found[2]} is a whole number; give one, such as {found[2]}=1",
    ),
    (
        r"Error merging override ((\S+?)=.*)\n[\s\S]*is not a valid bool",
        lambda found: f"{found[1]}: {found[2]} is true or false; give one of the two",
    ),
    (
        r"Error merging override ((\S+?)=.*)\n[\s\S]*is not Optional",
        lambda found: f"{found[1]}: {found[2]} cannot be null; give a value, or leave it out for the default",
    ),
    (
        r"Interpolation key '(.*?)' not found",
        lambda found: (
            f"${{{found[1]}}} names a setting that is not there; to mean the characters, as in a file's name, "
            f"type {typed('NAME', f'...${{{found[1]}}}...')}"
        ),
    ),
)


def _explain_config(error: Exception) -> str:
    """Turn the errors of Hydra and OmegaConf for a wrong choice or field into one line, with the valid names."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        name, _, value = error.override.partition("=")
        return (
            f"{error.override}: Hydra reads brackets, commas, =, ~, quotes and letters beyond ASCII in its own way; "
            f"to mean the text, type {typed(name, value)}"
        )
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    for words, remedy in _REMEDIES:
        if found := re.search(words, f"{error}\n{cause}"):
            return remedy(found)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = ", ".join(error.options or ()) or "none; `python run.py --help` lists the groups"
        as_path = f"; for a file, type target.path={choice}" if group == "target" else ""
        return f"{group}={choice}: no such choice; the choices are {options}{as_path}"
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and cause.parent_node is not None:
        where = str(cause.full_key).removesuffix(str(cause.key)).rstrip(".") or "the configuration"
        known = [str(key) for key in cause.parent_node if key not in ("_target_", "hydra")]
        meant = did_you_mean(str(cause.key), [*known, *(FILES if "store" in known else ())])
        return f"{cause.full_key}: {where} has no such field{meant}; its fields are {', '.join(known) or 'none'}"
    lines = [line.strip() for part in dict.fromkeys((str(error), str(cause))) for line in part.splitlines()]
    noise = ("full_key", "object_type", "reference_type")
    return "; ".join(line for line in lines if line and not line.startswith(noise))


def help_text() -> str:
    """Return the help: each group with its choices, and the first line of each choice's yaml as its description."""
    lines: list[str] = []
    defaults = _defaults()
    for group in (*GROUPS, "hydra/launcher", *FILES):
        folder = choices_of(group)
        files = sorted(folder.rglob("*.yaml"), key=lambda file: (file.parent, file.stem))
        for parent, choices in itertools.groupby(files, key=lambda file: file.parent):
            lines.append(f"  {(Path(group) / parent.relative_to(folder)).as_posix()}")
            for file in choices:
                star = "*" if defaults.get(group) == file.stem and parent == folder else " "
                lines.append(f"   {star}{file.stem:<28} {_first_comment(file)}")
    return _HELP.format(groups="\n".join(lines) + "\n")


def _defaults() -> dict[str, str]:
    """Read the choice of each group from the defaults list, without a yaml parser: there is one choice per line."""
    lines = (ROOT / "conf" / "config.yaml").read_text(encoding="utf-8").splitlines()
    pairs = [line.strip()[2:].split(":") for line in lines if line.startswith("  - ") and ":" in line]
    return {group.strip().removeprefix("override "): choice.split("#")[0].strip() for group, choice in pairs}


def _first_comment(file: Path) -> str:
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    if first.startswith("# @package") and rest:
        first = rest[0]
    return first.removeprefix("# ")

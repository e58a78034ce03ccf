"""Check the words of a command line before Hydra reads them, for those that Hydra would misread.

Imports nothing heavy.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from aliquot.config.quoting import typed
from aliquot.config.schema import FILES, GROUPS, ROOT, Config, choices_of, did_you_mean

#: The name of the script that starts a run, in any directory.
RUN = "run.py"
_SWEEP = ("-m", "--multirun")
_ONE_ROOT = ("-cn", "--config-name", "-cp", "--config-path")
_WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-cd", "--config-dir", "--experimental-rerun")
_CONFIG, _CONFIG_OF = ("-c", "--cfg"), ("job", "hydra", "all")
_INFO = ("-i", "--info")  # may be followed by a word that says what to show
_ABOUT = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_ALONE = ("-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run", "-sc", "--shell-completion")
_KNOWN = (*_SWEEP, *_WITH_VALUE, *_INFO, *_ALONE)


def read_arguments(words: Sequence[str]) -> list[str]:
    """Return the words in a form that Hydra accepts: its own parser rejects `-m` between settings.

    Raises:
        ValueError: a flag is unknown, a word is not a setting, or a comma or blank belongs to the name of a file.
    """
    settings: list[str] = []
    flags: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            settings.append(word)
            continue
        name, _, value = word.partition("=")
        if name in _ONE_ROOT:
            raise ValueError(_one_root(name, value or "".join(rest[:1])))
        if name not in _KNOWN:
            raise ValueError(_no_flag(word))
        flags.append(word)
        if word in _WITH_VALUE:
            flags.append(_value_of(word, rest))
        if word in _INFO:  # the next word may be a setting
            flags.append(rest.pop(0) if "".join(rest[:1]) in _ABOUT else "all")
    settings = [_named_target(word) for word in settings]
    for position, word in enumerate(settings):
        _check_setting(word, settings[:position], sweep=any(flag in _SWEEP for flag in flags))
    return [*flags, *settings]


def _named_target(word: str) -> str:
    """Return `target=FILE` as `target.path=FILE`: the target is one file, and its settings are beside the path."""
    name, equals, value = word.partition("=")
    if name != "target" or not equals or value.startswith("{") or (choices_of(name) / f"{value}.yaml").exists():
        return word
    return f"target.path={value}"


def _value_of(flag: str, rest: list[str]) -> str:
    """Take the value of a flag from the words after it."""
    of_what = flag in _CONFIG
    if not rest or (of_what and rest[0] not in _CONFIG_OF):
        raise ValueError(f"{flag} needs {', '.join(_CONFIG_OF[:-1]) + ' or all' if of_what else 'a value'} after it")
    return rest.pop(0)


def _one_root(flag: str, value: str) -> str:
    """Return the error for a flag that names another root of the configuration, with what to type instead."""
    file = Path(value).stem
    found = next((path for folder in FILES for path in choices_of(folder).rglob("*.yaml") if path.stem == file), None)
    remedy = "experiments=NAME for a file in experiments/, sweeps=NAME for one in sweeps/"
    if found:
        group, _, choice = found.relative_to(ROOT).with_suffix("").as_posix().partition("/")
        remedy = f"{group}={choice}"
    return (
        f"{flag} {value}: run.py has one root, conf/config.yaml, to which files add; type {remedy}; "
        "--config-dir FOLDER adds a folder with choices of your own"
    )


def _no_flag(word: str) -> str:
    """Return the error for an unknown flag, with what to type instead."""
    name, _, value = word.lstrip("-").partition("=")
    names = [field.name for field in fields(Config)] + list(FILES)
    if name.split(".")[0].split("/")[0] in names:
        return f"{word}: settings have no dashes; type {name}={value or ('true' if name == 'check' else '...')}"
    meant = did_you_mean(word.partition("=")[0], _KNOWN)
    return f"{word}: there is no such flag{meant}; settings are typed NAME=VALUE; `python run.py --help` lists them"


def _check_setting(word: str, before: Sequence[str], sweep: bool) -> None:
    """Raise ValueError for a word that is part of a name that the shell or Hydra splits."""
    name, equals, value = word.partition("=")
    if equals and sweep and "," in value and Path(value).expanduser().exists():
        raise ValueError(
            f"{word}: in a sweep a comma separates values, and {value} is one file; type {typed(name, value)}"
        )
    if equals or word.startswith("~"):
        return
    if before and "=" in before[-1]:
        name, _, start = before[-1].partition("=")
        if Path(f"{start} {word}").expanduser().exists():
            whole = f"{start} {word}"
            raise ValueError(f"{before[-1]} {word}: the name of the file has a space; type {typed(name, whole)}")
    known = (group for group in (*GROUPS, *FILES) if (choices_of(group) / f"{word}.yaml").exists())
    choice = next((f"; did you mean {group}={word}?" for group in known), "")
    raise ValueError(
        f"{word}: settings are typed NAME=VALUE{choice}; a value with spaces needs quotes, such as "
        f"{typed('pool.path', 'my prompts.jsonl')}"
    )


def command(overrides: Iterable[str], program: str) -> str:
    """Return the command of a run with these overrides, ready to paste into a shell.

    Args:
        overrides: as Hydra sees them.
        program: the name under which the current script was called.
    """
    if Path(program).name != RUN:  # the user's own program, a notebook or a test
        program = RUN if Path.cwd() == ROOT else str(ROOT / RUN)
    return shlex.join(["python", program, *overrides])

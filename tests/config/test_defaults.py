"""A class used from Python has the defaults that its choice has on the command line."""

import json
from dataclasses import MISSING, asdict, fields, is_dataclass

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from aliquot.config.create import _PATHS, create
from aliquot.config.schema import GROUPS, ROOT, Config, target_of

CONF = ROOT / "conf"
#: What names a source makes a preset, and is not a default.
SOURCE = ("name", *_PATHS)


@pytest.fixture(scope="module")
def composed():
    """Choice -> its group, the file, the configuration of the group, and whether it leaves a value to the user."""
    found = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for group in GROUPS:
            for file in sorted((CONF / group).rglob("*.yaml")):  # also of parts, such as strategy/kernel
                choice = f"{file.parent.relative_to(CONF)}={file.stem}"
                cfg = hydra_compose("config", overrides=[choice])
                missing = OmegaConf.missing_keys(cfg[group])
                for name in missing:
                    OmegaConf.update(cfg, name, "somewhere")
                found[choice] = group, file, cfg, bool(missing)
    return found


def parts(value, cfg):
    """Yield the objects of a choice, each with its part of the configuration."""
    if is_dataclass(value):
        yield value, cfg
        for field in fields(value):
            if field.name in cfg:
                yield from parts(getattr(value, field.name), cfg[field.name])


def written(value):
    """Return a value as text: a tuple as a list, which is what a configuration gives."""
    return f"{type(value).__name__} {json.dumps(asdict(value))}" if is_dataclass(value) else json.dumps(value)


def differences(value, cfg):
    """Return field -> (class default, value) where a configuration gives something else than the class."""
    found = {}
    for field in fields(value):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        given = getattr(value, field.name)
        compared = field.name in cfg and field.name not in SOURCE and default is not MISSING
        if compared and default != given and written(default) != written(given):
            found[field.name] = (default, given)
    return found


@pytest.mark.slow
def test_the_plain_choice_of_each_class_gives_its_defaults(composed):
    """It is the default of its group, else the choice that leaves a value to the user (path: ???), else the nearest."""
    plain, defaults = {}, composed["tracker=wandb"][2]
    for choice, (group, _, cfg, asks) in composed.items():
        for value, part in parts(create(cfg, group), cfg[group]):
            other = differences(value, part)
            rank = (cfg[group] != defaults[group], not asks, len(other))
            if type(value) not in plain or rank < plain[type(value)][0]:
                plain[type(value)] = rank, choice, other
    assert len(plain) >= 40
    assert not {kind.__name__: (choice, other) for kind, (_, choice, other) in plain.items() if other}


def test_the_class_of_a_choice_is_found_through_the_one_it_inherits_from(composed):
    for group, file, cfg, _ in composed.values():
        if file.parent == CONF / group:
            assert target_of(file) == cfg[group]._target_


def test_the_schema_has_the_defaults_of_the_root(compose, monkeypatch):
    monkeypatch.delenv("ALIQUOT_STORE", raising=False)
    cfg = compose()
    for name, default in vars(Config()).items():
        assert default in ("???", cfg[name]), name

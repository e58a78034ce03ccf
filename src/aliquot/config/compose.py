"""Compose a configuration in this process, without a command line."""

from __future__ import annotations

import functools
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from aliquot.config.schema import ROOT


@functools.cache
def composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Compose as the command line does, without changing the program's current composition."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    instance = GlobalHydra.instance()
    before, instance.hydra = instance.hydra, None
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return values_of(compose("config", overrides=list(overrides)))
    finally:
        GlobalHydra.instance().hydra = before


def values_of(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings, with every reference resolved that can be: an environment path may be missing."""
    values = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    cfg = OmegaConf.create(cast(dict[str, Any], values))
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))

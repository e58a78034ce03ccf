"""Composing the jobs of a sweep: Hydra composes once per combination of group choices, for any number of values.

For every job, Hydra reads and merges all files again, which takes a tenth of a second. Jobs that differ only in values,
such as a budget or a seed, need that once: Hydra also sets values after all files are merged. Imports nothing heavy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from aliquot.config.schema import check_hydra, check_root, name_strategy


class Composer:
    """Composes jobs as Hydra does.

    Args:
        loader: Hydra's.
        config: of the sweep as a whole.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self._loader, self._config, self._parser = loader, config, OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the configuration of one job without Hydra's own node."""
        parsed = [self._parse(override) for override in overrides]
        values = [override for override in parsed if self._is_value(override)]
        if any(override.type is not OverrideType.CHANGE for override in values):
            values = []  # overrides that add or delete must keep their place among the values
        whole = self._by_hydra(tuple(o for o, p in zip(overrides, parsed, strict=True) if p not in values))
        cfg = copy.deepcopy(whole)
        try:
            for value in values:
                OmegaConf.update(cfg, value.key_or_group, value.value(), merge=True)
        except OmegaConfBaseException:
            return self._by_hydra(tuple(overrides))  # Hydra reports what is wrong in its own words
        return cfg

    def _by_hydra(self, overrides: tuple[str, ...]) -> DictConfig:
        if overrides not in self._composed:
            cfg = self._loader.load_sweep_config(self._config, list(overrides))
            check_root(cfg)
            check_hydra(cfg.hydra)
            OmegaConf.set_readonly(cfg, False)
            name_strategy(cfg, cfg.hydra.runtime.choices["strategy"])
            with open_dict(cfg):
                del cfg["hydra"]
            self._composed[overrides] = cfg
        return self._composed[overrides]

    def _parse(self, override: str) -> Override:
        if override not in self._parsed:
            self._parsed[override] = self._parser.parse_override(override)
        return self._parsed[override]

    def _is_value(self, override: Override) -> bool:
        """Distinguish an override of a value from the choice of a group."""
        key = override.key_or_group
        if key not in self._groups:
            self._groups[key] = bool(self._loader.get_group_options(key, None))
        return not self._groups[key]

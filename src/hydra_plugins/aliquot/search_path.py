"""Make `experiments/` and `sweeps/` config groups, although they are next to `conf/` and not in it."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from aliquot.config.schema import ROOT


class AliquotSearchPath(SearchPathPlugin):
    """Append the directory that holds `conf`, `experiments` and `sweeps` to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="aliquot", path=f"file://{ROOT}")

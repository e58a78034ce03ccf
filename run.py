"""Run an experiment, or a sweep of them. `python run.py --help` teaches how."""

import hydra
from omegaconf import DictConfig

from aliquot.config.help import errors_explained, start


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    """Compose the configuration from conf/ and the command line, and run it."""
    from aliquot.experiment.run import run

    with errors_explained():  # inside, or Hydra would add a line of its own
        return run(cfg)


if __name__ == "__main__":
    start(main)

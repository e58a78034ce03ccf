"""Fixtures shared by all tests: the real data where there is some, and a way to run experiments in this process."""

import compileall
import contextlib
import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

from few_questions import QUESTIONS
from scheduling import InOrder, in_order

# One thread each: tests run beside each other, and threads that wait for one another cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
# Nothing here compiles, but bitsandbytes and what imports it, peft, would load torch's compiler in every process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
# A job in the background ignores Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The search for garbage takes a quarter of the seconds for which tests and libraries are imported.
gc.disable()

_SLURM = Path(__file__).parent / "launch" / "slurm"
_SOURCE = Path(__file__).parents[1] / "src"


def pytest_sessionstart(session):
    """Compile the package once, not in each of hundreds of processes, where Python may not write what it compiled."""
    if not hasattr(session.config, "workerinput"):
        compileall.compile_dir(_SOURCE, quiet=2)


def pytest_collection_finish():
    """Search for garbage again, but not in what all tests share."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests by what they need, so that `-m "not slurm"` knows them, and put those that take long first."""
    for item in items:
        needs = getattr(item, "fixturenames", ())
        if item.path.is_relative_to(_SLURM):
            item.add_marker("slurm")
        for mark in {"real_data", "browser"}.intersection(needs):
            item.add_marker(mark)
    items[:] = in_order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Distribute files, and all files on SLURM as one."""
    config.option.loadscopereorder = False
    return InOrder(config, log)


@pytest.fixture(autouse=True)
def one_thread():
    """Keep torch at one thread: a peer library's parallel loops tell OpenMP to use all cores from then on."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def log_as_before(monkeypatch):
    """Undo what an experiment in this process does to its log, so that no test depends on those before it."""
    logger = logging.getLogger("aliquot")
    level = logger.level
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    yield
    logger.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data that ALIQUOT_DATA names."""
    folder = os.environ.get("ALIQUOT_DATA")
    if not folder:
        pytest.skip("ALIQUOT_DATA is not set: no real data to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def long_model(real_data, tmp_path_factory):
    """The real model with a longer context, so that no worked example is cut off."""
    path = tmp_path_factory.mktemp("model") / "long"
    shutil.copytree(real_data / "models" / "tinystories-656k-llama", path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    from aliquot.models.spec import Model

    return Model(str(path))


@pytest.fixture
def serve(monkeypatch):
    """Start a server for teachers and judges, and point the environment at it; nobody waits before asking again."""
    from aliquot.annotation.teachers import request_queue
    from fake_endpoint import FakeEndpoint

    monkeypatch.setattr(request_queue, "BACKOFF_SECONDS", 0.01)
    with contextlib.ExitStack() as servers:

        def start(*args, **kwargs):
            server = servers.enter_context(FakeEndpoint(*args, **kwargs))
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            return server

        yield start


@pytest.fixture
def small_disk():
    """A file system of 64 KiB, where one may be mounted; not in a folder that pytest cleans up."""
    folder = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def compose():
    """Compose the configuration as the command line does."""
    import hydra

    from aliquot.config.schema import ROOT

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield lambda *overrides: hydra.compose("config", overrides=list(overrides))


@pytest.fixture
def run(compose, tmp_path):
    """Run an experiment on a corner of the demo world, in this process; returns its score."""
    from aliquot.experiment import run as pipeline

    small = ["pool.limit=300", "budget=40", "tracker=none", f"store={tmp_path / 'store'}"]

    def run(*overrides):
        another = any(override.startswith("evaluate=") for override in overrides)
        return pipeline.run(compose(*small, *([] if another else QUESTIONS), *overrides))

    return run

"""Passes that run out of memory, against undisturbed ones."""

import json
import logging

import numpy as np
import pytest
import torch

from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.run import load_scores, score
from aliquot.scoring.spec import Scorer
from aliquot.types import Pool
from tiny_model import WORDS, save_tiny_model

CPU = TrainerSpec("cpu")
CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
FULL = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), RuntimeError(CPU_MESSAGE)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(60)]
    return Pool("words", [str(i) for i in range(len(prompts))], prompts)


@pytest.fixture
def reads(monkeypatch):
    """Let the network fail above a number of tokens at once; returns what was read, and a way to set the limit."""
    seen, limit, load = [], [10**9, RuntimeError()], Model.load

    def watched(self):
        network = load(self)

        def watch(backbone, args, kwargs):
            shape = kwargs["input_ids"].shape
            seen.append((*shape, shape.numel() <= limit[0]))
            if shape.numel() > limit[0]:
                raise limit[1]

        network.base_model.register_forward_pre_hook(watch, with_kwargs=True)
        return network

    monkeypatch.setattr(Model, "load", watched)

    def set_limit(tokens, error):
        limit[:] = tokens, error

    return seen, set_limit


@pytest.mark.slow
@pytest.mark.parametrize("error", FULL, ids=["cuda", "cpu"])
def test_a_batch_that_does_not_fit_is_halved_and_the_scores_stay(model, pool, tmp_path, reads, caplog, error):
    seen, set_limit = reads
    scorer = Scorer(max_new_tokens=4, tokens_per_batch=400)
    score(model, pool, scorer, CPU, tmp_path / "undisturbed")
    num_batches = len({width for _, width, _ in seen if width > 1})
    assert num_batches >= 3
    seen.clear()
    set_limit(100, error)
    score(model, pool, scorer, CPU, tmp_path / "full")

    one, two = load_scores(tmp_path / "undisturbed"), load_scores(tmp_path / "full")
    np.testing.assert_allclose(two.features, one.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(two.tokens.lengths, one.tokens.lengths)
    for name in ("entropy", "top1", "top2"):
        np.testing.assert_allclose(getattr(two.tokens, name), getattr(one.tokens, name), rtol=1e-4, atol=1e-5)
    prefills = [read for read in seen if read[1] > 1]
    failed = [fitted for _, _, fitted in prefills].count(False)
    assert sum(rows for rows, _, fitted in prefills if fitted) == len(pool)  # no row is read twice where it fitted
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert failed == len(warnings) == 2  # 400, 200; never tried again, whatever the width
    assert "does not fit into memory; continuing with half as many" in warnings[0]
    (note,) = (tmp_path / "full").glob("out_of_memory_*.json")
    found = json.loads(note.read_text())
    assert found["tokens_per_batch"] == 400 and f"scorer.tokens_per_batch={found['lowered_to']} " in warnings[-1]
    assert not list((tmp_path / "undisturbed").glob("out_of_memory_*"))


@pytest.mark.slow
def test_one_prompt_that_does_not_fit_is_an_error_with_the_remedy(model, pool, tmp_path, reads):
    _, set_limit = reads
    set_limit(15, FULL[0])
    with pytest.raises(
        ValueError, match=r"one prompt of \d+ tokens and 4 new ones do not fit .*lower model.max_tokens"
    ):
        score(model, pool, Scorer(max_new_tokens=4), CPU, tmp_path)


def test_other_errors_are_not_mistaken_for_it(model, pool, tmp_path, reads):
    _, set_limit = reads
    set_limit(15, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        score(model, pool, Scorer(max_new_tokens=4), CPU, tmp_path)

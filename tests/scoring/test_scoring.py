"""The scoring pass against the model itself, one prompt at a time, and against interruptions."""

import errno
import json
import logging
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring import module as scoring_module
from aliquot.scoring.decoding import describe
from aliquot.scoring.features import POSITIONS
from aliquot.scoring.run import load_scores, score
from aliquot.scoring.shards import reserve
from aliquot.scoring.spec import Scorer
from aliquot.types import Pool
from command_line import Command
from tiny_model import WORDS, save_tiny_model

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"vocab_size": 29, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE, **SPECIAL, num_key_value_heads=2, max_position_embeddings=64),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **SPECIAL),
    "neox": GPTNeoXConfig(**SHAPE, **SPECIAL, max_position_embeddings=64),
    "qwen2": Qwen2Config(**SHAPE, **SPECIAL, num_key_value_heads=1, max_position_embeddings=64),
    "sliding": MistralConfig(**SHAPE, **SPECIAL, num_key_value_heads=2, max_position_embeddings=64, sliding_window=5),
    "alibi": BloomConfig(hidden_size=32, n_layer=2, n_head=4, **SPECIAL),
}
CPU = TrainerSpec("cpu")
ENDS = [2, 5, 9, 14]  # several, so that responses end early, at every length


def save_family(directory, name):
    """Save a random model of one architecture beside the word tokenizer."""
    save_tiny_model(directory)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = AutoModelForCausalLM.from_config(FAMILIES[name])
    network.generation_config.eos_token_id = ENDS
    network.save_pretrained(directory)
    return Model(str(directory), attention="eager" if name == "alibi" else "sdpa")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    saved = {}

    def get(name="llama"):
        if name not in saved:
            saved[name] = save_family(tmp_path_factory.mktemp(name), name)
        return saved[name]

    return get


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(60)]
    return Pool("words", [str(i) for i in range(len(prompts))], prompts)


def scores_of(model, pool, directory, **options):
    score(model, pool, Scorer(**options), CPU, directory)
    return load_scores(directory)


def pooled(states, position):
    """Pool the states (L, d) of one prompt."""
    weights = {"last": [0] * (len(states) - 1) + [1], "mean": [1] * len(states), "weighted": range(1, len(states) + 1)}
    return np.average(states.numpy(), axis=0, weights=list(weights[position]))


@torch.inference_mode()
def one_by_one(model, pool, num_new, layer=-1, position="last"):
    """Score as plainly as can be: no batch, no padding, no cache, and all logits."""
    tokenizer, network = model.load_tokenizer(), model.load()
    features, stats = [], []
    for ids in model.encode_prompts(tokenizer, pool.prompts):
        output = network(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        features.append(pooled(output.hidden_states[layer][0], position))
        response = []
        while len(response) < num_new:
            p = network(torch.tensor([ids]), use_cache=False).logits[0, -1].double().softmax(0)
            top = p.sort(descending=True).values
            response.append((float(-(p * p.log()).sum()), float(top[0]), float(top[1])))
            ids = [*ids, int(p.argmax())]
            if ids[-1] in ENDS:
                break
        stats.append(response)
    return np.array(features), stats


def assert_same(scores, other, rtol=1e-4, atol=1e-5):
    np.testing.assert_array_equal(scores.prompt_lengths, other.prompt_lengths)
    np.testing.assert_allclose(scores.features, other.features, rtol=rtol, atol=atol)
    np.testing.assert_array_equal(scores.tokens.lengths, other.tokens.lengths)
    for name in ("entropy", "top1", "top2"):
        np.testing.assert_allclose(getattr(scores.tokens, name), getattr(other.tokens, name), rtol=rtol, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_pass_equals_the_model_run_on_one_prompt_at_a_time(models, pool, tmp_path, family):
    scores = scores_of(models(family), pool, tmp_path, max_new_tokens=6, tokens_per_batch=200)
    features, stats = one_by_one(models(family), pool, num_new=6)
    np.testing.assert_allclose(scores.features, features, rtol=1e-4, atol=1e-5)
    lengths = [len(response) for response in stats]
    assert len(set(lengths)) >= 3  # responses do end early
    np.testing.assert_array_equal(scores.tokens.lengths, lengths)
    entropy, top1, top2 = np.concatenate(stats).T
    np.testing.assert_allclose(scores.tokens.entropy, entropy, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.tokens.top1, top1, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores.tokens.top2, top2, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.inference_mode()
def test_the_responses_are_those_of_generate(models, pool, tmp_path):
    scores = scores_of(models(), pool, tmp_path, max_new_tokens=6)
    tokenizer, network = models().load_tokenizer(), models().load()
    for row, ids in enumerate(models().encode_prompts(tokenizer, pool.prompts)):
        answer = network.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
            max_new_tokens=6, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        probabilities = torch.cat(answer.logits).softmax(dim=1)
        start, length = scores.tokens.starts[row], scores.tokens.lengths[row]
        assert length == answer.sequences.shape[1] - len(ids)
        top1 = probabilities[torch.arange(length), answer.sequences[0, len(ids) :]]
        np.testing.assert_allclose(scores.tokens.top1[start : start + length], top1, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [0, 1, 2, -2])
@pytest.mark.parametrize("position", POSITIONS)
def test_any_layer_and_position(models, pool, tmp_path, layer, position):
    scores = scores_of(models(), pool, tmp_path, max_new_tokens=0, layer=layer, position=position)
    features, _ = one_by_one(models(), pool, num_new=0, layer=layer, position=position)
    np.testing.assert_allclose(scores.features, features, rtol=1e-4, atol=1e-5)
    assert scores.tokens is None


@pytest.mark.slow
@pytest.mark.parametrize("tokens_per_batch", [1, 100, 10**6])
def test_the_size_of_batches_changes_nothing(models, pool, tmp_path, tokens_per_batch):
    scores = scores_of(models(), pool, tmp_path / "a", tokens_per_batch=tokens_per_batch, shard_size=7)
    assert_same(scores, scores_of(models(), pool, tmp_path / "b", tokens_per_batch=333))


def test_order_and_company_change_nothing(models, pool, tmp_path):
    whole = scores_of(models(), pool, tmp_path / "whole")
    order = np.random.default_rng(1).permutation(len(pool))[:20]
    part = Pool("part", [pool.ids[i] for i in order], [pool.prompts[i] for i in order])
    scores = scores_of(models(), part, tmp_path / "part")
    np.testing.assert_allclose(scores.features, whole.features[order], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(scores.tokens.lengths, whole.tokens.lengths[order])
    entropies = np.split(whole.tokens.entropy, whole.tokens.starts[1:])
    wanted = np.concatenate([entropies[i] for i in order])
    np.testing.assert_allclose(scores.tokens.entropy, wanted, rtol=1e-4, atol=1e-5)


def test_two_threads_say_what_one_says_and_are_given_back(models, pool, tmp_path):
    torch.set_num_threads(2)
    try:
        scores = scores_of(models(), pool, tmp_path / "two", layer=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert_same(scores, scores_of(models(), pool, tmp_path / "one", layer=1))


@pytest.mark.slow
def test_normalisation_looks_at_the_whole_pool(models, pool, tmp_path):
    centered = scores_of(models(), pool, tmp_path / "centered", normalize="centered", shard_size=7)
    np.testing.assert_allclose(centered.features.mean(axis=0), 0, atol=1e-6)
    unit = scores_of(models(), pool, tmp_path / "unit", normalize="unit", shard_size=7)
    np.testing.assert_allclose(np.linalg.norm(unit.features, axis=1), 1, rtol=1e-6)


def test_half_precision_models_give_float32_statistics(models, pool, tmp_path):
    scores = scores_of(replace(models(), dtype="bfloat16"), pool, tmp_path)
    assert scores.features.dtype == scores.tokens.entropy.dtype == np.float32
    assert np.isfinite(scores.features).all()
    assert (scores.tokens.top1 >= scores.tokens.top2).all()


def test_a_token_that_the_model_rules_out_leaves_the_entropy_finite():
    logits = torch.tensor([[0.0, 0.0, float("-inf")], [200.0, 0.0, 0.0]])
    tokens, stats = describe(logits)
    assert tokens.tolist() == [0, 0]
    np.testing.assert_allclose(stats, [[np.log(2), 0.5, 0.5], [0, 1, 0]], atol=1e-6)


@dataclass(frozen=True)
class Interrupted(TrainerSpec):
    """A trainer that stops after some batches, as if cut off."""

    batches: int = 3

    def build(self, directory, device=0, **kwargs):
        return super().build(directory, device, limit_predict_batches=self.batches, **kwargs)


@pytest.fixture
def rows_read(monkeypatch):
    """Collect the rows that the model reads."""
    rows, signals = [], scoring_module.ScoringModule.signals

    def noting(self, batch):
        rows.extend(batch.rows.tolist())
        return signals(self, batch)

    monkeypatch.setattr(scoring_module.ScoringModule, "signals", noting)
    return rows


@pytest.mark.slow
def test_an_interrupted_pass_goes_on_where_it_stopped(models, pool, tmp_path, rows_read):
    scorer = Scorer(tokens_per_batch=100, shard_size=5)
    with pytest.raises(AssertionError, match="ended early"):
        score(models(), pool, scorer, Interrupted("cpu"), tmp_path)
    assert 0 < len(rows_read) < len(pool)
    (tmp_path / "shards" / "00000000.partial").write_bytes(b"half a shard")
    score(models(), pool, scorer, CPU, tmp_path)
    assert sorted(rows_read) == list(range(len(pool)))  # every prompt once, in both runs together
    undisturbed = scores_of(models(), pool, tmp_path / "b", tokens_per_batch=100, shard_size=5)
    assert_same(load_scores(tmp_path), undisturbed, rtol=0, atol=0)
    files = {path.name for path in tmp_path.iterdir() if path.name != "b"}
    stats = {"token_lengths.npy", "entropy.npy", "top1.npy", "top2.npy"}
    assert files == {"features.npy", "features_weighted.npy", "prompt_lengths.npy", *stats}


@pytest.mark.slow
def test_shards_of_another_size_count(models, pool, tmp_path, rows_read):
    with pytest.raises(AssertionError, match="ended early"):
        score(models(), pool, Scorer(tokens_per_batch=100, shard_size=5), Interrupted("cpu"), tmp_path)
    scores = scores_of(models(), pool, tmp_path, tokens_per_batch=250, shard_size=1000)
    assert sorted(rows_read) == list(range(len(pool)))
    assert_same(scores, scores_of(models(), pool, tmp_path / "b"))


def test_finished_scores_are_not_touched_again(models, pool, tmp_path, rows_read):
    scores_of(models(), pool, tmp_path)
    (tmp_path / "shards").mkdir()  # the clean-up was cut off
    scores_of(models(), pool, tmp_path)
    assert len(rows_read) == len(pool)
    assert not (tmp_path / "shards").exists()


SLOWLY = """
import json, sys, time
from pathlib import Path
from aliquot.scoring import module as scoring_module
from aliquot.scoring.decoding import describe
from aliquot.scoring.run import Model, Pool, TrainerSpec, score
from aliquot.scoring.spec import Scorer
signals = scoring_module.ScoringModule.signals
scoring_module.ScoringModule.signals = lambda self, batch: time.sleep(0.2) or signals(self, batch)
path, prompts, directory = json.loads(sys.argv[1])
scorer = Scorer(tokens_per_batch=100, shard_size=5)
score(Model(path), Pool("words", prompts, prompts), scorer, TrainerSpec("cpu"), Path(directory))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_loses_one_shard_at_most(models, pool, tmp_path, rows_read, how):
    arguments = json.dumps([models().path, list(pool.prompts), str(tmp_path)])
    process = Command("-c", SLOWLY, arguments, cwd=tmp_path)
    while len(list(tmp_path.glob("shards/*.npz"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(how)
    codes = {signal.SIGKILL: [-how], signal.SIGTERM: [128 + how], signal.SIGINT: [1, -how]}
    assert process.wait() in codes[how]
    assert process.errors().rstrip().endswith("KeyboardInterrupt") == (how == signal.SIGINT)
    saved = np.concatenate([np.load(path)["rows"] for path in tmp_path.glob("shards/*.npz")])
    scores = scores_of(models(), pool, tmp_path, tokens_per_batch=100, shard_size=5)
    assert sorted([*rows_read, *saved]) == list(range(len(pool)))
    assert_same(scores, scores_of(models(), pool, tmp_path / "b", tokens_per_batch=100), rtol=1e-6, atol=1e-6)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(small_disk):
    with pytest.raises(OSError, match=r"No space left on device: .*features.partial") as caught:
        reserve(small_disk / "features.partial", np.dtype(np.float32), (1000, 1000))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_the_model_lacks_is_an_error_with_the_numbers(models, pool, tmp_path, layer):
    with pytest.raises(ValueError, match=rf"scorer.layer={layer} is outside -3..2: the model has 2 layers"):
        score(models(), pool, Scorer(layer=layer), CPU, tmp_path)


def test_too_few_positions_are_an_error_with_the_remedy(models, tmp_path):
    pool = Pool("long", ["a"], ["cat " * 60])
    with pytest.raises(ValueError, match=r"prompt of 61 tokens and 8 new ones take 68 .* has 64; .*max_tokens=64"):
        score(models(), pool, Scorer(), CPU, tmp_path / "a")
    score(replace(models(), max_tokens=64), pool, Scorer(), CPU, tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [("position", "first"), ("normalize", "white"), ("max_new_tokens", -1), ("tokens_per_batch", 0), ("shard_size", 0)],
)
def test_bad_options_are_refused_when_they_are_given(name, value):
    with pytest.raises(ValueError, match=rf"scorer\.{name}={value}"):
        Scorer(**{name: value})


def test_prompts_that_were_cut_are_counted_in_the_log(models, pool, tmp_path, caplog):
    caplog.set_level(logging.INFO, "aliquot")
    score(replace(models(), max_tokens=10), pool, Scorer(max_new_tokens=0), CPU, tmp_path)
    num_long = sum(len(ids) > 10 for ids in models().encode_prompts(models().load_tokenizer(), pool.prompts))
    assert f"{num_long} of 60 prompts are longer than 10 tokens; their beginning was cut" in caplog.text


def test_lightning_says_nothing_and_we_say_one_line(models, pool, tmp_path, capfd):
    score(models(), pool, Scorer(), CPU, tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "Loading weights" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("score: 0:0")
    assert "60/60 prompts" in lines[0]


@pytest.mark.slow
def test_describing_a_pass_imports_neither_torch_nor_lightning():
    code = "import sys, aliquot.scoring.run; print({'torch', 'pytorch_lightning', 'transformers'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"

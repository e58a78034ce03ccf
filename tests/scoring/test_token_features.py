"""Vectors of single tokens against the model itself, one prompt at a time, and against interruptions."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.features import gaussian_projection, project, root_mean_square_norm
from aliquot.scoring.run import load_scores, score
from aliquot.scoring.spec import Scorer, TokenFeatureSpec
from aliquot.selection.strategies.information_gain import InformationGain
from aliquot.selection.strategy import check_requirements, check_signals
from aliquot.store.store import canonical
from aliquot.types import Pool, Scores, TokenFeatures
from tiny_model import WORDS, save_tiny_model

SPECIAL = {"vocab_size": 29, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {
    "llama": LlamaConfig(**SHAPE, **SPECIAL, num_key_value_heads=2, max_position_embeddings=64),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **SPECIAL),
}
CPU = TrainerSpec("cpu")
ENDS = [2, 5, 9, 14]  # several, so that responses end early, at every length
NUM_NEW = 6


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    """A random model of one architecture beside the word tokenizer."""
    directory = save_tiny_model(tmp_path_factory.mktemp(request.param))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = AutoModelForCausalLM.from_config(FAMILIES[request.param])
    network.generation_config.eos_token_id = ENDS
    network.save_pretrained(directory)
    return Model(str(directory))


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(40)]
    return Pool("words", [str(i) for i in range(len(prompts))], prompts)


def token_features_of(model, pool, directory, spec, **options):
    score(model, pool, Scorer(max_new_tokens=NUM_NEW, token_features=spec, **options), CPU, directory)
    return load_scores(directory).token_features


@torch.inference_mode()
def one_by_one(model, pool, source):
    """What the output layer reads, as plainly as can be: no batch, no padding, no cache."""
    tokenizer, network = model.load_tokenizer(), model.load()
    vectors = []
    for ids in model.encode_prompts(tokenizer, pool.prompts):
        length = len(ids)
        if source == "response":
            while len(ids) < length + NUM_NEW and (len(ids) == length or ids[-1] not in ENDS):
                ids = [*ids, int(network(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
        states = network(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states[-1][0].numpy()
        # A token of the response was predicted from the state before it.
        vectors.append(states[length - 1 : -1] if source == "response" else states)
    return vectors


@pytest.mark.slow
@pytest.mark.parametrize("source", ["prompt", "response"])
@pytest.mark.parametrize("max_tokens", [3, 100])
def test_they_are_what_the_output_layer_reads_of_one_prompt_at_a_time(model, pool, tmp_path, source, max_tokens):
    spec = TokenFeatureSpec(source, projection=8, projection_seed=3, max_tokens=max_tokens)
    found = token_features_of(model, pool, tmp_path, spec, tokens_per_batch=200, shard_size=7, layer=1)
    projection = np.random.default_rng(3).standard_normal((32, 8), dtype=np.float32) / np.sqrt(8)
    wanted = [states[-max_tokens:] @ projection for states in one_by_one(model, pool, source)]
    assert len({len(states) for states in wanted}) >= 3  # ragged
    np.testing.assert_array_equal(found.lengths, [len(states) for states in wanted])
    np.testing.assert_allclose(found.vectors, np.concatenate(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["prompt", "response"])
@pytest.mark.parametrize("tokens_per_batch", [1, 10**6])
def test_the_size_of_batches_changes_nothing(model, pool, tmp_path, source, tokens_per_batch):
    spec = TokenFeatureSpec(source, projection=16, max_tokens=5)
    one = token_features_of(model, pool, tmp_path / "a", spec, tokens_per_batch=tokens_per_batch)
    two = token_features_of(model, pool, tmp_path / "b", spec, tokens_per_batch=150, shard_size=7)
    np.testing.assert_array_equal(one.lengths, two.lengths)
    np.testing.assert_allclose(one.vectors, two.vectors, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_two_threads_say_what_one_says(model, pool, tmp_path):
    spec = TokenFeatureSpec("response", projection=16)
    one = token_features_of(model, pool, tmp_path / "one", spec)
    torch.set_num_threads(2)
    try:
        two = token_features_of(model, pool, tmp_path / "two", spec)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_array_equal(one.lengths, two.lengths)
    np.testing.assert_allclose(one.vectors, two.vectors, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_narrow_states_stay_as_they_are(model, pool, tmp_path):
    found = token_features_of(model, pool, tmp_path, TokenFeatureSpec(projection=32))
    np.testing.assert_allclose(found.vectors, np.concatenate(one_by_one(model, pool, "prompt")), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_centering_looks_at_the_tokens_of_the_whole_pool(model, pool, tmp_path):
    centered = token_features_of(
        model, pool, tmp_path / "centered", TokenFeatureSpec(normalize="centered"), shard_size=7
    )
    raw = token_features_of(model, pool, tmp_path / "raw", TokenFeatureSpec())
    np.testing.assert_allclose(centered.vectors, raw.vectors - raw.vectors.mean(axis=0), rtol=1e-3, atol=1e-4)


@dataclass(frozen=True)
class Interrupted(TrainerSpec):
    """A trainer that stops after some batches, as if cut off."""

    def build(self, directory, device=0, **kwargs):
        return super().build(directory, device, limit_predict_batches=3, **kwargs)


@pytest.mark.slow
def test_an_interrupted_pass_goes_on_where_it_stopped(model, pool, tmp_path):
    scorer = Scorer(tokens_per_batch=100, shard_size=5, token_features=TokenFeatureSpec("response", projection=8))
    with pytest.raises(AssertionError, match="ended early"):
        score(model, pool, scorer, Interrupted("cpu"), tmp_path / "a")
    for directory in (tmp_path / "a", tmp_path / "b"):
        score(model, pool, scorer, CPU, directory)
    one, two = (load_scores(tmp_path / name).token_features for name in "ab")
    np.testing.assert_array_equal(one.lengths, two.lengths)
    np.testing.assert_array_equal(one.vectors, two.vectors)
    assert not (tmp_path / "a" / "shards").exists()


def test_what_they_take_on_disk_is_said_before_the_pass(model, pool, tmp_path, caplog):
    caplog.set_level(logging.INFO, "aliquot")
    found = token_features_of(model, pool, tmp_path, TokenFeatureSpec(projection=8, max_tokens=4))
    assert f"keeping {len(found.vectors):,} token vectors of 8 dimensions" in caplog.text


def test_they_belong_to_the_key_and_speed_does_not():
    def key(**options):
        return canonical(Scorer(**options))

    kept = key(token_features=TokenFeatureSpec())
    assert kept not in (key(), key(token_features=TokenFeatureSpec(projection_seed=1)))
    assert kept == key(token_features=TokenFeatureSpec(), shard_size=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("source", "data"), ("normalize", "white"), ("projection", 0), ("max_tokens", 0), ("projection_seed", -1)],
)
def test_bad_options_are_refused_when_they_are_given(name, value):
    with pytest.raises(ValueError, match=rf"scorer\.token_features\.{name}={value}"):
        TokenFeatureSpec(**{name: value})


def test_vectors_of_a_response_need_one():
    with pytest.raises(ValueError, match=r"max_new_tokens=0 generates none; set scorer.max_new_tokens=8"):
        Scorer(max_new_tokens=0, token_features=TokenFeatureSpec("response"))
    Scorer(max_new_tokens=0, token_features=TokenFeatureSpec("prompt"))


def test_a_strategy_that_needs_them_names_the_remedy_before_the_pass(pool):
    with pytest.raises(ValueError, match="set scorer=token_features"):
        check_requirements(InformationGain(), pool, Scorer())
    check_requirements(InformationGain(), pool, Scorer(token_features=TokenFeatureSpec()))


@pytest.mark.slow
def test_the_configuration_keeps_them_on_demand(compose):
    from aliquot.config.create import create

    assert create(compose(), "scorer") == Scorer()
    kept = create(compose("scorer=token_features"), "scorer")
    assert kept == replace(Scorer(), token_features=TokenFeatureSpec(), shard_size=2048)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused_by_prompt(bad):
    vectors = np.ones((6, 2), dtype=np.float32)
    vectors[[1, 5], 1] = bad
    token_features = TokenFeatures(np.array([1, 2, 2, 1]), vectors)
    scores = Scores(np.ones((4, 1), dtype=np.float32), np.ones(4, dtype=np.int64), None, token_features)
    with pytest.raises(ValueError, match=r"token features of 2 of 4 prompts hold NaN or infinity \(rows 1, 3\)"):
        check_signals(InformationGain(), Pool("p", list("abcd"), list("abcd")), scores)


def test_a_projection_keeps_lengths_and_angles_on_average():
    x = np.random.default_rng(0).normal(size=(3, 2000)).astype(np.float32)
    projected = project(x, gaussian_projection(2000, 1000, seed=0))
    np.testing.assert_allclose(projected @ projected.T, x @ x.T, atol=0.12 * 2000)
    assert root_mean_square_norm(projected) == pytest.approx(np.sqrt(2000), rel=0.05)

"""The scoring pass over every family of models against Hugging Face's own forward and generate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.run import load_scores, score
from aliquot.scoring.spec import Scorer, TokenFeatureSpec, check_scorer
from aliquot.types import Pool
from tiny_model import FAMILIES, WORDS, save_tiny_model

CPU = TrainerSpec("cpu")
NUM_NEW = 6
SCORER = Scorer(max_new_tokens=NUM_NEW, tokens_per_batch=150, token_features=TokenFeatureSpec("response", 10**6))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    """A tiny model of a family whose responses end early, at every length."""
    directory = save_tiny_model(tmp_path_factory.mktemp(request.param), family=request.param, seed=1)
    config = GenerationConfig.from_pretrained(directory)
    config.eos_token_id = list(range(2, 400, 5))
    config.save_pretrained(directory)
    return Model(str(directory))


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(1, 16))) for _ in range(30)]
    return Pool("words", [str(i) for i in range(len(prompts))], prompts)


@pytest.fixture(scope="module")
def scores(model, pool, tmp_path_factory):
    directory = tmp_path_factory.mktemp("scores")
    score(model, pool, SCORER, CPU, directory)
    return load_scores(directory)


@pytest.fixture(scope="module")
def generated(model, pool):
    """The logits of every response, by `generate`, one prompt at a time."""
    network, tokenizer = model.load(), model.load_tokenizer()
    options = {"do_sample": False, "max_new_tokens": NUM_NEW, "output_logits": True, "return_dict_in_generate": True}
    with torch.inference_mode():
        answers = [
            network.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), **options)
            for ids in model.encode_prompts(tokenizer, pool.prompts)
        ]
    return [torch.cat(answer.logits) for answer in answers]


@pytest.mark.slow
def test_the_response_and_its_statistics_are_those_of_generate(scores, generated):
    lengths = [len(logits) for logits in generated]
    assert len(set(lengths)) >= 2  # responses do end early
    np.testing.assert_array_equal(scores.tokens.lengths, lengths)
    probabilities = torch.cat(generated).double().softmax(dim=1)
    top = probabilities.topk(2, dim=1).values.T
    entropy = torch.special.entr(probabilities).sum(dim=1)
    for found, wanted in zip(
        (scores.tokens.entropy, scores.tokens.top1, scores.tokens.top2), (entropy, *top), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_output_layer_makes_generates_logits_of_the_vectors_of_the_response(model, scores, generated):
    np.testing.assert_array_equal(scores.token_features.lengths, scores.tokens.lengths)
    with torch.inference_mode():
        logits = model.load().get_output_embeddings()(torch.from_numpy(np.array(scores.token_features.vectors)))
    np.testing.assert_allclose(logits, torch.cat(generated), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "position"), [(-1, "last"), (1, "mean"), (0, "weighted")])
def test_features_are_the_states_of_the_prompt(model, pool, tmp_path, layer, position):
    score(model, pool, Scorer(max_new_tokens=0, layer=layer, position=position), CPU, tmp_path)
    network = model.load()
    reader = network.get_encoder() if network.config.is_encoder_decoder else network
    wanted = []
    for ids in model.encode_prompts(model.load_tokenizer(), pool.prompts):
        with torch.inference_mode():
            states = reader(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0].numpy()
        weights = {"last": np.eye(len(ids))[-1], "mean": np.ones(len(ids)), "weighted": np.arange(len(ids)) + 1}
        wanted.append(np.average(states, axis=0, weights=weights[position]))
    np.testing.assert_allclose(load_scores(tmp_path).features, np.array(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("tokens_per_batch", [1, 10**6])
def test_padding_and_company_change_nothing(model, pool, scores, tmp_path, tokens_per_batch):
    score(model, pool, replace(SCORER, tokens_per_batch=tokens_per_batch), CPU, tmp_path)
    other = load_scores(tmp_path)
    np.testing.assert_array_equal(other.tokens.lengths, scores.tokens.lengths)
    for found, wanted in (
        (other.features, scores.features),
        (other.tokens.entropy, scores.tokens.entropy),
        (other.token_features.vectors, scores.token_features.vectors),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_output_layer_reads_one_position_of_each_prompt(model, pool, tmp_path, monkeypatch):
    """Logits of all positions of a prompt would take its length x vocabulary x 4 bytes."""
    seen = []
    load = Model.load

    def watched(self):
        network = load(self)
        network.get_output_embeddings().register_forward_pre_hook(lambda layer, args: seen.append(args[0].shape[:-1]))
        return network

    monkeypatch.setattr(Model, "load", watched)
    score(model, pool, Scorer(max_new_tokens=1, tokens_per_batch=10**6), CPU, tmp_path)
    assert sum(np.prod(shape) for shape in seen) == len(pool)


def test_vectors_of_the_prompt_are_refused_where_the_output_layer_reads_none(model):
    scorer = Scorer(token_features=TokenFeatureSpec("prompt"))
    if model.load_config().is_encoder_decoder:
        with pytest.raises(ValueError, match=r"encoder-decoder.*; set scorer.token_features.source=response"):
            check_scorer(model, scorer)
    else:
        check_scorer(model, scorer)

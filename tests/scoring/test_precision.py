"""16-bit models: logits and what is made of them in float32, and batches that belong to the key."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig

from aliquot.models.spec import Model
from aliquot.pools.spec import JsonlPool
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.decoding import give_float32_logits
from aliquot.scoring.run import load_scores, score
from aliquot.scoring.spec import Scorer, TokenFeatureSpec
from aliquot.stages import Prepare, Score
from aliquot.types import Pool
from tiny_model import FAMILIES, WORDS, save_tiny_model

CPU = TrainerSpec("cpu")
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
TOKENS = {"vocab_size": 28, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
CAP = 1.5
#: Families that do something to their logits behind the output layer.
SCALED = {
    "gemma2": Gemma2Config(**SHAPE, **TOKENS, num_key_value_heads=1, final_logit_softcapping=CAP),
    "cohere": CohereConfig(**SHAPE, **TOKENS, logit_scale=0.4),
    "granite": GraniteConfig(**SHAPE, **TOKENS, logits_scaling=3.0),
}
BEHIND = {
    "gemma2": lambda logits: CAP * torch.tanh(logits / CAP),
    "cohere": lambda logits: logits * 0.4,
    "granite": lambda logits: logits / 3.0,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    saved = {}

    def get(family, dtype):
        if family not in saved:
            saved[family] = save_tiny_model(
                tmp_path_factory.mktemp(family), family=family if family in FAMILIES else "llama"
            )
            if family in SCALED:
                with torch.random.fork_rng():
                    torch.manual_seed(1)
                    AutoModelForCausalLM.from_config(SCALED[family]).save_pretrained(saved[family])
        attention = "eager" if family == "gemma2" else "sdpa"  # which gemma2 has not
        return Model(str(saved[family]), dtype=dtype, attention=attention)

    return get


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(1, 16))) for _ in range(20)]
    return Pool("words", [str(i) for i in range(len(prompts))], prompts)


def scores_of(model, pool, directory, max_new_tokens=5):
    spec = TokenFeatureSpec("response", projection=10**6)
    score(model, pool, Scorer(max_new_tokens, tokens_per_batch=1, token_features=spec), CPU, directory)
    return load_scores(directory)


def statistics(logits):
    probabilities = logits.double().softmax(dim=1)
    return torch.stack([torch.special.entr(probabilities).sum(dim=1), *probabilities.topk(2, dim=1).values.T])


def read_by_the_output_layer(network, ids):
    """Return the state that Hugging Face's own forward gives the output layer for the first token of the response."""
    caught = []
    handle = network.get_output_embeddings().register_forward_pre_hook(lambda layer, args: caught.append(args[0]))
    start = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if network.config.is_encoder_decoder else {}
    with torch.inference_mode():
        logits = network(torch.tensor([ids]), **start).logits[0, -1]
    handle.remove()
    return caught[0][0, -1], logits


@pytest.mark.slow
@pytest.mark.parametrize("family", SCALED)
def test_in_32_bits_scaled_and_capped_logits_are_hugging_faces(models, pool, tmp_path, family):
    model = models(family, "float32")
    tokens = scores_of(model, pool, tmp_path, max_new_tokens=1).tokens
    network = model.load()
    ids = model.encode_prompts(model.load_tokenizer(), pool.prompts)
    logits = torch.stack([read_by_the_output_layer(network, prompt)[1] for prompt in ids])
    np.testing.assert_allclose([tokens.entropy, tokens.top1, tokens.top2], statistics(logits), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", [*FAMILIES, *SCALED])
def test_in_16_bits_the_output_layer_computes_in_32_from_the_models_own_states(models, pool, tmp_path, family, dtype):
    model = models(family, dtype)
    scores = scores_of(model, pool, tmp_path)
    network, states = model.load(), torch.from_numpy(np.array(scores.token_features.vectors))
    first = states[torch.from_numpy(scores.tokens.starts)]
    ids = model.encode_prompts(model.load_tokenizer(), pool.prompts)
    wanted = torch.stack([read_by_the_output_layer(network, prompt)[0] for prompt in ids])
    assert wanted.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(first, wanted.float())

    logits = states @ network.get_output_embeddings().weight.detach().float().T
    wanted = statistics(BEHIND.get(family, lambda logits: logits)(logits))
    found = [scores.tokens.entropy, scores.tokens.top1, scores.tokens.top2]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_in_16_bits_no_two_probabilities_are_equal_where_those_of_16_bit_logits_are(models, pool, tmp_path):
    model = models("qwen2", "bfloat16")
    scores = scores_of(model, pool, tmp_path, max_new_tokens=40)
    tokens, states = scores.tokens, torch.from_numpy(np.array(scores.token_features.vectors))
    with torch.inference_mode():
        top = model.load().get_output_embeddings()(states.bfloat16()).topk(2, dim=1).values
    assert (top[:, 0] == top[:, 1]).sum() >= 5
    assert (tokens.top1 == tokens.top2).sum() == 0


@pytest.mark.parametrize("family", ["gemma2", "t5"])
def test_embeddings_that_share_the_output_layers_weights_keep_theirs(models, family):
    network = models(family, "bfloat16").load()
    shared = network.get_input_embeddings().weight
    tied = shared is network.get_output_embeddings().weight
    give_float32_logits(network)
    assert tied
    assert network.get_input_embeddings().weight is shared
    assert (shared.dtype, network.get_output_embeddings().weight.dtype) == (torch.bfloat16, torch.float32)


def test_what_shares_a_batch_belongs_to_the_key_in_16_bits_and_not_in_32(models, tmp_path):
    source = Prepare(JsonlPool(str(tmp_path / "pool.jsonl")))
    (tmp_path / "pool.jsonl").write_text('{"prompt": "the cat sees a dog"}\n')

    def keys(dtype):
        sizes = [Scorer(tokens_per_batch=size) for size in (100, 200)]
        return {Score(models("llama", dtype), source, s, CPU, 9).key for s in sizes}

    assert (len(keys("float32")), len(keys("bfloat16")), len(keys("float16"))) == (1, 2, 2)
    assert not keys("bfloat16") & keys("float16")

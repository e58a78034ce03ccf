"""Which prompts are read together, and as which tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aliquot.models.spec import Model
from aliquot.scoring.batching import EncodedPrompts, encode, plan_batches, spans
from tiny_model import save_tiny_model


@pytest.mark.slow
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=200),
    num_new=st.integers(0, 16),
    budget=st.integers(1, 500),
)
def test_batches_hold_every_row_once_and_stay_within_the_budget(lengths, num_new, budget):
    lengths = np.array(lengths)
    batches = plan_batches(lengths, num_new, budget)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * (lengths[rows].max() + num_new) <= budget
    assert lengths[batches[0][0]] == lengths.max()
    bucketed = sorted(batches, key=lambda rows: (-lengths[rows].max(), -lengths[rows].min()))
    shortest, longest = [lengths[rows].min() for rows in bucketed], [lengths[rows].max() for rows in bucketed]
    assert all(low >= high for low, high in zip(shortest[:-1], longest[1:], strict=True))


def test_any_part_of_the_batches_is_like_the_whole_and_always_the_same():
    lengths = np.clip(np.random.default_rng(0).pareto(1.5, 20000) * 20 + 5, 5, 256).astype(np.int64)
    batches = plan_batches(lengths, 8, 2000)
    widths = [lengths[rows].max() for rows in batches]
    half = len(batches) // 2
    assert np.mean(widths[:half]) == pytest.approx(np.mean(widths[half:]), rel=0.3)
    assert all((one == other).all() for one, other in zip(batches, plan_batches(lengths, 8, 2000), strict=True))


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=20))
def test_spans_are_the_ranges_end_to_end(rows):
    starts, lengths = np.array(rows).T
    wanted = [i for start, length in rows for i in range(start, start + length)]
    assert spans(starts, lengths).tolist() == wanted


def test_padding_aligns_the_ends_or_the_beginnings():
    encoded = EncodedPrompts(np.array([5, 6, 7, 8, 9, 4], np.int32), np.array([2, 1, 3]), num_cut=0)
    tokens, mask = encoded.padded(np.array([2, 0]), 0, "left")
    assert tokens.tolist() == [[8, 9, 4], [0, 5, 6]]
    assert mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    tokens, mask = encoded.padded(np.array([2, 0]), 0, "right")
    assert tokens.tolist() == [[8, 9, 4], [5, 6, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))), template="{prompt}{response}")


def test_long_prompts_keep_their_end_and_are_counted(model, monkeypatch):
    monkeypatch.setattr("aliquot.scoring.batching._PROMPTS_AT_ONCE", 2)
    prompts = ["the cat", "the cat sees the dog", "the cat sees one", "one two three four dog bird"]
    tokenizer = model.load_tokenizer()
    encoded = encode(model, tokenizer, prompts, 4)
    assert encoded.num_cut == 2
    assert encoded.lengths.tolist() == [2, 4, 4, 4]
    assert encoded.tokens.tolist() == [token for ids in model.encode_prompts(tokenizer, prompts) for token in ids[-4:]]


def test_a_cut_prompt_keeps_the_token_that_texts_begin_with(tmp_path):
    model = Model(str(save_tiny_model(tmp_path, added="<s> $A </s>")), template="{prompt} {response}")
    tokenizer = model.load_tokenizer()
    encoded = encode(model, tokenizer, ["the cat", "the cat sees the old dog"], 4)
    rows = np.split(encoded.tokens, np.cumsum(encoded.lengths)[:-1])
    assert [tokenizer.decode(row) for row in rows] == ["<s> the cat", "<s> the old dog"]  # and no </s>
    assert tokenizer.decode(encode(model, tokenizer, ["the cat"], 1).tokens) == "cat"


def test_a_prompt_without_tokens_is_an_error_that_names_it(model):
    with pytest.raises(ValueError, match=r"prompt '' has no tokens in the template '\{prompt\}\{response\}'"):
        encode(model, model.load_tokenizer(), ["the cat", ""], 4)

"""Models of a few thousand random weights with a tokenizer of a few words, for tests that need any model at all."""

from pathlib import Path

WORDS = ["the", "a", "cat", "dog", "bird", "fox", "sees", "likes", "eats", "finds", "big", "red", "small", "old"]
WORDS += ["one", "two", "three", "four", "Answer", ":", "?", "."]
_SPECIALS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

#: The families that are supported; t5 stands for all encoder-decoders.
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "t5")
_T5 = ("t5", "switch_transformers")  # the latter with a few experts, which read tokens from all rows
#: Families that keep a recurrent state, some in every layer, some in a part of them.
_MIXED = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "num_key_value_heads": 2}
_DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_RECURRENT = {
    "mamba": {},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "rwkv": {"attention_hidden_size": 32},
    "falcon_h1": {**_MIXED, "mamba_d_ssm": 64},
    "bamba": {**_MIXED, "attn_layer_indices": [1]},
    "qwen3_5_text": {
        **_DELTA,
        "layer_types": ["linear_attention", "full_attention"],
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
}


def save_tiny_model(directory: Path, seed: int = 0, added: str = "$A", family: str = "llama") -> Path:
    """Save model and tokenizer; `added` says what the tokenizer puts around a text, for example "<s> $A".

    T5's tokenizer ends every text with "</s>", whatever else is added; Qwen2's adds nothing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    if family in _T5 and not added.endswith("</s>"):
        added += " </s>"
    # transformers reads every tokenizer of a qwen2 as one of bytes.
    tokenizer = _byte_tokenizer() if family == "qwen2" else _word_tokenizer(added)
    tokenizer.save_pretrained(directory)
    config = _config(family, len(tokenizer))
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind.from_config(config).save_pretrained(directory)
    return directory


def _word_tokenizer(added: str):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*_SPECIALS.values(), "\n", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=added, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIALS)


def _byte_tokenizer():
    """Return a tokenizer that builds every word letter by letter, and last puts the space before it."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    merges = {(word[:end], word[end]): None for word in WORDS for end in range(1, len(word))}
    merges |= {("\u0120", word): None for word in WORDS}
    tokens = [*_SPECIALS.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return Qwen2Tokenizer(vocab=vocabulary, merges=list(merges), **_SPECIALS)


def _config(family: str, vocab_size: int):
    from transformers import AutoConfig

    options = {"vocab_size": vocab_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if family == "switch_transformers":
        options |= {"num_experts": 4, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    if family in _T5:
        options |= {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
        return AutoConfig.for_model(family, feed_forward_proj="gated-gelu", decoder_start_token_id=0, **options)
    options["initializer_range"] = 0.3
    if family == "gpt2":
        return AutoConfig.for_model("gpt2", n_embd=32, n_layer=2, n_head=2, n_positions=256, **options)
    if family == "bart":
        options |= {
            "d_model": 32,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
        }
        options |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 2}
        return AutoConfig.for_model("bart", max_position_embeddings=256, init_std=0.3, **options)
    if family == "opt":
        options |= {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.3}
    options |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family in ("mistral", "qwen2", "qwen3"):
        options["num_key_value_heads"] = 1
    if family == "qwen3":
        options["head_dim"] = 16
    if family in _RECURRENT:
        options |= _RECURRENT[family]
    return AutoConfig.for_model(family, max_position_embeddings=256, **options)

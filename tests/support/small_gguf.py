"""Write a small model of transformers as a file in GGUF, the way llama.cpp's converter does."""

from pathlib import Path

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, TokenType, get_tensor_name_map
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

#: What llama.cpp calls a family, and the split of its text.
_ARCHITECTURES = {"mistral": "llama"}
_SPLITS = {"qwen2": "qwen2", "qwen3": "qwen2", "gpt2": "gpt-2", "llama": "smollm", "mistral": "smollm", "phi3": "gpt-2"}
_SPLITS |= {"starcoder2": "starcoder", "stablelm": "gpt-2"}


def write_gguf(directory: Path, file: Path, extra: str | None = None, **facts: str | float) -> Path:
    """Write the model and the tokenizer of a directory.

    `extra` names one more tensor, of ones; `facts` are further metadata, with `__` for a dot.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory)
    family = config.model_type
    architecture = _ARCHITECTURES.get(family, family)
    writer = GGUFWriter(file, architecture)
    _add_config(writer, config)
    _add_tokenizer(writer, AutoTokenizer.from_pretrained(directory), family)
    for name, value in facts.items():
        key = name.replace("__", ".")
        writer.kv_data[0].pop(key, None)
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    network = kind.from_pretrained(directory)
    for name, weights in _tensors(network, architecture):
        writer.add_tensor(name, weights)
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "llama3":
        scaled = network.model.rotary_emb.inv_freq.numpy()
        plain = config.rope_parameters["rope_theta"] ** -(np.arange(len(scaled)) / len(scaled))
        writer.add_tensor("rope_freqs.weight", (plain / scaled).astype(np.float32))
    if extra:
        writer.add_tensor(extra, np.ones(config.hidden_size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_config(writer: GGUFWriter, config) -> None:
    text = config.get_text_config()
    heads = text.num_attention_heads
    rope = getattr(text, "rope_parameters", None)
    writer.add_context_length(getattr(text, "max_position_embeddings", 512))
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(
        getattr(text, "intermediate_size", None) or getattr(text, "d_ff", 4 * text.hidden_size)
    )
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(text, "num_key_value_heads", heads))
    writer.add_vocab_size(text.vocab_size)
    if hasattr(text, "rms_norm_eps"):
        size = getattr(text, "head_dim", None) or text.hidden_size // heads
        writer.add_layer_norm_rms_eps(text.rms_norm_eps)
        writer.add_key_length(size)
        writer.add_value_length(size)
    else:
        size = text.hidden_size // heads
        names = ("layer_norm_epsilon", "norm_epsilon", "layer_norm_eps")
        writer.add_layer_norm_eps(next(getattr(text, name) for name in names if hasattr(text, name)))
    if rope:
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_rope_dimension_count(int(size * rope.get("partial_rotary_factor", 1.0)))
    if window := getattr(text, "sliding_window", None):
        writer.add_sliding_window(window)
    if text.model_type == "t5":
        writer.add_key_length(text.d_kv)
        writer.add_relative_attn_buckets_count(text.relative_attention_num_buckets)
        writer.add_decoder_block_count(text.num_decoder_layers)
        writer.add_decoder_start_token_id(text.decoder_start_token_id)


def _add_tokenizer(writer: GGUFWriter, tokenizer, family: str) -> None:
    import json

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    special = set(tokenizer.all_special_tokens)
    pieces = state["model"].get("byte_fallback", False)  # as sentencepiece has them
    unigram = state["model"]["type"] == "Unigram"
    writer.add_tokenizer_model("t5" if unigram else "llama" if pieces else "gpt2")
    writer.add_token_list(tokens)
    kinds = dict.fromkeys(tokens, TokenType.NORMAL)
    if pieces:
        kinds |= {token: TokenType.BYTE for token in tokens if token.startswith("<0x")}
        kinds |= {str(added): TokenType.USER_DEFINED for added in tokenizer.added_tokens_decoder.values()}
    writer.add_token_types([TokenType.CONTROL if token in special else kinds[token] for token in tokens])
    if unigram:
        writer.add_token_scores([score for _, score in state["model"]["vocab"]])
    elif pieces:
        ranks = {"".join(merge): -float(rank) for rank, merge in reversed(list(enumerate(state["model"]["merges"])))}
        writer.add_token_scores([ranks.get(token, -1e4) for token in tokens])
    else:
        writer.add_tokenizer_pre(_SPLITS[family])
        writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id or 0)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _tensors(network, architecture: str):
    """Yield names and weights, arranged as llama.cpp has them; a tied output layer is left out."""
    arch = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(arch, network.config.num_hidden_layers)
    state = network.state_dict()
    tied = {key for key, other in network.all_tied_weights_keys.items() if state[key].equal(state[other])}
    for key, tensor in state.items():
        if key in tied:
            continue
        weights = tensor.float().numpy()
        if arch == MODEL_ARCH.LLAMA and ("q_proj" in key or "k_proj" in key):
            config = network.config
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
            weights = halves.swapaxes(1, 2).reshape(weights.shape)
        if arch == MODEL_ARCH.GPT2 and key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            weights = weights.T
        yield names.get_name(key, try_suffixes=(".weight", ".bias")), np.ascontiguousarray(weights)

"""A LLaMA of a few thousand random weights with a word tokenizer, for tests that need any model at all."""

from pathlib import Path

WORDS = ["the", "a", "cat", "dog", "bird", "fox", "sees", "likes", "eats", "finds", "big", "red", "small", "old"]
WORDS += ["one", "two", "three", "four", "Answer", ":", "?", "."]


def save_tiny_model(directory: Path, seed: int = 0, added: str = "$A") -> Path:
    """Save model and tokenizer; `added` says what the tokenizer puts around a text, for example "<s> $A"."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "\n", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=added, special_tokens=ends)
    specials = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials).save_pretrained(directory)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=128, initializer_range=0.3, **shape)
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(directory)
    return directory

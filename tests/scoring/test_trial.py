"""A model is tried before anything is paid for: what the pass would read wrongly is refused by name."""

import json
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from aliquot.models.spec import Model
from aliquot.models.template import OVERLONG
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.kv_cache import CausalContext
from aliquot.scoring.spec import Scorer, TokenFeatureSpec
from aliquot.scoring.trial import Trial
from aliquot.scoring.trial_reading import try_model
from aliquot.store.store import Store
from tiny_model import FAMILIES, save_tiny_model

SCORER = Scorer(max_new_tokens=4)


def saved(tmp_path, family, **options):
    return Model(str(save_tiny_model(tmp_path, family=family)), **options)


def refusal(model, scorer=SCORER):
    with pytest.raises(ValueError, match=r"model.path=") as error:
        try_model(model, scorer, "cpu")
    return str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", [*FAMILIES, "bart", "opt", "falcon_h1", "bamba", "qwen3_5_text"])
def test_families_that_the_pass_reads_well_pass(tmp_path, family, dtype):
    model = saved(tmp_path, family, dtype=dtype)
    model.check()
    for scorer in (
        SCORER,
        Scorer(0),
        replace(SCORER, layer=1, position="mean", token_features=TokenFeatureSpec("response")),
    ):
        agreement = try_model(model, scorer, "cpu")
        assert max(agreement.values()) < (1e-3 if dtype == "float32" else 0.1)
        assert any("statistics" in name for name in agreement) == bool(scorer.max_new_tokens)


@pytest.mark.parametrize("family", ["mamba", "mamba2", "rwkv"])
def test_families_without_a_cache_of_keys_and_values_are_refused_before_their_weights_are_read(tmp_path, family):
    with pytest.raises(ValueError, match=f"is a {family}, which reads no padded batches .* choose another family"):
        Model(str(save_tiny_model(tmp_path, family=family))).check()


@pytest.mark.slow
def test_a_model_that_looks_ahead_is_refused(tmp_path):
    """An encoder, such as BERT, that nobody told to be a decoder: every token it generates changes those before."""
    from transformers import AutoConfig, AutoModelForCausalLM

    save_tiny_model(tmp_path)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("ernie", vocab_size=27, initializer_range=0.3, pad_token_id=0, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    told = refusal(Model(str(tmp_path)))
    assert "a ernie: the " in told
    assert "by the pass and by transformers without cache and padding, differ by 0." in told


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_padding_that_shows_in_the_signals_is_found(tmp_path, family, dtype, monkeypatch):
    build = CausalContext.__init__

    def careless(self, network, mask, room):
        build(self, network, torch.ones_like(mask), room)

    monkeypatch.setattr(CausalContext, "__init__", careless)
    told = refusal(saved(tmp_path, family, dtype=dtype))
    assert f"a {family}: the features of prompt 1 of 3, read alone and in one padded batch of unequal lengths" in told


@pytest.mark.slow
def test_whatever_a_network_raises_is_told_in_one_line(tmp_path, monkeypatch):
    def fail(self, tokens, **options):
        raise KeyError("state\nand more")

    monkeypatch.setattr(CausalContext, "read", fail)
    told = refusal(saved(tmp_path, "llama"))
    assert "a llama, cannot be read by the scoring pass: KeyError" in told
    assert "\n" not in told


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, value, dtype):
    model = saved(tmp_path, "llama", dtype=dtype)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = value
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert "1 of its 21 weights hold values that are infinite or not a number (model.layers.1.mlp.up_" in refusal(model)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "factor"), [("mlp.down_proj", 6e4), ("input_layernorm", 1e6)])
def test_numbers_that_float16_cannot_hold_are_told_with_a_type_that_can(tmp_path, name, factor):
    model = saved(tmp_path, "llama", dtype="float16")
    weights = load_file(tmp_path / "model.safetensors")
    weights[f"model.layers.0.{name}.weight"] *= factor
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert "float16 holds no number beyond 65,504: set model.dtype=bfloat16" in refusal(model)
    assert try_model(replace(model, dtype="bfloat16"), SCORER, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("overlong", OVERLONG)
def test_a_prompt_longer_than_the_model_may_read_is_cut_for_the_trial(tmp_path, overlong):
    model = saved(tmp_path, "llama", max_tokens=6, overlong=overlong)
    assert try_model(model, SCORER, "cpu")


@pytest.mark.slow
def test_the_memory_of_the_model_is_free_after_the_trial(tmp_path, monkeypatch):
    load, loaded = Model.load, []

    def watched(self):
        network = load(self)
        loaded.append(weakref.ref(network))
        return network

    monkeypatch.setattr(Model, "load", watched)
    try_model(saved(tmp_path, "llama"), SCORER, "cpu")
    assert [network() for network in loaded] == [None]


@pytest.mark.slow
def test_it_is_tried_once_for_a_model_a_scorer_and_versions_of_libraries(tmp_path, monkeypatch):
    model, store = saved(tmp_path / "model", "llama"), Store(tmp_path / "store")
    trial = Trial(model, SCORER, TrainerSpec("cpu"))
    first = store.get(trial)
    monkeypatch.setattr(Model, "load", None)
    assert store.get(trial) == first
    others = [replace(trial, scorer=replace(SCORER, layer=0)), replace(trial, model=replace(model, dtype="bfloat16"))]
    monkeypatch.setattr("aliquot.scoring.trial.versions", lambda names: dict.fromkeys(names, "0"))
    others.append(replace(trial))
    assert len({trial.key, *(other.key for other in others)}) == 4
    assert store.record(others[-1]) is None


def test_a_model_that_is_not_here_or_too_large_to_be_looked_at_in_passing_is_left_to_the_scoring(tmp_path, monkeypatch):
    model = saved(tmp_path, "llama")
    trial = Trial(model, SCORER, TrainerSpec("cpu"))
    assert trial.obstacle() is None
    assert "there is no hpu on this machine" in str(replace(trial, trainer=TrainerSpec("hpu")).obstacle())
    hub = replace(model, path="org/name", revision="a" * 40)
    assert "its weights are not on this machine yet" in str(replace(trial, model=hub).obstacle())
    monkeypatch.setattr(Model, "size_here", lambda self: 10**15)
    assert "its weights take 1000000 GB" in str(trial.obstacle())


@pytest.fixture
def broken(tmp_path):
    """Overrides that choose a model one weight of which is not a number."""
    folder = save_tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return "model=hf", f"model.path={folder}", "model.max_tokens=256"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_nothing_is_chosen_or_bought_for_a_model_that_fails_the_trial(run, broken, tmp_path):
    for strategy in ("random", "facility_location"):
        with pytest.raises(ValueError, match=r"1 of its 21 weights hold values .*model.norm.weight"):
            run(f"strategy={strategy}", *broken)
    made = {path.name for path in (tmp_path / "store").iterdir()}
    assert not {"annotate", "select", "score"} & made
    (error,) = (tmp_path / "store").glob("trial/*/error.txt")
    assert "Traceback" in error.read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_check_tries_the_model_once_and_says_where_it_could_not(run, broken, tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match="weights hold values"):
        run("check=true", *broken)
    run("check=true", *broken, "trainer.accelerator=hpu")
    assert f"Not tried: {tmp_path / 'model'}, because there is no hpu on this machine" in capsys.readouterr().out
    run("check=true")
    assert (
        "Tried: pkg://aliquot.demo/model reads prompts alone and in one batch alike, up to " in capsys.readouterr().out
    )
    monkeypatch.setattr(Model, "load_config", None)  # whatever imports transformers
    run("check=true")
    assert "everything is in order" in capsys.readouterr().out
    assert len(list((tmp_path / "store").glob("trial/*/stage.json"))) == 1


@pytest.mark.slow
def test_a_choice_that_reads_no_model_needs_no_trial(run, broken, tmp_path):
    run("strategy=random", "until=annotate", *broken)
    assert not (tmp_path / "store" / "trial").exists()


@pytest.mark.slow
def test_what_was_measured_lies_in_the_store(tmp_path):
    trial = Trial(saved(tmp_path / "model", "llama"), SCORER, TrainerSpec("cpu"))
    store = Store(tmp_path / "store")
    store.ensure(trial)
    found = json.loads((store.directory(trial) / "agreement.json").read_text())
    assert len(found) == 18  # two views and the statistics, two comparisons, three prompts
    assert all(0 <= by < 1e-4 for by in found.values())

"""Evaluation: lm-eval's scores against plain transformers, one question at a time."""

import json
import logging
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import small_recipe
from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.run import evaluate, load_result
from aliquot.finetuning.run import finetune
from aliquot.models.spec import Model
from aliquot.types import AnnotatedSet
from small_recipe import CPU
from tiny_model import WORDS, save_tiny_model
from tiny_tasks import read_task, save_tiny_tasks

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, called here
RECIPE = replace(
    small_recipe.RECIPE,
    dropout=0.0,
    learning_rate=2e-2,
    warmup=0.0,
    schedule="constant",
    epochs=3,
    tokens_per_batch=200,
    accumulate=1,
    checkpoint_every=1000,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(str(save_tiny_model(tmp_path_factory.mktemp("model"))), template="{prompt} Answer : {response}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    return save_tiny_tasks(tmp_path_factory.mktemp("tasks"), lambda question: generate(model, question))


@pytest.fixture(scope="module")
def benchmark_(folder):
    return Benchmark(["pick", "say"], str(folder), batch_size=8)


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory):
    draw = random.Random(1)
    prompts = [" ".join(draw.choices(WORDS[:16], k=draw.randint(3, 9))) for _ in range(60)]
    rows = AnnotatedSet([str(i) for i in range(60)], prompts, [p.split()[0] for p in prompts])
    return finetune(model, rows, RECIPE, CPU, tmp_path_factory.mktemp("adapter"))


def generate(model, question, network=None):
    """Decode greedily by full forward passes, without cache or padding."""
    import torch

    tokenizer, network = model.load_tokenizer(), network or model.load()
    ids = tokenizer(f"{question} Answer :")["input_ids"]
    start, stop = len(ids), tokenizer.convert_tokens_to_ids(".")
    for _ in range(4):
        with torch.no_grad():
            ids.append(int(network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in (tokenizer.eos_token_id, stop):
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True).split(".")[0].strip()


def choose(model, network, question, choices):
    """Pick the choice with the largest summed log-likelihood, each by its own forward pass."""
    import torch

    tokenizer, scores = model.load_tokenizer(), []
    for choice in choices:
        before = tokenizer(f"{question} Answer :")["input_ids"]
        ids = tokenizer(f"{question} Answer : {choice}")["input_ids"]
        with torch.no_grad():
            log_probabilities = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(float(log_probabilities[t - 1, ids[t]]) for t in range(len(before), len(ids))))
    return int(np.argmax(scores))


@pytest.mark.slow
def test_scores_are_those_of_plain_transformers_question_by_question(model, folder, benchmark_, adapter, tmp_path):
    from peft import PeftModel

    for network, given in ((model.load(), None), (PeftModel.from_pretrained(model.load(), adapter.path), adapter)):
        found = evaluate(model, given, benchmark_, CPU, tmp_path)
        for name in ("pick_a", "pick_b"):
            rows = read_task(folder, name)
            expected = [float(choose(model, network, row["question"], row["choices"]) == row["gold"]) for row in rows]
            assert found.correct[name] == expected
        said = [float(generate(model, row["question"], network) == row["answer"]) for row in read_task(folder, "say")]
        assert found.correct["say"] == said
        assert 0 < sum(found.correct["pick_a"]) < 21


@pytest.mark.slow
def test_a_group_counts_each_question_once(model, benchmark_, tmp_path):
    result = evaluate(model, None, benchmark_, CPU, tmp_path)
    pick, say = result.metrics
    pooled = result.correct["pick_a"] + result.correct["pick_b"]
    assert (pick.name, pick.num_questions, say.num_questions) == ("pick", 30, 15)
    assert pick.value == pytest.approx(np.mean(pooled))
    assert pick.stderr == pytest.approx(np.std(pooled, ddof=1) / np.sqrt(30))
    assert load_result(tmp_path) == result
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["task_versions"] == {"pick_a": 3.0, "pick_b": 3.0, "say": 3.0}
    assert record["num_fewshot"] == {"pick_a": 0, "pick_b": 0, "say": 0}
    assert (record["limit"], record["batch_size"]) == (None, 8)
    assert record["lm_eval"].startswith("0.")


def test_merged_and_separate_adapters_give_the_same_logits(model, adapter):
    import torch
    from peft import PeftModel

    from aliquot.finetuning.adapter import load_finetuned

    ids = torch.arange(20)[None]
    with torch.no_grad():
        merged = load_finetuned(model, adapter)(input_ids=ids).logits
        separate = PeftModel.from_pretrained(model.load(), adapter.path)(input_ids=ids).logits
        base = model.load()(input_ids=ids).logits
    torch.testing.assert_close(merged, separate, atol=1e-4, rtol=1e-4)
    assert (merged - base).abs().max() > 0.1


@pytest.mark.slow
def test_in_16_bits_the_adapter_stays_apart_and_in_use(model, adapter, benchmark_, tmp_path):
    from aliquot.finetuning.adapter import load_finetuned

    half = replace(model, dtype="bfloat16")
    base = str(half.identity()["weights"])
    network = load_finetuned(half, replace(adapter, base=base))
    assert any("lora_B" in name for name, _ in network.named_parameters())
    assert type(network) is type(half.load())  # its own forward, which takes positions by name
    found = evaluate(half, replace(adapter, base=base), benchmark_, CPU, tmp_path / "half").correct
    full = evaluate(model, adapter, benchmark_, CPU, tmp_path / "full").correct
    agree = [one == other for task in full for one, other in zip(found[task], full[task], strict=True)]
    assert np.mean(agree) > 0.8


def test_an_adapter_that_is_not_in_use_is_an_error(model, adapter, tmp_path):
    from safetensors.numpy import load_file, save_file

    from aliquot.finetuning.adapter import load_finetuned

    broken = replace(adapter, path=tmp_path)
    (tmp_path / "adapter_config.json").write_text((adapter.path / "adapter_config.json").read_text())
    tensors = load_file(adapter.path / "adapter_model.safetensors")
    save_file({k: w * ("lora_B" in k) for k, w in tensors.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="changes no logit"):
        load_finetuned(model, broken)
    save_file({k: w * ("lora_A" in k) for k, w in tensors.items()}, tmp_path / "adapter_model.safetensors")
    load_finetuned(model, broken)  # B = 0: never trained, rightly without effect
    save_file({f"other.{k}": w for k, w in tensors.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="does not fit the layers"):
        load_finetuned(model, broken)
    with pytest.raises(ValueError, match="was trained on model 0000"):
        load_finetuned(model, replace(adapter, base="0000"))


@pytest.mark.slow
def test_limit_takes_the_first_questions(model, benchmark_, tmp_path):
    whole = evaluate(model, None, benchmark_, CPU, tmp_path / "whole")
    short = evaluate(model, None, replace(benchmark_, limit=4), CPU, tmp_path / "short")
    assert short.correct == {task: correct[:4] for task, correct in whole.correct.items()}


@pytest.mark.slow
def test_fewshot_examples_change_the_prompt_reproducibly(model, folder, tmp_path):
    yaml = (folder / "pick_a.yaml").read_text().replace("task: pick_a", "task: pick_few")
    (tmp_path / "pick_few.yaml").write_text(yaml + "fewshot_split: test\n")
    for name in ("load.py", "pick_a.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text())
    few = Benchmark(["pick_few"], str(tmp_path), num_fewshot=2)
    one, other = (evaluate(model, None, few, CPU, tmp_path / name).correct for name in "ab")
    assert one == other
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["num_fewshot"] == {"pick_few": 2}
    most = replace(few, num_fewshot=20, limit=1)  # of 21 questions, one is asked
    evaluate(model, None, most, CPU, tmp_path / "c")
    with pytest.raises(ValueError, match=r"num_fewshot=21: task 'pick_few' has 20 worked examples; give 20 at most"):
        evaluate(model, None, replace(most, num_fewshot=21), CPU, tmp_path / "d")
    assert not list((tmp_path / "d").rglob("*.json"))


@pytest.mark.slow
def test_the_data_of_every_task_is_recorded_by_its_content(model, tmp_path):
    def data(name, text):
        folder = save_tiny_tasks(tmp_path / name, lambda question: text)
        evaluate(model, None, Benchmark(["pick", "say"], str(folder)), CPU, tmp_path / f"{name} done")
        return json.loads((tmp_path / f"{name} done" / "metrics.json").read_text())["task_data"]

    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    one, same, other = data("a", "x"), data("b", "x"), data("c", "y")
    assert set(one) == {"pick_a", "pick_b", "say"} and len(set(one.values())) == 3
    assert one == same
    assert {task for task in one if one[task] != other[task]} == {"say"}


@pytest.mark.slow
def test_evaluation_leaves_the_process_as_it_was(model, benchmark_, caplog, capfd, tmp_path):
    import datasets
    import torch

    from aliquot.evaluation.harness.model import HarnessModel
    from aliquot.evaluation.harness.questions import answer_questions
    from aliquot.evaluation.harness.quiet import undisturbed

    tokenizer = model.load_tokenizer()
    tokenizer.padding_side = "right"
    network = model.load()

    def states():
        levels = {name: logging.getLogger(name).level for name in ("", "lm_eval", "transformers", "datasets")}
        draws = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
        filters = [*logging.getLogger("lm_eval.api.task").filters]
        torch_state = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), network.training
        bars = datasets.utils.are_progress_bars_disabled()
        return draws, levels, dict(os.environ), tokenizer.padding_side, torch_state, bars, filters

    before = states()
    capfd.readouterr()
    with caplog.at_level(logging.WARNING):  # not `evaluate`: the checks of types in these tests draw random numbers
        with undisturbed():
            lm = HarnessModel(network, tokenizer, 8)
        answer_questions(lm, benchmark_, tmp_path / "tasks")
    assert states() == before
    assert caplog.text == ""
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["evaluate pick", "evaluate say"]


def test_unknown_tasks_and_folders_are_refused_with_what_there_is(benchmark_):
    with pytest.raises(ValueError, match=r"unknown task 'pik'; tasks in .*: pick.*say"):
        replace(benchmark_, tasks=["pik", "say"]).check()
    with pytest.raises(ValueError, match=r"evaluate.include=/nowhere: /nowhere is not a directory"):
        replace(benchmark_, include="/nowhere").check()
    with pytest.raises(ValueError, match="must be a list of distinct names"):
        replace(benchmark_, tasks="pick")
    with pytest.raises(ValueError, match=r"evaluate.limit=0 is too small; give at least 1"):
        replace(benchmark_, limit=0)


def test_a_task_without_right_or_wrong_is_refused(model, folder, tmp_path):
    yaml = (folder / "say.yaml").read_text().replace("exact_match", "bleu")
    (tmp_path / "say.yaml").write_text(yaml)
    for name in ("load.py", "say.jsonl"):
        (tmp_path / name).write_text((folder / name).read_text())
    with pytest.raises(ValueError, match=r"task 'say' measures bleu; .* measures acc or exact_match"):
        evaluate(model, None, Benchmark(["say"], str(tmp_path)), CPU, tmp_path)


def test_identity_follows_the_content_of_the_folder_not_its_place(benchmark_, folder, tmp_path):
    for path in (path for path in folder.iterdir() if path.is_file()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    moved = replace(benchmark_, include=str(tmp_path))
    assert moved.identity() == benchmark_.identity()
    (tmp_path / "say.jsonl").write_text("")
    assert moved.identity() != benchmark_.identity()
    assert replace(benchmark_, batch_size=9).identity() != benchmark_.identity()


@pytest.mark.slow
def test_real_model_scores_on_the_demo_tasks(real_data, tmp_path):
    model = Model(str(real_data / "models" / "tinystories-656k-llama"))
    demo = Benchmark(["demo_mmlu", "demo_bbh"], "pkg://aliquot.demo/tasks", limit=1)
    mmlu, bbh = evaluate(model, None, demo, CPU, tmp_path).metrics
    assert (mmlu.num_questions, bbh.num_questions) == (57, 27)
    assert Path(tmp_path / "correct.json").exists()

"""Evaluation cut off and taken up again, in the cheapest way, with the adapter in use, and by vLLM."""

import inspect
import json
import os
import re
import signal
import sys
import time
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.run import check_evaluable, evaluate
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from aliquot.types import Adapter
from command_line import Command
from tiny_model import save_tiny_model
from tiny_tasks import record_answers, save_tiny_tasks

CPU = TrainerSpec("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, called here


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A causal model and an encoder-decoder, both of random weights, and tasks for them."""
    causal = save_tiny_model(tmp_path_factory.mktemp("llama"))
    t5 = save_tiny_model(tmp_path_factory.mktemp("t5"), family="t5")
    tasks = save_tiny_tasks(tmp_path_factory.mktemp("tasks"), lambda question: "the cat")
    return types.SimpleNamespace(causal=Model(str(causal)), t5=Model(str(t5)), tasks=tasks)


@pytest.fixture
def asked(monkeypatch):
    return record_answers(monkeypatch)


STOPPED = """
import sys, time
from pathlib import Path
from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.run import check_evaluable, evaluate
from aliquot.evaluation.harness.model import HarnessModel
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec

model, tasks, directory = sys.argv[1:]
call = HarnessModel._model_call

def slow(self, *args, **kwargs):
    if (Path(directory) / "tasks" / "pick_a.json").exists():
        time.sleep(600)
    return call(self, *args, **kwargs)

HarnessModel._model_call = slow
evaluate(Model(model), None, Benchmark(["pick", "say"], tasks, batch_size=4), TrainerSpec("cpu"), Path(directory))
"""


@pytest.mark.slow
def test_killed_and_taken_up_again_it_loses_only_the_task_it_was_in(tiny, asked, tmp_path, capfd):
    benchmark = Benchmark(["pick", "say"], str(tiny.tasks), batch_size=4)
    undisturbed = evaluate(tiny.causal, None, benchmark, CPU, tmp_path / "undisturbed")
    record = (tmp_path / "undisturbed" / "metrics.json").read_text()
    words = ("-c", STOPPED, tiny.causal.path, tiny.tasks, tmp_path / "killed")
    scratch = {**os.environ, "TMPDIR": str(tmp_path)}  # a kill leaves its scratch folder
    process = Command(*words, cwd=tmp_path, environment=scratch)
    done = tmp_path / "killed" / "tasks" / "pick_a.json"
    started = time.monotonic()
    while not done.exists():
        assert process.poll() is None and time.monotonic() - started < 300  # a busy machine
        time.sleep(0.05)
    time.sleep(0.3)  # it is now in pick_b
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in done.parent.iterdir()] == ["pick_a.json"]
    asked.clear()
    capfd.readouterr()
    assert evaluate(tiny.causal, None, benchmark, CPU, tmp_path / "killed") == undisturbed
    assert sorted(asked) == ["pick_b", "say"]
    assert (tmp_path / "killed" / "metrics.json").read_text() == record
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["correct.json", "metrics.json"]
    assert "evaluate pick" in (said := capfd.readouterr().err) and "30/30 questions" in said


def count_rows(monkeypatch, lm):
    """Count the positions that go through the network."""
    counts = []
    forward = lm.model.forward

    def counted(input_ids=None, **kwargs):
        counts.append(tuple(input_ids.shape))
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(lm.model, "forward", counted)
    return counts


@pytest.mark.slow
def test_one_pass_answers_all_choices_and_worked_examples_are_read_once(long_model, real_data, monkeypatch, tmp_path):
    from aliquot.evaluation.harness.model import HarnessModel
    from aliquot.evaluation.harness.questions import answer_questions
    from aliquot.evaluation.harness.quiet import undisturbed

    benchmark = Benchmark(["mmlu_astronomy"], data=str(real_data), num_fewshot=5, limit=12, batch_size=4)
    answers, shapes, outputs = {}, {}, {}
    for reuse in (False, True):
        with undisturbed():
            lm = HarnessModel(long_model.load(), long_model.load_tokenizer(), 4, reuse=reuse)
        shapes[reuse] = count_rows(monkeypatch, lm)
        ask = lm.loglikelihood
        lm.loglikelihood = lambda requests, ask=ask, reuse=reuse: outputs.setdefault(reuse, ask(requests))
        answers[reuse] = answer_questions(lm, benchmark, tmp_path / str(reuse))
    assert answers[True] == answers[False]
    assert [one[0] for one in outputs[True]] == pytest.approx([other[0] for other in outputs[False]], abs=1e-4)
    plain, reused = (sum(rows * columns for rows, columns in shapes[reuse]) for reuse in (False, True))
    assert sum(rows for rows, _ in shapes[False]) == 12  # four choices, one row
    assert [rows for rows, _ in shapes[True]] == [1, 4, 4, 4]  # the examples, then three batches
    assert reused < plain / 3


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gpt2", "gpt_neox"])
def test_a_shared_beginning_is_read_once_and_changes_no_answer(family, monkeypatch, tmp_path):
    from aliquot.evaluation.harness.model import HarnessModel
    from aliquot.evaluation.harness.quiet import undisturbed

    model = Model(str(save_tiny_model(tmp_path, family=family)))
    context = [5 + i % 20 for i in range(80)]
    requests = [(("", ""), context, [5]), (("", ""), [*context, 9, 4], [6, 8])]  # one is the beginning of the other
    with undisturbed():
        reusing, plain = (HarnessModel(model.load(), model.load_tokenizer(), 4, reuse=r) for r in (True, False))
        shapes = count_rows(monkeypatch, reusing)
        found, expected = (lm._loglikelihood_tokens(requests, disable_tqdm=True) for lm in (reusing, plain))
    assert [one[0] for one in found] == pytest.approx([other[0] for other in expected], abs=1e-4)
    assert shapes[0] == (1, 79) and (family == "mistral" or shapes[1][1] < 10)  # mistral forgets: no reuse


@pytest.mark.slow
def test_generation_ends_when_all_answers_have_ended(tiny, monkeypatch, tmp_path):
    from aliquot.evaluation.harness.model import HarnessModel
    from aliquot.evaluation.harness.quiet import undisturbed

    with undisturbed():
        lm = HarnessModel(tiny.causal.load(), tiny.causal.load_tokenizer(), 8)
    free = lm._model_generate(context_of(lm), max_length=60, stop=["</s>"], attention_mask=None)[0].tolist()
    ended = lm._model_generate(context_of(lm), max_length=60, stop=[lm.tok_decode([free[8]])], attention_mask=None)
    assert ended.shape[1] <= 9 < len(free)


def context_of(lm):
    import torch

    return torch.tensor([lm.tok_encode("the cat sees")], device=lm.device)


@pytest.mark.slow
def test_evaluation_records_by_how_much_the_adapter_matters(tiny, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    fresh = get_peft_model(tiny.causal.load(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    fresh.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    base = str(tiny.causal.identity()["weights"])
    benchmark = Benchmark(["say"], str(tiny.tasks), limit=2)
    effects = []
    for _ in range(2):
        evaluate(tiny.causal, Adapter(tmp_path / "adapter", base, 1, 0.0), benchmark, CPU, tmp_path / "result")
        effects.append(json.loads((tmp_path / "result" / "metrics.json").read_text())["adapter_effect"])
        file = tmp_path / "adapter" / "adapter_model.safetensors"
        save_file({name: w + 0.05 * ("lora_B" in name) for name, w in load_file(file).items()}, file)
    untrained, trained = effects
    assert untrained == pytest.approx(0, abs=1e-4) and abs(trained) > 1e-2
    evaluate(tiny.causal, None, benchmark, CPU, tmp_path / "base")
    assert json.loads((tmp_path / "base" / "metrics.json").read_text())["adapter_effect"] is None


def test_each_method_that_is_overridden_is_one_that_lm_eval_has_and_calls():
    from aliquot.evaluation.harness.model import HarnessModel

    bases = "".join(inspect.getsource(base) for base in HarnessModel.__mro__[1:-1])
    overridden = set(re.findall(r"super\(\)\.(\w+)\(", inspect.getsource(HarnessModel))) - {"__init__"}
    private = {"_loglikelihood_tokens", "_model_call", "_model_generate", "tok_batch_encode"}
    assert overridden == private | {"generate_until", "loglikelihood"}  # the latter are lm-eval's interface
    for name in private:
        assert f"def {name}(" in bases, f"lm-eval has no {name} any more: nothing calls ours"
        assert f"self.{name}(" in bases, f"lm-eval no longer calls {name}"


def test_lm_evals_class_for_vllm_has_what_is_set_and_called_on_it():
    source = Path(find_spec("lm_eval.models.vllm_causallms").origin).read_text()
    assert all(text in source for text in ("def _loglikelihood_tokens(", "self.lora_request", "lora_local_path"))


class FakeVLLM:
    """Stands for lm-eval's class: keeps its arguments; the adapter adds half a nat."""

    def __init__(self, **arguments):
        self.arguments = arguments
        self.lora_request = arguments.get("lora_local_path")

    def _loglikelihood_tokens(self, requests, disable_tqdm):
        return [(-20.0 + 0.5 * (self.lora_request is not None), False) for _ in requests]


def test_vllm_gets_base_and_adapter_apart(tiny, monkeypatch, tmp_path):
    from aliquot.evaluation.harness.model import open_vllm

    monkeypatch.setitem(sys.modules, "lm_eval.models.vllm_causallms", types.SimpleNamespace(VLLM=FakeVLLM))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 256}))
    lm, effect = open_vllm(tiny.causal, Adapter(tmp_path, "base", 10, 0.5), 16)
    assert effect == 0.5 and lm.lora_request == str(tmp_path)
    assert lm.arguments == {
        "pretrained": tiny.causal.path,
        "revision": None,
        "dtype": "float32",
        "trust_remote_code": False,
        "batch_size": 16,
        "lora_local_path": str(tmp_path),
        "max_lora_rank": 256,
    }
    monkeypatch.setattr(FakeVLLM, "_loglikelihood_tokens", lambda *args, **kwargs: [(-20.0, False)])
    with pytest.raises(ValueError, match=r"changes nothing in vllm"):
        open_vllm(tiny.causal, Adapter(tmp_path, "base", 10, 0.5), 16)
    bare, effect = open_vllm(tiny.causal, None, 16)
    assert effect is None and "lora_local_path" not in bare.arguments


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed here")
def test_vllm_is_refused_where_it_cannot_be_had(tiny, monkeypatch):
    with pytest.raises(ValueError, match=r"evaluate\.backend=vllm: .* pip install vllm"):
        Benchmark(["say"], str(tiny.tasks), backend="vllm").check()
    monkeypatch.setattr(Benchmark, "check", lambda self: None)
    with pytest.raises(
        ValueError, match=r"evaluate.backend=vllm: .*t5.* is an encoder-decoder; set evaluate.backend=hf"
    ):
        check_evaluable(tiny.t5, Benchmark(["say"], str(tiny.tasks), backend="vllm"))
    with pytest.raises(ValueError, match=r"evaluate.backend=tgi is unknown; choose hf or vllm"):
        Benchmark(["say"], str(tiny.tasks), backend="tgi")

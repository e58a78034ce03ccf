"""Evaluation beside lm-eval's own command line: the same questions, answers and judgments, one by one."""

import json

import pytest

from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.local_copies import SUITES, write_suites
from aliquot.evaluation.run import evaluate
from aliquot.models.spec import Model
from aliquot.runtime.trainer import TrainerSpec
from tiny_model import save_tiny_model
from tiny_tasks import read_samples, record_answers, save_tiny_tasks, start_command_lines

CPU = TrainerSpec("cpu")
MMLU = ["mmlu_anatomy", "mmlu_conceptual_physics"]
BBH = ["bbh_fewshot_snarks", "bbh_cot_fewshot_navigate"]


@pytest.fixture
def asked(monkeypatch):
    return record_answers(monkeypatch)


def assert_same(samples, asked, correct):
    """Compare with the command line's samples: texts asked, answers, right and wrong."""
    for task, rows in samples.items():
        measure = "acc" if "acc" in rows[0] else "exact_match"
        assert correct[task] == [float(row[measure]) for row in rows], task
        for row in rows:
            for (args, answer), call, theirs in zip(
                asked[task][row["doc_id"]], row["arguments"].values(), row["resps"], strict=True
            ):
                assert args[0] == call["arg_0"]
                if measure == "acc":
                    assert args[1] == call["arg_1"]
                    assert answer[0] == pytest.approx(float(theirs[0][0]), abs=1e-4)
                else:
                    assert {k: v for k, v in args[1].items() if v is not None} == call["arg_1"]
                    assert answer == theirs[0]


@pytest.mark.slow
def test_official_tasks_are_asked_and_answered_as_by_lm_eval_itself(long_model, real_data, asked, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folders = [*(suite.folder() for suite in SUITES), write_suites(real_data, [*MMLU, *BBH], scratch)]
    arguments = f"pretrained={long_model.path},dtype=float32"
    short_model = Model(str(real_data / "models" / "tinystories-656k-llama"))  # cuts off some of the worked examples
    short_arguments = f"pretrained={short_model.path},dtype=float32"
    few = ["--limit", "8", "--batch_size", "4"]
    runs = [
        (
            "zero",
            folders,
            arguments,
            [f"local_{name}" for name in [*MMLU, *BBH]],
            [*few, "--gen_kwargs", "max_gen_toks=24"],
        ),
        ("five", folders, arguments, [f"local_{name}" for name in MMLU], [*few, "--num_fewshot", "5"]),
        ("cut", folders, short_arguments, [f"local_{BBH[1]}"], [*few, "--gen_kwargs", "max_gen_toks=24"]),
    ]
    process = start_command_lines(runs, tmp_path)
    data = {"data": str(real_data), "limit": 8, "batch_size": 4}
    zero = evaluate(long_model, None, Benchmark([*MMLU, *BBH], max_new_tokens=24, **data), CPU, tmp_path / "a")
    asked_zero = dict(asked)
    asked.clear()
    cut = evaluate(short_model, None, Benchmark([BBH[1]], max_new_tokens=24, **data), CPU, tmp_path / "c")
    asked_cut = dict(asked)
    asked.clear()
    five = evaluate(
        long_model, None, Benchmark(MMLU, num_fewshot={name: 5 for name in MMLU}, **data), CPU, tmp_path / "b"
    )
    assert process.wait() == 0, (tmp_path / "log").read_text()[-2000:]
    zero_samples, five_samples = read_samples(tmp_path / "zero"), read_samples(tmp_path / "five")
    assert (sorted(zero_samples), sorted(five_samples)) == (sorted([*MMLU, *BBH]), sorted(MMLU))
    assert_same(zero_samples, asked_zero, zero.correct)
    assert_same(five_samples, asked, five.correct)
    assert_same(read_samples(tmp_path / "cut"), asked_cut, cut.correct)
    assert json.loads((tmp_path / "c" / "metrics.json").read_text())["num_cut"] == {BBH[1]: 8}
    text = asked["mmlu_anatomy"][0][0][0][0]
    assert text.count("\nAnswer:") == 6 and text.startswith("The following are multiple choice questions")


@pytest.mark.slow
def test_encoder_decoders_are_asked_and_answered_as_by_lm_eval_itself(asked, tmp_path):
    t5 = Model(str(save_tiny_model(tmp_path / "model", family="t5")))
    (tmp_path / "tiny").mkdir()
    tasks = save_tiny_tasks(tmp_path / "tiny", lambda question: "the cat")
    arguments = f"pretrained={t5.path},dtype=float32"
    runs = [("t5", [tasks], arguments, ["pick", "say"], ["--batch_size", "4"])]
    process = start_command_lines(runs, tmp_path)
    found = evaluate(t5, None, Benchmark(["pick", "say"], str(tasks), batch_size=4), CPU, tmp_path / "ours")
    assert process.wait() == 0, (tmp_path / "log").read_text()[-2000:]
    samples = read_samples(tmp_path / "t5")
    assert sorted(samples) == ["pick_a", "pick_b", "say"]
    assert_same(samples, asked, found.correct)
    assert len({answer for rows in asked["say"].values() for _, answer in rows}) > 1

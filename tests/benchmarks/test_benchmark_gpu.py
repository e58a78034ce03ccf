"""benchmarks/gpu.py runs where there is no GPU, and counts operations as torch does."""

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        sys.modules["gpu"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(SCRIPT.parent))
        del sys.modules["gpu"]


@torch.inference_mode()
def test_its_operations_are_those_that_torch_counts(gpu):
    network = gpu.RandomModel("pkg://aliquot.demo/model", shape="tiny").load()
    network.set_attn_implementation("eager")
    shape, length = gpu.SHAPES["tiny"], 100
    head = gpu.VOCABULARY * shape["hidden_size"]
    body = sum(weights.numel() for weights in network.parameters()) - 2 * head
    with FlopCounterMode(display=False) as counter:
        network(torch.arange(length)[None], logits_to_keep=1)
    # Causal attention needs half of the products that the eager implementation computes.
    needed = gpu.flops(body, np.array([length])) + 2 * gpu.attention_flops(shape, np.array([length])) + 2 * head
    assert counter.get_total_flops() == pytest.approx(needed, rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_one_command_writes_the_rows_of_the_table(gpu, tmp_path, monkeypatch, capsys):
    def run_here(*arguments):
        shape, job = arguments[2], arguments[4]
        return gpu.run(job, shape, 12, tokens_per_batch=4096, new_tokens=8)

    monkeypatch.setattr(gpu.contest, "run_apart", run_here)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--shape", "tiny", "--csv", str(tmp_path / "rows.csv")])
    gpu.main()
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == ["score", "finetune"]
    assert all(float(row["tokens_s"]) > 0 and float(row["tflops"]) > 0 for row in rows)
    assert rows[0]["generated"] == "96"
    assert capsys.readouterr().out.splitlines()[0].startswith("| tiny | score | ")

"""Keys: what names a class in them, and what may change without changing them."""

from __future__ import annotations

import compileall
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import resolve_name
from typing import get_args, get_type_hints

import pytest

import aliquot
from aliquot.annotation.annotator import Oracle
from aliquot.config.schema import ROOT
from aliquot.evaluation.benchmark import Benchmark
from aliquot.evaluation.validation_loss import ValidationLoss
from aliquot.experiment.build import Parts, build
from aliquot.models.spec import Model
from aliquot.pools.spec import JsonlPool
from aliquot.scoring.spec import Scorer
from aliquot.selection.strategies.longest import Longest
from aliquot.selection.strategies.random import Random
from aliquot.stages import Annotate, Evaluate, Finetune, Prepare, Score, Select
from aliquot.store import shipped
from aliquot.store.provenance import of_other_libraries
from aliquot.store.source_code import code_hash
from aliquot.store.store import canonical, key_fields
from small_recipe import CPU, RECIPE

PACKAGE = Path(aliquot.__file__).parent


@pytest.mark.slow
def test_the_code_of_what_is_shipped_is_as_the_table_says():
    table = json.loads(shipped.TABLE.read_text())
    told = ", ".join(f"{name} (by {', '.join(moved)})" for name, moved in shipped.changed(table).items())
    assert shipped.make_table() == table, (
        f"the table of what is shipped is not up to date; changed under the same version: {told or 'nothing'}. Where "
        "results change, raise `version` of the class and run python -m aliquot.store.shipped; where they do not, run "
        "python -m aliquot.store.shipped --same-results with the names of the classes"
    )


def test_all_that_is_shipped_is_named_by_its_version_and_no_two_by_the_same_name(tmp_path):
    table = json.loads(shipped.TABLE.read_text())
    kinds = [resolve_name(name) for name in (*table["watched"], *table["named"])]
    assert len(kinds) > 25
    for kind in kinds:
        assert set(shipped.named(kind)) == {"type", "version"}, kind
        if not hasattr(kind, "identity"):
            hints = get_type_hints(kind)
            keyed = [hints[f.name] for f in fields(kind) if f.metadata.get("key", True)]
            inside = {t for hint in keyed for t in (hint, *get_args(hint)) if is_dataclass(t)}
            assert inside <= set(kinds), kind
    assert len({kind.__qualname__ for kind in kinds}) == len(kinds)
    (tmp_path / "pool.jsonl").touch()
    assert '"code"' not in json.dumps(canonical(JsonlPool(path=str(tmp_path / "pool.jsonl"))))


#: Prints what stands for classes in a key, in an interpreter that has read nothing yet.
NAMES = """
import importlib, json, sys
from aliquot.store.shipped import named
kinds = [getattr(importlib.import_module(module), name) for module, name in (a.split(":") for a in sys.argv[1:])]
print(json.dumps([named(kind) for kind in kinds]))
"""


def start(*arguments, path, fails=False):
    """Run Python with these folders in front of its own; return what it prints, or what it says where it fails."""
    environment = {"PYTHONPATH": ":".join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stdout + done.stderr if fails else done.stdout


def names_of(*kinds, path):
    return json.loads(start("-c", NAMES, *kinds, path=path))


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package to edit, and a function that names classes of it."""
    shutil.copytree(PACKAGE, tmp_path / "aliquot", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    return tmp_path / "aliquot", lambda *kinds: names_of(*kinds, path=[tmp_path])


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def append(file, line):
    file.write_text(f"{file.read_text()}\n{line}\n")


SHIPPED = (
    "aliquot.selection.strategies.random:Random",
    "aliquot.selection.strategies.k_center:KCenter",
    "aliquot.annotation.annotator:Oracle",
    "aliquot.evaluation.benchmark:Benchmark",
    "aliquot.finetuning.recipe:LoRA",
)


@pytest.mark.slow
def test_an_edited_strategy_is_no_longer_named_by_its_version(checkout):
    package, names = checkout
    before = names(*SHIPPED)
    assert [name["type"] for name in before] == ["Random", "KCenter", "Oracle", "Benchmark", "LoRA"]
    assert not [name for name in before if "code" in name]

    edit(package / "selection/strategies/random.py", '"""Pick prompts', '# A remark.\n    """Otherwise pick prompts')
    edit(package / "selection/strategies/random.py", "(self.seed)", "(\n            self.seed\n        )")
    edit(package / "finetuning/recipe.py", "RECORD, ADAPTER", "RECORDS, ADAPTER")  # its stage has a version
    append(package / "scoring/spec.py", "NEW = 1")
    append(package / "scoring/features.py", "NEW = 1")
    assert names(*SHIPPED, "aliquot.scoring.spec:Scorer")[:-1] == before
    assert "code" not in names("aliquot.scoring.spec:Scorer")[0]

    edit(package / "selection/strategies/random.py", "permutation(len(pool))", "permutation(len(pool))[::-1]")
    append(package / "selection/greedy/farthest_first.py", "NEW = 1")
    edit(package / "annotation/annotator.py", "0.0", "0.5")
    append(package / "evaluation/local_copies.py", "NEW = 1")
    assert ["code" in name for name in names(*SHIPPED)] == [True, True, True, True, False]


@pytest.mark.slow
def test_an_edited_helper_of_annotators_is_noticed(checkout):
    package, names = checkout
    append(package / "annotation/teachers/request_queue.py", "NEW = 1")
    found = names("aliquot.annotation.teachers.endpoint:EndpointTeacher", "aliquot.annotation.annotator:Oracle")
    assert ["code" in name for name in found] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["pools.spec", "finetuning.recipe", "stages", "pools.rows", "selection.strategies.random"]
)
def test_a_class_added_to_any_module_of_the_package_is_named_by_its_code(checkout, module):
    package, names = checkout
    file = package / f"{module.replace('.', '/')}.py"
    append(file, "@dataclass(frozen=True)\nclass Mine:\n    depth: int = 1\n")
    before = names(f"aliquot.{module}:Mine")[0]
    edit(file, "depth: int = 1", "depth: int = 1 + 0")
    assert before["code"] != names(f"aliquot.{module}:Mine")[0]["code"]


@pytest.mark.slow
def test_what_is_shipped_needs_no_source_and_what_is_added_does(checkout, tmp_path):
    package, _ = checkout
    (package / "selection/strategies/mine.py").write_text("class Mine:\n    depth = 1\n")
    before = names_of(*SHIPPED, path=[tmp_path])
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path, "aliquot")
    assert names_of(*SHIPPED, path=[archive]) == before
    compileall.compile_dir(package, quiet=1, legacy=True)
    for file in package.rglob("*.py"):
        file.unlink()
    assert names_of(*SHIPPED, path=[tmp_path]) == before
    for path in (tmp_path, archive):
        told = start("-c", NAMES, "aliquot.selection.strategies.mine:Mine", path=[path], fails=True)
        assert "class Mine of module aliquot.selection.strategies.mine is in no Python file" in told


@pytest.mark.slow
def test_the_table_is_not_written_over_changed_code_of_an_old_version_unless_told_so(checkout, tmp_path):
    package, names = checkout
    table = package / "store/shipped.json"
    (package / "conf").symlink_to(ROOT / "conf")
    old = table.read_text()
    append(package / "selection/strategies/random.py", "NEW = 1")
    append(package / "selection/strategies/longest.py", "NEW = 1")

    def write(*arguments, fails):
        return start("-m", "aliquot.store.shipped", *arguments, path=[tmp_path], fails=fails)

    for arguments in ((), ("--same-results", "Random")):
        told = write(*arguments, fails=True)
        assert ("Random: changed code in aliquot.selection.strategies.random" in told) is not bool(arguments)
        assert "Longest: changed code in aliquot.selection.strategies.longest" in told
        assert "--same-results" in told and table.read_text() == old
    assert "only Longest, Random has changed code" in write("--same-results", "KCenter", fails=True)
    edit(package / "selection/strategies/longest.py", "    requires", "    version: ClassVar[int] = 2\n    requires")
    write("--same-results", "Random", fails=False)
    found = names("aliquot.selection.strategies.random:Random", "aliquot.selection.strategies.longest:Longest")
    assert found == [{"type": "Random", "version": 1}, {"type": "Longest", "version": 2}]
    table.unlink()
    write(fails=False)
    assert names("aliquot.selection.strategies.random:Random", "aliquot.selection.strategies.longest:Longest") == found


@pytest.mark.parametrize("content", ["<<<<<<< ours\n", "[]", "{}", None])
def test_a_table_that_cannot_be_read_is_told_with_the_command_that_writes_it(tmp_path, monkeypatch, content):
    table = tmp_path / "shipped.json"
    if content is not None:
        table.write_text(content)
    monkeypatch.setattr("aliquot.store.shipped.TABLE", table)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    shipped._table.cache_clear()
    with pytest.raises(
        ValueError, match=r"shipped.json cannot be read.*write it anew: python -m aliquot.store.shipped"
    ):
        shipped._table()


@pytest.mark.slow
def test_an_added_strategy_is_named_by_its_code_and_that_of_what_it_is_made_of(checkout):
    package, names = checkout
    mine, helper, kind = (
        package / "selection/strategies/mine.py",
        package / "mine_helper.py",
        "aliquot.selection.strategies.mine:Mine",
    )
    mine.write_text(
        '"""Mine."""\nfrom dataclasses import dataclass\n'
        "from aliquot.selection.strategies.random import Random\n\n@dataclass(frozen=True)\nclass Mine(Random):\n"
        "    def select(self, pool, scores, k):\n        from aliquot import mine_helper as own\n"
        "        return own.pick(pool)\n"
    )
    helper.write_text("import numpy\nfrom aliquot.runtime.progress import Progress\n\ndef pick(pool):\n    return 1\n")
    found = names(kind)
    append(package / "runtime/progress.py", "NEW = 1")  # which all strategies share
    mine.write_text("# Comments do not count.\n" + mine.read_text().replace('"""Mine."""', '"""Ours."""'))
    found += names(kind)
    assert found[0] == found[1]
    for file, old, new in (
        (helper, "1", "2"),
        (package / "selection/strategies/random.py", "zeros", "ones"),
        (mine, "pool)\n", "k)\n"),
    ):
        edit(file, old, new)
        found += names(kind)
    assert len({name["code"] for name in found}) == 4
    assert {name["type"] for name in found} == {"Mine"}


def write_package(folder: Path, helper: str) -> None:
    (folder / "theirs").mkdir(parents=True)
    (folder / "theirs" / "__init__.py").touch()
    (folder / "theirs" / "helper.py").write_text(helper)
    (folder / "beside.py").write_text("import numpy.linalg\nnumber = 1\n")
    (folder / "theirs" / "own.py").write_text(
        "from dataclasses import dataclass\nimport beside\nfrom .helper import pick\n"
        "from aliquot.annotation.annotator import Oracle\n\n"
        "@dataclass(frozen=True)\nclass Own(Oracle):\n    seed: int = 0\n\n"
        "@dataclass(frozen=True)\nclass Other(Oracle):\n    seed: int = 0\n"
    )


@pytest.mark.slow
def test_code_outside_the_package_counts_with_the_modules_beside_it_wherever_it_lies(tmp_path):
    def names(folder):
        return names_of("theirs.own:Own", "theirs.own:Other", path=[folder, PACKAGE.parent])

    for name, helper in (
        ("a", "def pick():\n    return 1\n"),
        ("b", "def pick(): return 1 # one\n"),
        ("c", "pick = 2"),
    ):
        write_package(tmp_path / name, helper)
    a, b, c = (names(tmp_path / name) for name in "abc")
    assert a == b
    assert a[0]["code"] == a[1]["code"] != c[0]["code"]
    assert {name["type"] for name in a} == {"Own", "Other"}
    (tmp_path / "a" / "beside.py").write_text("number = 2\n")
    assert names(tmp_path / "a")[0]["code"] not in (a[0]["code"], c[0]["code"])


@pytest.mark.slow
def test_installed_packages_do_not_count_wherever_they_lie(tmp_path, checkout):
    """A package that a strategy imports, in folders as pip, distributions and clusters have them, and edited there."""
    package, _ = checkout
    mine = package / "selection/strategies/mine.py"
    mine.write_text(
        "import dep\nfrom aliquot.selection.strategies.random import Random\n\nclass Mine(Random):\n    pass\n"
    )
    write_package(tmp_path / "project", "import dep\npick = 1\n")
    kinds = "theirs.own:Own", "aliquot.selection.strategies.mine:Mine", "aliquot.selection.strategies.k_center:KCenter"
    found = []
    for number, place in enumerate(("site-packages", "dist-packages", "target", "editable", "tree/lib")):
        (tmp_path / place / "dep").mkdir(parents=True)
        (tmp_path / place / "dep/__init__.py").write_text(f"depth = {number}\nfrom . import lower\n")
        (tmp_path / place / "dep/lower.py").write_text(f"total = {' + '.join(['1'] * 900)} + {number}\n")
        found.append(names_of(*kinds, path=[tmp_path / "project", tmp_path / place, tmp_path]))
    assert found == found[:1] * 5


@pytest.mark.slow
@pytest.mark.parametrize(("place", "counts"), [("site-packages", False), ("target", False), ("project", True)])
def test_an_installed_class_is_named_by_its_own_package_alone(tmp_path, place, counts):
    folder = tmp_path / place
    write_package(folder, "pick = 1\n")
    if place == "target":
        (folder / "theirs-1.0.dist-info").mkdir()

    def name():
        return names_of("theirs.own:Own", path=[folder, PACKAGE.parent])[0]["code"]

    before = name()
    append(folder / "beside.py", "NEW = 1")
    assert (name() != before) is counts
    before = name()
    append(folder / "theirs/helper.py", "NEW = 1")
    assert name() != before


@pytest.mark.slow
def test_a_class_of_the_script_that_was_started_counts_with_what_lies_beside_it(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/helper.py").write_text("number = 1\n")
    script = tmp_path / "lab/script.py"
    script.write_text(
        "import json, helper\nfrom aliquot.store.shipped import named\nclass Own: ...\nprint(json.dumps(named(Own)))\n"
    )
    module = tmp_path / "lab/module.py"
    module.write_text(script.read_text().replace("helper", "lab.helper"))

    def names():
        return [start(*call, path=[PACKAGE.parent, tmp_path]) for call in ((str(script),), ("-m", "lab.module"))]

    before = names()
    append(tmp_path / "lab/helper.py", "NEW = 1")
    assert [a == b for a, b in zip(before, names(), strict=True)] == [False, False]


def test_code_is_found_where_a_module_was_read_from_whatever_the_module_is_called(tmp_path, monkeypatch):
    file = tmp_path / "file_of_another_name.py"
    file.write_text("class Kind:\n    seed = 1\n")
    spec = spec_from_file_location("called_so", file)
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "called_so", module)
    spec.loader.exec_module(module)
    assert shipped.code(module.Kind) == {"called_so": code_hash(file)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = None", "x = ()"),
        ("def f():\n    return 'a'", "def f():\n    return 'a\\n'"),
        ("if a:\n    f()\ng()", "if a:\n    f()\n    g()"),
        ("x = f'{a}'", "x = f'{a!r}'"),
        ("x = f'{a:{b}}'", "x = f'{a:{b}f}'"),
        ("x = f('')", "x = f()"),
        ("def f(a, b=1): pass", "def f(a, b): pass"),
        ("x = {**a}", "x = {None: a}"),
        ("x = a[:1]", "x = a[1:]"),
        ("x = a[:None]", "x = a[None:]"),
        ("def f(a, *, b): pass", "def f(a, b): pass"),
        ("def f(*, a, b=1): pass", "def f(*, a=1, b): pass"),
    ],
)
def test_code_that_may_do_something_else_has_another_hash(tmp_path, one, other):
    assert len(set(hashes(tmp_path, one, other))) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "# One.\nx   =  1  # one\n\n"),
        ("def f():\n    return 1", 'def f():\n  """Return 1."""\n  return 1'),
        ("class A:\n    x: int", '"""A."""\nclass A:\n    """An a."""\n    x: int\n    """An x."""'),
        ("x = f(a, b)", "x = f(\n    a,\n    b,\n)"),
        ("x = 'a'", 'x = "a"'),
    ],
)
def test_comments_docstrings_and_layout_are_no_code(tmp_path, one, other):
    assert len(set(hashes(tmp_path, one, other))) == 1


def hashes(folder, *codes):
    files = [folder / f"{number}.py" for number in range(len(codes))]
    for file, text in zip(files, codes, strict=True):
        file.write_text(text)
    return [code_hash(file) for file in files]


def test_a_class_without_a_file_is_refused_since_its_changes_would_go_unnoticed():
    typed = dataclass(frozen=True)(type("Typed", (), {"__module__": "typed_in", "__annotations__": {"seed": int}}))
    with pytest.raises(ValueError, match=r"class Typed of module typed_in is in no Python file.*write it into a .py"):
        canonical(typed(0))
    made = dataclass(frozen=True)(type("Made", (), {"__module__": "types", "__annotations__": {"seed": int}}))
    with pytest.raises(ValueError, match="class Made of module types is in no Python file"):  # as make_dataclass has it
        canonical(made(0))


@pytest.mark.parametrize("name", ["code", "type", "version", "stage"])
def test_a_field_that_would_stand_for_something_else_in_a_key_is_refused(name):
    kind = make_dataclass("Kind", [(name, int)], frozen=True, namespace={"__module__": __name__})
    with pytest.raises(ValueError, match=f"field {name} of Kind: a key uses code, stage, type, version.*rename"):
        canonical(kind(1))


def test_code_may_be_nested_deeper_than_calls(tmp_path):
    long = [f"x = {' + '.join(['1'] * 2000)} + {last}" for last in (1, 2)]
    assert len(set(hashes(tmp_path, *long))) == 2


@dataclass(frozen=True)
class Settings:
    depth: int = 1
    workers: int = field(default=1, metadata={"key": False})


@dataclass(frozen=True)
class Later:
    depth: int = 1
    bias: float | None = field(default=None, metadata={"absent": None})
    shuffled: bool = field(default=True, metadata={"absent": False})


def test_a_field_that_came_later_stays_out_of_the_key_while_it_says_what_its_absence_meant():
    assert key_fields(Later(shuffled=False)) == key_fields(Settings()) == {"depth": 1}
    assert key_fields(Later()) == {"depth": 1, "shuffled": True}  # a new default is another result
    assert key_fields(Later(bias=0.0, shuffled=False)) == {"depth": 1, "bias": 0.0}


def test_what_identifies_itself_is_named_by_its_class_too_unless_that_is_shipped():
    @dataclass(frozen=True)
    class Own:
        path: str

        def identity(self):
            return "content"

    key = canonical(Own("a"))
    assert isinstance(key, dict)
    assert key == {**shipped.named(Own), "identity": "content"} == canonical(Own("b"))
    assert key["code"]


def test_the_version_of_lm_eval_is_in_every_key_of_its_tasks(tmp_path, monkeypatch):
    benchmarks = Benchmark(["own"], str(tmp_path)), Benchmark(["mmlu"])
    before = [canonical(benchmark) for benchmark in benchmarks]
    monkeypatch.setattr("aliquot.evaluation.benchmark.lm_eval_version", lambda: "99.0")
    assert [a == b for a, b in zip(before, map(canonical, benchmarks), strict=True)] == [False, False]


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ({"torch": "2.13.0", "transformers": "5.0.1", "peft": "0.21.0", "numpy": "1.0"}, None),
        ({"torch": "1.13.1+cu117", "transformers": "5.9", "peft": "0.21.2"}, "torch 1.13.1+cu117 (here 2.13.0)"),
        ({"transformers": "4.57.0", "peft": "0.18.0"}, "transformers 4.57.0 (here 5.23.0), peft 0.18.0 (here 0.21.2)"),
        ({}, None),
    ],
)
def test_another_major_version_of_what_computes_is_told_and_no_other(monkeypatch, then, told):
    here = {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2", "numpy": "2.4"}
    monkeypatch.setattr("aliquot.store.provenance.versions", lambda: here)
    assert of_other_libraries({"libraries": then}) == told


@pytest.mark.slow
def test_what_lm_eval_does_not_read_of_a_model_leads_to_no_other_evaluation(compose, tmp_path):
    (tmp_path / "held-out.jsonl").write_text('{"prompt": "a", "response": "b"}\n')

    def keys(*overrides):
        config = compose(f"store={tmp_path / 'store'}", "pool.limit=50", "budget=10", *overrides)
        base, *rest = [stage.key for stage in build(Parts.of(config)).stages if stage.name in ("evaluate", "finetune")]
        return base, rest

    loss = ("evaluate=validation_loss", f"evaluate.path={tmp_path / 'held-out.jsonl'}")
    for evaluate, same in (((), True), (loss, False)):
        base, rest = keys(*evaluate)
        for change in ('template="{prompt} Reply: {response}"', "max_tokens=128", "overlong=cut_end"):
            other, others = keys(*evaluate, f"model.{change}")
            assert (other == base) is same
            assert not set(others) & set(rest)
    base, rest = keys()
    assert base not in (keys("model.attention=eager")[0], keys("model.dtype=bfloat16")[0])


@pytest.mark.slow
def test_another_way_to_the_same_prompts_leads_to_no_other_training(compose, tmp_path):
    rows = [{"id": str(i), "prompt": f"prompt {i}", "response": f"response {i}"} for i in range(20)]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def keys(*overrides):
        wanted = [f"store={tmp_path / 'store'}", "pool=jsonl", f"pool.path={pool}", "pool.limit=null", "budget=5"]
        cfg = compose(*wanted, "until=finetune", *overrides)
        return {stage.name: stage.key for stage in build(Parts.of(cfg)).stages}

    before = keys()
    for change in ("clean.max_words=100", "clean.near=0.9", "clean.exact=false", "limit=20", "sample=20", "task=null"):
        assert keys(f"pool.{change}") == before | {"pool": keys(f"pool.{change}")["pool"]}
    assert keys("pool.limit=19")["finetune"] != before["finetune"]  # a prompt less
    bought = ["annotator=teacher", "annotator.model=m"]
    teacher = keys(*bought)
    rows[3]["response"] = "another"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert keys()["select"] == before["select"]
    assert keys()["annotate"] != before["annotate"]
    assert keys()["finetune"] != before["finetune"]
    assert keys(*bought)["finetune"] == teacher["finetune"]  # who reads the prompts alone


def golden_stages(folder):
    """One stage of each kind, of things whose names and content are fixed."""
    (folder / "pool.jsonl").write_text('{"id": "0", "prompt": "a", "response": "b"}\n')
    model = Model("org/name", "a" * 40, template="{prompt} {response}")
    pool = Prepare(JsonlPool(path=str(folder / "pool.jsonl")))
    read = replace(pool, digest="d" * 64)
    score, one = (Score(model, read, scorer, CPU, 1) for scorer in (Scorer(), Scorer(position="last")))
    random, longest = Select(read, Random(seed=3), None, 1, CPU), Select(read, Longest(), score, 1, CPU)
    annotate = Annotate(random, Oracle(), 1)
    finetune = Finetune(model, annotate, RECIPE, CPU)
    loss = ValidationLoss(str(folder / "pool.jsonl"))
    evaluate = [Evaluate(model, None, Benchmark(["mmlu"]), CPU), Evaluate(model, finetune, loss, CPU)]
    return [pool, score, one, random, longest, annotate, finetune, *evaluate]


def test_keys_are_what_they_were_and_their_results_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr("aliquot.evaluation.benchmark.lm_eval_version", lambda: "0.4")
    # A key here may change only where results change: whoever has results makes all of that stage again.
    assert [f"{stage.name} {stage.key}" for stage in golden_stages(tmp_path)] == [
        "pool d2600f0912cad49d",
        "score d39f4198be666452",  # of two views; a selection has the key of the one that it reads in its own
        "score 5074f48b1e2a4409",
        "select 8c28740e9f4d2714",
        "select e0bc79ca0f56bccd",
        "annotate b13962e0b4751d0d",
        "finetune 3f0ae61ae5d835ac",
        "evaluate 7d30b32b47b46056",
        "evaluate b195aa307223af1b",
    ]

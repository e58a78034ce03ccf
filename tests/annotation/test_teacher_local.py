"""A teacher on this machine, beside transformers' own generation, one prompt at a time."""

import json
import random
import signal
from collections import Counter
from dataclasses import replace

import pytest
import torch

from aliquot.annotation.bill import Price
from aliquot.annotation.teachers.ledger import Question
from aliquot.annotation.teachers.local import Generate, LocalTeacher
from aliquot.config.schema import Limit
from aliquot.models.spec import Model
from aliquot.pools.spec import PoolSpec
from aliquot.runtime.trainer import TrainerSpec
from aliquot.terms import buy_for_money
from tiny_model import WORDS, save_tiny_model

SOURCE = PoolSpec(name="any")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return {f: save_tiny_model(tmp_path_factory.mktemp(f), family=f, added="<s> $A") for f in ("llama", "t5")}


@pytest.fixture(params=["llama", "t5"])
def teacher(request, paths):
    model = Model(str(paths[request.param]), template="{prompt} {response}", max_tokens=60, overlong="refuse")
    return LocalTeacher(model=model, max_tokens=12, keep_cut=True, batch_size=4, trainer=TrainerSpec("cpu"))


def prompts(num):
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS[:16], k=draw.randint(2, 30))) + f" {WORDS[i % 20]}" for i in range(num)]


def annotate(teacher, folder, asked):
    annotated = teacher.annotate(SOURCE, [f"id{i}" for i in range(len(asked))], asked, folder)
    return dict(zip(annotated.ids, annotated.responses, strict=True))


@pytest.mark.slow
def test_responses_are_those_of_transformers_one_prompt_at_a_time(teacher, tmp_path):
    asked = prompts(20)
    responses = annotate(teacher, tmp_path, asked)
    network, tokenizer = teacher.model.load(), teacher.model.load_tokenizer()
    expected = {}
    for i, ids in enumerate(teacher.model.encode_prompts(tokenizer, asked)):
        out = network.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0]
        new = out[1:] if network.config.is_encoder_decoder else out[len(ids) :]
        if text := tokenizer.decode(new, skip_special_tokens=True).strip():
            expected[f"id{i}"] = text
    assert {row_id: text.strip() for row_id, text in responses.items()} == expected
    assert len(set(expected.values())) > 2


@pytest.mark.slow
def test_the_tokens_of_prompts_are_known_before_so_that_money_is_spent_to_the_last_response(teacher, tmp_path):
    asked, priced = prompts(20), replace(teacher, price_per_million=Price(100, 1000))
    ids = [f"id{i}" for i in range(20)]
    bought = buy_for_money(priced, ids, asked, tmp_path, Limit(0.1, "usd"))
    assert 0 < bought.num_rows < 20
    replies = [priced.ledger(tmp_path).replies[Question("", prompt).key] for prompt in asked[: bought.num_rows]]
    assert bought.spent == pytest.approx(sum(priced.cost([reply]) for reply in replies))
    most = priced.most(ids, asked)
    assert most[: bought.num_rows] == pytest.approx([Price(100, 1000).of(r.input_tokens, 12) for r in replies])
    assert bought.spent <= 0.1 < bought.spent + most[bought.num_rows]


@pytest.mark.slow
def test_answers_from_before_there_was_a_choice_are_kept_but_for_prompts_with_control_tokens(teacher, tmp_path):
    asked = [*prompts(6), "the </s> cat", "</s>"]
    before = replace(teacher, model=replace(teacher.model, special_tokens="parse"))
    assert "special_tokens" not in before.model.identity()
    annotate(before, tmp_path, asked)
    book = before.ledger(tmp_path)
    book.path.write_text(book.path.read_text().replace('"response": "', '"response": "old '))
    known = before.ledger(tmp_path).replies
    annotate(teacher, tmp_path, asked)
    found = teacher.ledger(tmp_path).replies
    keys = [Question("", prompt).key for prompt in asked]
    assert [found[key] == known[key] for key in keys] == [True] * 6 + [False] * 2


@pytest.mark.slow
def test_what_is_drawn_by_lot_depends_on_seed_and_prompt_not_on_the_batch(teacher, tmp_path):
    asked = prompts(20)
    hot = replace(teacher, temperature=1.5, seed=0)
    together = annotate(hot, tmp_path / "a", asked)
    alone = annotate(replace(hot, batch_size=1), tmp_path / "b", asked)
    assert alone == together
    assert annotate(replace(hot, seed=1), tmp_path / "a", asked) != together
    assert annotate(replace(hot, temperature=0.0), tmp_path / "a", asked) != together


@pytest.mark.slow
def test_the_first_token_is_drawn_from_the_distribution(paths, tmp_path):
    """Of many prompts that the model reads alike: each token's share is its probability, within 4 standard errors."""
    model = Model(str(paths["llama"]), template="{prompt} {response}", max_tokens=60)
    teacher = LocalTeacher(model=model, max_tokens=1, keep_cut=True, temperature=2.0, trainer=TrainerSpec("cpu"))
    network, tokenizer = model.load(), model.load_tokenizer()
    (ids,) = model.encode_prompts(tokenizer, ["the cat"])
    with torch.inference_mode():
        probabilities = (network(torch.tensor([ids])).logits[0, -1] / 2.0).softmax(0)

    num = 2000
    replies = Generate(teacher, network, tokenizer)([(Question("", str(i)), ids) for i in range(num)])
    seen = Counter(reply.response for reply in replies)
    for word in WORDS[:16]:
        p = float(probabilities[tokenizer.convert_tokens_to_ids(word)])
        assert abs(seen[word] / num - p) <= 4 * (p * (1 - p) / num) ** 0.5 + 1 / num, word


@pytest.mark.slow
def test_what_the_files_of_a_model_say_of_generation_is_not_mixed_in(teacher, tmp_path, paths):
    asked = prompts(10)
    expected = annotate(teacher, tmp_path / "a", asked)
    path = save_tiny_model(tmp_path / "model", family="t5" if "t5" in teacher.name else "llama", added="<s> $A")
    config = json.loads((path / "generation_config.json").read_text())
    mixed = {"repetition_penalty": 9.0, "do_sample": True, "temperature": 9.0, "min_new_tokens": 12, "num_beams": 3}
    (path / "generation_config.json").write_text(json.dumps(config | mixed))
    assert annotate(replace(teacher, model=replace(teacher.model, path=str(path))), tmp_path / "b", asked) == expected


@pytest.mark.slow
def test_a_larger_budget_generates_what_is_new(teacher, tmp_path):
    asked = prompts(12)
    annotate(teacher, tmp_path, asked[:5])
    (file,) = tmp_path.glob("*.jsonl")
    before = file.read_text()
    annotate(teacher, tmp_path, asked)
    assert file.read_text().startswith(before)
    assert len(file.read_text().splitlines()) == 12


@pytest.mark.slow
def test_responses_that_are_cut_are_left_out_unless_asked_for(teacher, tmp_path):
    asked = prompts(20)
    everything = annotate(teacher, tmp_path, asked)
    bill = replace(teacher, keep_cut=False).bill((), asked, tmp_path)
    assert bill.left_out["cut"] + bill.num_responses <= 20
    assert bill.left_out["cut"] > 0
    assert bill.num_responses < len(everything)
    network_tokens = teacher.model.encode_prompts(teacher.model.load_tokenizer(), asked)
    assert bill.input_tokens == sum(map(len, network_tokens))
    assert bill.output_tokens <= 20 * 12


@pytest.mark.slow
def test_a_prompt_that_leaves_no_room_fails_or_is_cut_as_the_config_says(teacher, tmp_path):
    asked = [*prompts(3), " ".join(["cat"] * 70)]
    with pytest.raises(ValueError, match=r"1 of 4 prompts .* longer than the 48 tokens .*overlong=cut_start"):
        annotate(teacher, tmp_path, asked)
    (file,) = tmp_path.glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 3
    cut = replace(teacher, model=replace(teacher.model, overlong="cut_start"))
    annotate(cut, tmp_path / "cut", asked)
    assert cut.bill((), asked[3:], tmp_path / "cut").input_tokens == 48


def test_the_tokenizers_own_chat_template_is_used(paths, tmp_path):
    path = save_tiny_model(tmp_path / "chat", added="<s> $A")
    (path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content + (' </s>' if m.role == 'assistant' else '') }}{% endfor %}"
        "{% if add_generation_prompt %} Answer :{% endif %}"
    )
    teacher = LocalTeacher(model=Model(str(path), template="chat", max_tokens=60), max_tokens=8, keep_cut=True)
    (asked,) = prompts(1)
    responses = annotate(teacher, tmp_path / "ledger", [asked])
    network, tokenizer = teacher.model.load(), teacher.model.load_tokenizer()
    ids = tokenizer(f"{asked} Answer :", add_special_tokens=False)["input_ids"]
    out = network.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0, len(ids) :]
    assert responses == {"id0": tokenizer.decode(out, skip_special_tokens=True)}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "ending"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_lets_the_batch_finish_and_the_next_run_goes_on(teacher, tmp_path, monkeypatch, number, ending):
    asked, generated, call = prompts(20), [], Generate.__call__

    def interrupted_once(self, batch):
        if len(generated) == 8:
            signal.raise_signal(number)
        generated.extend(question.prompt for question, _ in batch)
        return call(self, batch)

    monkeypatch.setattr(Generate, "__call__", interrupted_once)
    with pytest.raises(ending):
        annotate(teacher, tmp_path, asked)
    (file,) = tmp_path.glob("*.jsonl")
    assert len(file.read_text().splitlines()) == len(generated) == 12
    annotate(teacher, tmp_path, asked)
    assert sorted(generated) == sorted(asked)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"batch_size": 0}, "batch_size=0"), ({"max_tokens": 60}, "leave no room"), ({"temperature": None}, "=null")],
)
def test_settings_that_make_no_sense_are_refused(paths, settings, message):
    with pytest.raises(ValueError, match=message):
        LocalTeacher(model=Model(str(paths["llama"]), max_tokens=60), **settings)


def test_a_batch_that_does_not_fit_into_memory_says_what_to_lower(teacher, tmp_path, monkeypatch):
    def full(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(Generate, "__call__", full)
    with pytest.raises(ValueError, match=r"batch_size=4 prompts do not fit into memory \(CUDA out of memory"):
        annotate(teacher, tmp_path, prompts(20))


def with_examples(teacher, folder, asked, shown):
    """Let a teacher answer, and return the tokens that it read for each prompt."""
    read, call = {}, Generate.__call__

    def noted(self, batch):
        read.update({question.prompt: list(ids) for question, ids in batch})
        return call(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Generate, "__call__", noted)
        annotate(replace(teacher, shown=shown), folder, asked)
    return read


def test_examples_are_turns_of_the_chat_template_and_as_many_as_there_is_room_for(paths, tmp_path):
    path = save_tiny_model(tmp_path / "chat", added="<s> $A")
    (path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<s> ' if m.role == 'user' else ' Answer : ' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} Answer :{% endif %}"
    )
    teacher = LocalTeacher(model=Model(str(path), template="chat", max_tokens=60), max_tokens=8, keep_cut=True)
    tokenizer = teacher.model.load_tokenizer()
    near, far = ("the cat ?", "the dog"), ("a </s> bird ?", "a fox " * 3)
    asked = ["the old cat ?", "the big dog " * 13]  # the latter leaves room for one example
    read = with_examples(teacher, tmp_path / "ledger", asked, dict.fromkeys(asked, (far, near)))
    for prompt, examples in zip(asked, ([far, near], [near]), strict=True):
        messages = [
            {"role": role, "content": text.replace("</s>", "<unk>")}
            for example in [*examples, (prompt,)]
            for role, text in zip(("user", "assistant"), example, strict=False)
        ]
        wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert read[prompt] == tokenizer(wanted, add_special_tokens=False)["input_ids"]


def test_a_plain_template_is_written_again_for_each_example_and_its_control_tokens_are_no_text(tmp_path):
    model = Model(str(save_tiny_model(tmp_path / "model", family="qwen2")), template="<s>{prompt}</s>{response}")
    tokenizer, asked = model.load_tokenizer(), "old?"
    shown = (("a </s>?", "so"), ("why?", "as <s> is"))
    teacher = LocalTeacher(model=model, max_tokens=4, keep_cut=True)
    (read,) = with_examples(teacher, tmp_path / "ledger", [asked], {asked: shown}).values()
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>"))
    assert tokenizer.decode(read) == "<s>a </s>?</s>so\n\n<s>why?</s>as <s> is\n\n<s>old?</s>"
    assert [read.count(start), read.count(end)] == [3, 3]

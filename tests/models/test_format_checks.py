"""Template, tokenizer and model must fit each other; where they do not, one line says so before anything starts."""

import subprocess
from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from aliquot.models.spec import Model
from aliquot.models.template import CHAT
from aliquot.runtime.trainer import TrainerSpec
from aliquot.scoring.spec import Scorer
from aliquot.scoring.trial import Trial
from aliquot.store.store import check_all
from tiny_model import save_tiny_model

ROLES = (
    "{% for message in messages %}{{ '<|' + message.role + '|> ' + message.content + ' </s>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)
#: Opens a thought that finished turns do not have, as DeepSeek-R1 does; with whatever has to be quoted in a shell.
THINKING = (
    "<s> {% for message in messages %}{% if message.role == 'user' %}say \"it's\" a\\\\b:\n{{ message.content }}"
    "{% else %} ${x} {{ message.content }} </s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ${x} <think>\n{% endif %}"
)


def edited(folder, change):
    """Save a tiny model whose tokenizer was changed behind its back."""
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_model(folder))
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    return Model(str(folder))


def chatting(folder, template):
    return replace(edited(folder, lambda tokenizer: setattr(tokenizer, "chat_template", template)), template=CHAT)


def refusal(model):
    return refused(model.check)


def refused(check):
    with pytest.raises(ValueError, match=r"model\.path|the (tokenizer|chat template) of ") as error:
        check()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["pad", "eos"])
def test_a_padding_or_end_token_beyond_the_embeddings_is_refused(tmp_path, name):
    model = edited(tmp_path, lambda tokenizer: tokenizer.add_special_tokens({f"{name}_token": "[NEW]"}))
    told = refusal(model)
    assert "token '[NEW]' has number 27, and the model has embeddings for 27 tokens only" in told
    assert ("set pad_token to '</s>' in its tokenizer_config.json" in told) == (name == "pad")


def test_what_the_padding_advice_says_works(tmp_path):
    model = edited(tmp_path, lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "[NEW]"}))
    refusal(model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = "</s>"
    tokenizer.save_pretrained(tmp_path)
    model.check()


@pytest.mark.slow
def test_a_word_beyond_the_embeddings_is_refused_and_a_control_token_that_is_never_read_is_not(tmp_path):
    assert "the word 'zebra' has number 27" in refusal(
        edited(tmp_path / "a", lambda tokenizer: tokenizer.add_tokens(["zebra"]))
    )
    unread = edited(
        tmp_path / "b", lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": ["<|x|>"]})
    )
    unread.check()
    assert "'<|x|>' has number 27" in refusal(replace(unread, special_tokens="parse"))
    told = refusal(replace(unread, template="<|x|> {prompt} Answer : {response}"))
    assert "what model.template='<|x|> {prompt} Answer : {response}' writes, the token '<|x|>'" in told


def test_a_chat_token_beyond_the_embeddings_is_refused(tmp_path):
    def extend(tokenizer):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
        tokenizer.chat_template = ROLES

    told = refusal(replace(edited(tmp_path, extend), template=CHAT))
    assert "what model.template='chat' writes, the token '<|user|>' has number 27" in told


def test_of_several_chat_templates_one_must_be_the_default(tmp_path):
    told = refusal(chatting(tmp_path / "a", {"rag": ROLES, "tools": ROLES}))
    assert "has 2 chat templates (rag, tools), and none is called default" in told
    chatting(tmp_path / "b", {"default": ROLES, "rag": ROLES}).check()


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('a system turn is needed') }}", "'a system turn is needed'"),
        ("{% for %}", "Expected an expression"),
        ("{{ messages[0].content.nothing.at_all }}", "has no attribute"),
        ("{{ messages[1].content }}", "has no element 1"),
        ("{% for message in messages %}{{ message.role }}{% endfor %}", "leaves out the question"),
        ("{% for message in messages %}{{ message.content if loop.first }}{% endfor %}", "leaves out the answer"),
    ],
)
def test_a_chat_template_that_fails_or_drops_a_turn_is_told_in_its_own_words(tmp_path, template, why):
    told = refusal(chatting(tmp_path, template))
    assert why in told
    assert "write a format, such as $'model.template=" in told


def test_a_turn_that_is_finished_in_another_way_than_it_was_opened_is_refused_with_a_format_that_works(tmp_path):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    model = chatting(tmp_path, THINKING)
    model.check()  # a teacher may think aloud
    told = refused(lambda: check_all([Trial(model, Scorer(), TrainerSpec("cpu"))]))
    assert r"opens the response with '<think>\n' where a finished turn has 'It is b. </s>'" in told
    command = told.partition("write the finished turn as the format: ")[2]
    typed = subprocess.run(["bash", "-c", f"printf %s {command}"], capture_output=True, text=True, check=True).stdout
    (override,) = OverridesParser.create().parse_overrides([typed])
    settings = OmegaConf.create()
    OmegaConf.update(settings, override.key_or_group, override.value())
    followed = replace(model, template=settings.model.template)
    check_all([Trial(followed, Scorer(), TrainerSpec("cpu"))])
    tokenizer = followed.load_tokenizer()
    turn = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sees"}]
    finished = tokenizer.apply_chat_template(turn, tokenize=False)
    ((before, behind),) = followed.encoding(tokenizer).pairs(["the cat"], ["sees"])
    assert before + behind == tokenizer(finished, add_special_tokens=False)["input_ids"]


def test_blanks_at_the_end_of_an_opened_turn_are_no_matter(tmp_path):
    chatting(tmp_path, ROLES.replace("<|assistant|> {% endif %}", "<|assistant|>\n{% endif %}")).check()

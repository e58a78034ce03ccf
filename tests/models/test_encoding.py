"""What a model reads: the template, its special tokens, where the response begins, and what a long prompt loses."""

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aliquot.models.spec import Model
from aliquot.models.template import Encoding
from aliquot.scoring.batching import encode
from tiny_model import FAMILIES, save_tiny_model

TULU = "<|user|>\n{prompt}\n<|assistant|>\n{response}"
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant :' }}{% endif %}"
)
PROMPTS = ["the cat", "a big red dog sees"]
RESPONSES = ["likes", ""]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_model(folder, family=request.param, added="<s> $A")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return Model(str(folder))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return Model(str(save_tiny_model(folder, added="<s> $A </s>")), template="big {prompt} Answer : {response}")


def llama2_like(added):
    """Return a tokenizer of letters that writes a space before every text, as LLaMA-2's does."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "\u2581", "\n", *"abcdefgh"]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    ends = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single=added, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.mark.parametrize("added", ["$A", "<s> $A", "$A </s>", "<s> $A </s>"])
@pytest.mark.parametrize(
    ("template", "prompt", "response"),
    [
        ("{prompt}\n{response}", "\u2581ab\n", "cd"),
        ("{prompt} {response}", "\u2581ab", "\u2581cd"),
        ("{prompt}{response}", "\u2581ab", "cd"),
    ],
)
def test_a_response_is_read_where_it_stands_and_not_as_a_text_of_its_own(added, template, prompt, response):
    tokenizer = llama2_like(added)
    encoding = Encoding(tokenizer, template, "cut_start", None)
    begin = ["<s>"] if added.startswith("<s>") else []
    pairs = encoding.pairs(["ab", "ab"], ["cd", ""])
    first, second = [tuple(map(tokenizer.convert_ids_to_tokens, pair)) for pair in pairs]
    assert first == ([*begin, *prompt], [*response, "</s>"])
    assert second == ([*begin, *prompt], [*response.removesuffix("cd"), "</s>"])
    assert encoding.prompts(["ab"]) == [pairs[0][0]]


@pytest.mark.parametrize("template", [TULU, "{prompt} Answer : {response}", "chat"])
def test_scoring_reads_what_finetuning_puts_before_the_response_and_the_pair_is_the_whole_text(family, template):
    tokenizer, model = family.load_tokenizer(), replace(family, template=template)
    pairs = model.encoding(tokenizer).pairs(PROMPTS, RESPONSES)
    assert [prompt for prompt, _ in pairs] == model.encode_prompts(tokenizer, PROMPTS)
    assert encode(model, tokenizer, PROMPTS, 99).tokens.tolist() == [i for prompt, _ in pairs for i in prompt]
    for (before, behind), prompt, response in zip(pairs, PROMPTS, RESPONSES, strict=True):
        turn = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        if family.family() == "t5":
            assert behind == tokenizer(text_target=response)["input_ids"]
        elif template == "chat":
            text = tokenizer.apply_chat_template(turn, tokenize=False).rstrip()
            assert before + behind == tokenizer(text, add_special_tokens=False)["input_ids"]
            assert (before + behind).count(tokenizer.bos_token_id) == 1
        else:
            text = template.replace("{prompt}", prompt).replace("{response}", response)
            assert before + behind == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def test_a_token_that_would_reach_over_the_border_is_parted_there(tmp_path):
    model = Model(str(save_tiny_model(tmp_path, family="qwen2")), template="{prompt}{response}")
    tokenizer = model.load_tokenizer()
    assert len(tokenizer("cat")["input_ids"]) == 1
    ((before, behind),) = model.encoding(tokenizer).pairs(["ca"], ["t"])
    assert tokenizer.convert_ids_to_tokens(before + behind) == ["ca", "t", "</s>"]


def test_a_chat_template_must_be_there_and_belongs_to_the_identity(tmp_path):
    model = Model(str(save_tiny_model(tmp_path)), template="chat")
    for refuses in (model.check, model.load_tokenizer):
        with pytest.raises(ValueError, match=r"has no chat template; .* write a format"):
            refuses()
    without = model.identity()
    (tmp_path / "chat_template.jinja").write_text(CHAT)
    model.check()
    assert model.identity() != without


def test_a_special_token_that_the_tokenizer_adds_is_refused_in_the_template(tmp_path):
    save_tiny_model(tmp_path, added="<s> $A")
    with pytest.raises(ValueError, match=r"begins with <s>, which the tokenizer .* adds by itself; leave it out"):
        Model(str(tmp_path), template="<s> {prompt} {response}").load_tokenizer()
    Model(str(tmp_path), template="a <s> {prompt} {response}").load_tokenizer()


def test_a_template_is_refused_that_cannot_be_filled_in():
    with pytest.raises(ValueError, match=r"backslash and an n .* write it in a yaml"):
        Model("org/name", template="{prompt}\\n{response}")
    with pytest.raises(ValueError, match=r"must contain {prompt} and end with {response}, .* or be the word chat"):
        Model("org/name", template="chatml")


@pytest.mark.parametrize(
    ("overlong", "kept"),
    [("cut_start", "<s> big dog fox Answer :"), ("cut_end", "<s> big the cat Answer :")],
)
def test_a_long_prompt_loses_what_is_said_and_the_template_stays(llama, overlong, kept):
    model = replace(llama, overlong=overlong)
    tokenizer = model.load_tokenizer()
    encoded = encode(model, tokenizer, ["the cat sees a dog fox", "one"], 6)
    assert tokenizer.decode(encoded.tokens[:6]) == kept
    assert tokenizer.decode(encoded.tokens[6:]) == "<s> big one Answer :"
    assert encoded.num_cut == 1


def test_an_encoder_keeps_the_end_of_sequence_of_a_prompt_that_was_cut(tmp_path):
    model = Model(str(save_tiny_model(tmp_path, family="t5")), template="{prompt}{response}", overlong="cut_end")
    tokenizer = model.load_tokenizer()
    encoding = model.encoding(tokenizer)
    assert tokenizer.decode(encoding.shorten(encoding.prompts(["the cat sees a dog"])[0], 3)) == "the cat </s>"
    assert encoding.decoder_start == 0


def test_a_long_prompt_is_refused_where_asked_for(llama):
    model = replace(llama, overlong="refuse")
    with pytest.raises(ValueError, match=r"begins with 'big the cat sees.* takes 10 tokens, and there is room for 6;"):
        encode(model, model.load_tokenizer(), ["one", "the cat sees a dog fox"], 6)
    with pytest.raises(ValueError, match=r"model.overlong=skip is unknown; choose one of cut_start, cut_end, refuse"):
        replace(llama, overlong="skip")


def test_room_for_hardly_a_token_still_holds_the_end(llama):
    tokenizer = llama.load_tokenizer()
    encoding = llama.encoding(tokenizer)
    (ids,) = encoding.prompts(["the cat"])
    assert [list(encoding.shorten(ids, room)) for room in (1, 4)] == [ids[-1:], ids[-4:]]

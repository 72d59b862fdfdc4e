"""The local engine says what transformers' own `generate` says, in pieces, in batches, and only up to the turn's end."""

import dataclasses
import signal
import threading

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.generate.chat import Talk
from tunesmith.generate.sampling import Sampling
from tunesmith.generate.transformers import WORKER, TransformersEngine
from tunesmith.log import OptionError
from tunesmith.templates.conversation import Conversation, Message

GREEDY = Sampling(max_new_tokens=24)
DRAWN = Sampling(max_new_tokens=24, do_sample=True, temperature=1.0, top_p=0.9, top_k=50)
QUESTIONS = ["Hello, who are you?", "你好！", "Write a short story about a lighthouse and a letter. " * 4, "1 2 3"]


def ask(text: str) -> Conversation:
    return Conversation([Message("user", text)])


@pytest.fixture(scope="module", params=["tiny_model", "tiny_llama"])
def parts(request):
    """A model with larger weights than a fresh one has, so that its answers vary."""
    folder = request.getfixturevalue(request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.25)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode(conversation: Conversation) -> list[int]:
        turns = [{"role": message.role, "content": message.content} for message in conversation.messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return model, tokenizer, encode


@pytest.fixture
def engine(parts):
    return TransformersEngine(*parts)


def greedy_tokens(model, prompt: list[int], count: int = 24) -> list[int]:
    """What a plain loop without any cache makes of it."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def workers() -> int:
    """Threads that are making an answer."""
    return sum(thread.name == WORKER for thread in threading.enumerate())


@pytest.mark.parametrize("question", QUESTIONS)
def test_stream_answer_and_a_plain_loop_agree(parts, engine, question):
    model, tokenizer, encode = parts
    tokens = greedy_tokens(model, encode(ask(question)))
    if tokenizer.eos_token_id in tokens:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    expected = tokenizer.decode(tokens, skip_special_tokens=True)
    assert expected
    assert engine.answer(ask(question), GREEDY) == expected
    assert "".join(engine.stream(ask(question), GREEDY)) == expected


def test_many_at_once_are_as_one_by_one(engine):
    conversations = [ask(question) for question in QUESTIONS]
    one_by_one = [engine.answer(conversation, GREEDY) for conversation in conversations]
    assert len(set(one_by_one)) == len(QUESTIONS)
    assert engine.answer_many(conversations, GREEDY) == one_by_one
    assert engine.answer_many(conversations, GREEDY, rows=3) == one_by_one
    assert engine.answer_many([], GREEDY) == []


def test_temperature_0_is_greedy(engine):
    drawn = dataclasses.replace(DRAWN, temperature=0.0)
    assert engine.answer(ask("Hello"), drawn) == engine.answer(ask("Hello"), GREEDY)


def test_a_seed_makes_drawing_repeatable_and_leaves_other_randomness_alone(engine):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = engine.answer(ask("Hello"), DRAWN)
    assert torch.equal(torch.rand(3), expected)
    assert "".join(engine.stream(ask("Hello"), DRAWN)) == first
    others = {engine.answer(ask("Hello"), dataclasses.replace(DRAWN, seed=seed)) for seed in range(5)}
    assert len(others) > 1


@pytest.mark.parametrize("position", [0, 1, 7])
def test_an_answer_ends_at_a_stop_token(parts, position):
    model, tokenizer, encode = parts
    tokens = greedy_tokens(model, encode(ask("Hello")), 12)
    stop = tokens[position]
    tokens = tokens[: tokens.index(stop)]
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, stop]
    try:
        engine = TransformersEngine(model, tokenizer, encode, ["<|im_start|>"])
    finally:
        model.generation_config.eos_token_id = before
    assert engine.stops.tokens == {tokenizer.eos_token_id, stop, tokenizer.convert_tokens_to_ids("<|im_start|>")}
    assert engine.answer(ask("Hello"), GREEDY) == tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(engine.stream(ask("Hello"), GREEDY)) == tokenizer.decode(tokens, skip_special_tokens=True)


def test_an_answer_ends_before_a_stop_text_alone_and_in_a_batch(parts, engine):
    model, tokenizer, encode = parts
    whole = [engine.answer(ask(question), GREEDY) for question in QUESTIONS]
    stop = whole[0][4:9]
    assert stop not in tokenizer.get_vocab()
    stopping = TransformersEngine(model, tokenizer, encode, [stop])
    expected = [text.split(stop)[0] for text in whole]
    assert stopping.answer_many([ask(question) for question in QUESTIONS], GREEDY) == expected
    assert ["".join(stopping.stream(ask(question), GREEDY)) for question in QUESTIONS] == expected


def test_beam_search_answers_in_one_piece(parts, engine):
    model, tokenizer, encode = parts
    beams = dataclasses.replace(GREEDY, num_beams=3)
    ids = torch.tensor([encode(ask("Hello"))])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), num_beams=3, do_sample=False, max_new_tokens=24)
    expected = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert engine.answer(ask("Hello"), beams) == expected
    assert list(engine.stream(ask("Hello"), beams)) == [expected]


def test_closing_a_stream_stops_the_work(engine):
    stream = engine.stream(ask("Hello"), dataclasses.replace(GREEDY, max_new_tokens=400))
    next(stream)
    assert workers() == 1
    stream.close()
    assert workers() == 0


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(parts, engine, capsys):
    model = parts[0]
    calls = 0

    def interrupt(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    hook = model.register_forward_hook(interrupt)
    try:
        talk = Talk(engine, dataclasses.replace(GREEDY, max_new_tokens=400), patient=True)
        talk.say("Hello")
        assert workers() == 0
        assert 6 <= calls < 100, "the worker stopped soon after"
    finally:
        hook.remove()
        signal.signal(signal.SIGINT, before)
    stopped = capsys.readouterr().out
    Talk(engine, GREEDY, patient=True).say("Hello")
    # What was written by then, which may be nothing yet, is how the same answer begins.
    assert capsys.readouterr().out.startswith(stopped.rstrip("\n")[:3])


def test_a_failure_while_streaming_reaches_the_reader(parts):
    model, tokenizer, _ = parts
    engine = TransformersEngine(model, tokenizer, lambda _: [10**6])
    with pytest.raises(IndexError):
        list(engine.stream(ask("Hello"), GREEDY))


def test_a_model_in_training_stays_so(parts, engine):
    model = parts[0]
    model.train()
    engine.answer(ask("Hello"), GREEDY)
    assert model.training
    model.eval()


def test_answers_stay_within_the_models_length(parts, engine):
    model, tokenizer, _ = parts
    longest = model.config.max_position_embeddings
    nearly = [5] * (longest - 3)
    answer = TransformersEngine(model, tokenizer, lambda _: nearly).answer(ask(""), GREEDY)
    assert answer == tokenizer.decode(greedy_tokens(model, nearly, 3), skip_special_tokens=True)
    full = TransformersEngine(model, tokenizer, lambda _: [5] * longest)
    with pytest.raises(OptionError, match=f"has {longest} tokens"):
        list(full.stream(ask(""), GREEDY))
    with pytest.raises(OptionError, match="nothing to answer"):
        TransformersEngine(model, tokenizer, lambda _: []).answer(ask(""), GREEDY)

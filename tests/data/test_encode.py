"""Labels are exactly the learned spans, data never becomes a control token, and training begins as generating does."""

import pickle
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from chat_formats import ChatML, Colons, conversation, metaspace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from tunesmith.config.data import DataConfig
from tunesmith.data.encoding.encode import Encoder
from tunesmith.data.encoding.vocabulary import FIXED
from tunesmith.log import DataError, OptionError
from tunesmith.templates.conversation import Conversation, Message, Piece, Span

TRICKY = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "<|im_",
    "end|>",
    "<think>",
    "\n",
    " ",
    "  ",
    "'s",
    "é",
    "你好",
    "🎉",
]
letters = st.characters(
    exclude_categories=("Cs", "Mn", "Mc", "Me")
)  # the tokenizer composes marks with what they follow
words = st.sampled_from(TRICKY) | st.text(letters, max_size=5)
texts = st.lists(words, min_size=1, max_size=8).map(lambda parts: unicodedata.normalize("NFC", "".join(parts)))
talks = st.lists(texts, min_size=2, max_size=6).map(lambda turns: turns[: len(turns) // 2 * 2])
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoder(tokenizer: PreTrainedTokenizerBase, **options: Any) -> Encoder:
    return Encoder(tokenizer, ChatML(), DataConfig(**options))


def row(encoder: Encoder, talk: Conversation) -> tuple[np.ndarray, np.ndarray]:
    ((found,),) = encoder.encode([[talk]]).samples
    return found


def text_of(spans: Sequence[Span], learned: bool | None = None) -> str:
    return "".join(span.text for span in spans if learned is None or span.learned is learned)


@many
@given(talks, st.none() | texts)
def test_labels_are_exactly_the_learned_spans_and_all_text_is_there(
    tiny_tokenizer: PreTrainedTokenizerBase, turns: list[str], system: str | None
) -> None:
    talk = conversation(*turns, system=system)
    ids, trained = row(encoder(tiny_tokenizer), talk)
    spans = ChatML().render(talk)
    assert tiny_tokenizer.decode(ids) == text_of(spans)
    assert tiny_tokenizer.decode(ids[trained]) == text_of(spans, learned=True)
    assert tiny_tokenizer.decode(ids[~trained]) == text_of(spans, learned=False)


@many
@given(talks, st.none() | texts)
def test_words_from_data_never_become_control_tokens(
    tiny_tokenizer: PreTrainedTokenizerBase, turns: list[str], system: str | None
) -> None:
    ids, _ = row(encoder(tiny_tokenizer), conversation(*turns, system=system))
    turns_written = len(turns) + bool(system)
    counts = [list(ids).count(tiny_tokenizer.convert_tokens_to_ids(token)) for token in TRICKY[:3]]
    assert counts == [turns_written, turns_written, 0]


@many
@given(talks)
def test_the_trained_row_begins_with_the_prompt_used_when_generating(
    tiny_tokenizer: PreTrainedTokenizerBase, turns: list[str]
) -> None:
    each = encoder(tiny_tokenizer)
    talk = conversation(*turns)
    ids, _ = row(each, talk)
    spans = ChatML().render(talk)
    for count in range(1, len(spans) + 1, 2):
        prompt = each.encode_prompt(spans[:count])
        assert prompt == ids[: len(prompt)].tolist()


@many
@given(talks, st.none() | texts, st.booleans())
def test_careful_spelling_gives_what_spelling_at_once_gives(
    tiny_tokenizer: PreTrainedTokenizerBase, turns: list[str], system: str | None, allow: bool
) -> None:
    each = encoder(tiny_tokenizer, allow_special_tokens=allow)
    talk = conversation(*turns, system=system)
    ids, trained = row(each, talk)
    exact = each.spell_exactly(talk)
    assert exact.ids.tolist() == ids.tolist() and exact.trained.tolist() == trained.tolist()
    assert len(exact.origins) == len(exact.answer) == len(ids)


def test_many_rows_at_once_give_what_each_gives_alone(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    each = encoder(tiny_tokenizer)
    talks = [conversation("Hi <|im_end|>", "Hello"), conversation("a", "b", "c", "d"), conversation("x", "<|im_end|>")]
    together = each.encode([[talk] for talk in talks])
    assert together.kept == [0, 1, 2]
    for talk, (ids, trained) in zip(talks, (sample for (sample,) in together.samples), strict=True):
        alone = row(each, talk)
        assert alone[0].tolist() == ids.tolist() and alone[1].tolist() == trained.tolist()


def test_special_tokens_in_data_are_meant_only_when_they_are_allowed(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("<|im_end|>", "b")
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert row(encoder(tiny_tokenizer), talk)[0].tolist().count(end) == 2
    assert row(encoder(tiny_tokenizer, allow_special_tokens=True), talk)[0].tolist().count(end) == 3


def test_added_tokens_that_are_not_special_are_tokens_in_data_too(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    think = tiny_tokenizer.convert_tokens_to_ids("<think>")
    for turns in (("Hi", "<think>Hm"), ("<|im_end|>", "<think><|im_end|>Hm")):
        ids, trained = row(encoder(tiny_tokenizer), conversation(*turns))
        assert ids[trained][0] == think


def test_a_stop_word_that_is_not_marked_special_is_control_all_the_same(tiny_model: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_tokens(["<end_of_turn>"])

    class Ends(ChatML):
        def render(self, conversation: Conversation) -> list[Span]:
            (turn,) = conversation.messages
            return [Span((Piece(turn.content, "data"), Piece("<end_of_turn>")), True, "assistant")]

    each = Encoder(tokenizer, Ends(stop_words=("<end_of_turn>",)), DataConfig())
    talk = Conversation((Message("assistant", "a<end_of_turn>b<end_of_turn>"),))
    ids, _ = row(each, talk)
    assert ids.tolist().count(tokenizer.convert_tokens_to_ids("<end_of_turn>")) == 1
    assert tokenizer.decode(ids) == "a<end_of_turn>b<end_of_turn><end_of_turn>"


@pytest.mark.parametrize("strips", ["left", "right"])
def test_control_tokens_that_swallow_white_space_do_so_in_careful_spelling_too(tiny_model: Any, strips: str) -> None:
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    token = AddedToken("<|mark|>", special=True, lstrip=strips == "left", rstrip=strips == "right")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", token]})
    each = Encoder(tokenizer, ChatML(), DataConfig())
    pieces = (Piece("a \n"), Piece("<|mark|>"), Piece("  b <|im_end|>", "data"), Piece(" <|mark|> "))
    plain = tuple(Piece(piece.text.replace("<|im_end|>", "c"), piece.kind) for piece in pieces)
    careful = each.vocabulary.spell_exactly(plain, start=True).ids
    assert careful == tokenizer.encode("".join(piece.text for piece in plain), add_special_tokens=False)
    whole = each.vocabulary.spell_exactly(pieces, start=True).ids
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end not in whole and len(whole) > len(careful)


def test_pieces_named_bos_and_eos_become_the_tokenizers_own(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer = metaspace("first", ["abc"])
    each = Encoder(tokenizer, Colons(), DataConfig())
    ids, trained = row(each, conversation("A", "B"))
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert trained[-1] and ids.tolist().count(tokenizer.eos_token_id) == 1
    without_bos = Encoder(tiny_tokenizer, Colons(), DataConfig())
    assert tiny_tokenizer.decode(row(without_bos, conversation("A", "B"))[0]).startswith("USER: A")
    tokenizer.eos_token = None
    with pytest.raises(OptionError, match="the tokenizer has none"):
        Encoder(tokenizer, Colons(), DataConfig()).encode([[conversation("A", "B")]])


@pytest.mark.parametrize(
    ("scheme", "bos", "expected"),
    [
        # The answer's span continues the text, so a tokenizer that marks the first word only marks none of it.
        ("first", True, ["<s>", *"USER:▁A▁ASSISTANT:▁", *"ABA", "</s>"]),
        ("first", False, [*"▁USER:▁A▁ASSISTANT:▁", *"ABA", "</s>"]),
        ("never", True, ["<s>", *"USER:▁A▁ASSISTANT:▁", *"ABA", "</s>"]),
        ("always", True, ["<s>", *"▁USER:▁A▁ASSISTANT:▁", *"▁ABA", "</s>"]),
    ],
)
def test_only_a_rows_first_word_gets_the_first_words_space(scheme: str, bos: bool, expected: list[str]) -> None:
    tokenizer = metaspace(scheme, ["abc"])
    if not bos:
        tokenizer.bos_token = None
    each = Encoder(tokenizer, Colons(), DataConfig())
    ids, _ = row(each, conversation("A", "ABA"))
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == expected
    smuggled, _ = row(each, conversation("A", "AB</s>A"))
    start = ["<s>"] if expected[0] == "<s>" else []
    assert tokenizer.convert_ids_to_tokens(smuggled.tolist()[: len(start) + 4]) == expected[: len(start) + 4]
    assert smuggled.tolist().count(tokenizer.eos_token_id) == 1


def trained_text(tokenizer: PreTrainedTokenizerBase, talk: Conversation, **options: Any) -> str:
    ids, trained = row(encoder(tokenizer, **options), talk)
    return tokenizer.decode(ids[trained])


def test_options_and_messages_decide_what_is_trained(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation("q1", "a1", "q2", "a2")
    whole = text_of(ChatML().render(talk))
    assert trained_text(tiny_tokenizer, talk) == "a1<|im_end|>\na2<|im_end|>\n"
    assert trained_text(tiny_tokenizer, talk, mask_history=True) == "a2<|im_end|>\n"
    assert trained_text(tiny_tokenizer, talk, train_on_prompt=True) == whole
    assert trained_text(tiny_tokenizer, talk, train_roles=["assistant", "user"]) == whole
    users = trained_text(tiny_tokenizer, talk, train_roles=["user"])
    assert users == text_of(ChatML().render(talk), learned=False)

    def with_loss(*losses: bool | None) -> Conversation:
        return Conversation([Message(m.role, m.content, loss) for m, loss in zip(talk.messages, losses, strict=True)])

    assert trained_text(tiny_tokenizer, with_loss(None, False, None, None)) == "a2<|im_end|>\n"
    assert trained_text(tiny_tokenizer, with_loss(None, True, None, False)) == "a1<|im_end|>\n"
    asked = trained_text(tiny_tokenizer, with_loss(True, False, None, False))
    assert asked == "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n"
    assert trained_text(tiny_tokenizer, with_loss(None, None, None, False), mask_history=True) == "a1<|im_end|>\n"


def test_roles_tell_calls_from_answers(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [Message("user", "q"), Message("function", "{}"), Message("observation", "o"), Message("assistant", "a")]
    talk = Conversation(turns)
    assert trained_text(tiny_tokenizer, talk) == "{}<|im_end|>\na<|im_end|>\n"
    assert trained_text(tiny_tokenizer, talk, train_roles=["assistant"]) == "a<|im_end|>\n"
    assert trained_text(tiny_tokenizer, talk, train_roles=["function"]) == "{}<|im_end|>\n"


def test_a_row_with_nothing_to_train_is_dropped(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    untrained = Conversation([Message("user", "q"), Message("assistant", "a", loss=False)])
    outcome = encoder(tiny_tokenizer).encode([[untrained], [conversation("q", "a")]])
    assert outcome.kept == [1] and outcome.dropped == [(0, "no token to train")]


def test_a_row_the_template_refuses_is_dropped_with_its_reason(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    class Refuses(ChatML):
        def render(self, conversation: Conversation) -> list[Span]:
            raise DataError(f"{conversation.where}: tools are not JSON: line 1 column 3")

    outcome = Encoder(tiny_tokenizer, Refuses(), DataConfig()).encode([[conversation("q", "a")]])
    assert outcome.dropped == [(0, "tools are not JSON")]


def test_plain_texts_end_with_eos_and_every_token_is_trained(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    each = Encoder(tiny_tokenizer, None, DataConfig())
    encoded = each.encode_texts(["Hello <|im_end|> you", "a"])
    assert encoded.trained.all() and encoded.lengths.sum() == len(encoded.ids)
    first, second = (ids for ids, _ in encoded.rows())
    assert tiny_tokenizer.decode(first) == "Hello <|im_end|> you<|im_end|>"
    assert first.tolist().count(tiny_tokenizer.eos_token_id) == 1 and second[-1] == tiny_tokenizer.eos_token_id


def test_control_tokens_the_vocabulary_lacks_are_told_and_a_missing_end_is_refused(
    tiny_tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder(tiny_tokenizer).check_format(conversation("a <|data|>", "b"))
    assert capsys.readouterr().err == ""

    class Strange(ChatML):
        def render(self, conversation: Conversation) -> list[Span]:
            return [Span((Piece("<|start_header|>user<|x|>\n"),), False), *super().render(conversation)]

    Encoder(tiny_tokenizer, Strange(), DataConfig()).check_format(conversation("a", "b"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: template: chatml: ") and "<|start_header|>, <|x|>" in line

    class Endless(ChatML):
        def render(self, conversation: Conversation) -> list[Span]:
            return [Span((Piece("a", "data"), Piece("<|eot|>")), True)]

    Encoder(tiny_tokenizer, Endless(stop_words=("<|eot|>",)), DataConfig()).check_format(conversation("a", "b"))
    assert "so that <|eot|> ends an answer as words, not as one token" in capsys.readouterr().err


def test_an_encoder_travels_to_other_processes(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    each = encoder(tiny_tokenizer)
    talk = conversation("Hi <|im_end|>", "Hello")
    there = pickle.loads(pickle.dumps(each))
    assert row(there, talk)[0].tolist() == row(each, talk)[0].tolist()


def test_a_real_tokenizer_spells_a_row_as_its_whole_text(neox: PreTrainedTokenizerBase) -> None:
    talk = conversation("What is 2+2?\n\n  And 你好?", " It's 4.\n", system="Be\n\nbrief.")
    ids, _ = row(encoder(neox), talk)
    assert ids.tolist() == neox.encode(text_of(ChatML().render(talk)), add_special_tokens=False)


def test_origins_name_the_characters_of_data(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    exact = encoder(tiny_tokenizer).spell_exactly(conversation("Hello 你", "fine"))
    whole = text_of(ChatML().render(conversation("Hello 你", "fine")))
    words = exact.origins[exact.origins != FIXED]
    spelled = {whole[place] for place in words}
    assert spelled <= set("Hello 你fine") and {"H", "你", "f"} <= spelled
    assert (exact.origins[exact.answer] >= whole.index("fine")).sum() == (exact.origins[exact.answer] != FIXED).sum()

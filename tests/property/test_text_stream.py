"""What a text stream gives out, piece by piece, is the whole text, cut before the first stop string."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from llmrun.engine.text_stream import TextStream
from llmrun.engine.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def decode(tokenizer_folder):
    return ChatTokenizer.load(tokenizer_folder).decode


def stream(decode, ids, stop=()):
    """The pieces that come, up to the stop as an engine does it, and the rest."""
    text_stream = TextStream(decode, stop)
    pieces = []
    for token_id in ids:
        pieces.append(text_stream.push(token_id))
        if text_stream.stopped:
            break
    pieces.append(text_stream.flush())
    assert text_stream.text == "".join(pieces)
    return pieces, text_stream.stopped


def cut(text: str, stop: tuple[str, ...]) -> str:
    """Reference: read character by character until the text read so far ends with a stop string."""
    for end in range(len(text) + 1):
        matches = [each for each in stop if text[:end].endswith(each)]
        if matches:
            return text[: end - max(map(len, matches))]
    return text


token_ids = st.lists(st.integers(0, 319), max_size=40)
# Bytes that belong to characters of several bytes, so that they are often complete, cut short or out of order.
non_ascii_text = st.text(st.characters(min_codepoint=0x80, exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=300, deadline=None)
@given(ids=token_ids)
def test_the_pieces_of_any_tokens_are_the_whole_text(decode, ids):
    pieces, _ = stream(decode, ids)
    assert "".join(pieces) == decode(ids)


@settings(max_examples=200, deadline=None)
@given(text=non_ascii_text)
def test_no_piece_ends_within_a_character(tokenizer_folder, text):
    tokenizer = ChatTokenizer.load(tokenizer_folder)
    pieces, _ = stream(tokenizer.decode, tokenizer.encode_text(text))
    assert "".join(pieces) == text
    # A replacement character in the text itself waits for what follows; no other may ever be shown.
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


@settings(max_examples=300, deadline=None)
@given(data=st.data(), ids=token_ids)
def test_the_answer_ends_before_the_stop_string_that_is_complete_first(decode, data, ids):
    text = decode(ids)
    places = st.tuples(st.integers(0, len(text)), st.integers(1, 5)).map(lambda place: text[place[0] :][: place[1]])
    stop = tuple(data.draw(st.lists(places.filter(bool) | st.text(string.printable, min_size=1), max_size=3)))
    pieces, stopped = stream(decode, ids, stop)
    assert "".join(pieces) == cut(text, stop)
    assert stopped == any(each in text for each in stop)


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.text("ab", max_size=4), max_size=8), stop=st.text("ab", min_size=1, max_size=4))
def test_one_stop_string_cuts_as_split_does_however_the_text_is_split(pieces, stop):
    """Two letters, so that stop strings overlap themselves; the tokens are whole pieces of text."""
    shown, stopped = stream(lambda ids: "".join(pieces[index] for index in ids), range(len(pieces)), (stop,))
    assert "".join(shown) == "".join(pieces).split(stop)[0]
    assert stopped == (stop in "".join(pieces))


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.text("abc", max_size=6), max_size=5),
    stop=st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=3).map(tuple),
)
def test_of_several_stop_strings_the_first_complete_one_cuts(pieces, stop):
    shown, _ = stream(lambda ids: "".join(pieces[index] for index in ids), range(len(pieces)), stop)
    assert "".join(shown) == cut("".join(pieces), stop)


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab", max_size=12), stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_more_is_held_back_than_a_stop_string_needs(text, stop):
    text_stream = TextStream(lambda ids: "".join(map(chr, ids)), stop)
    shown = ""
    for index, character in enumerate(text):
        shown += text_stream.push(ord(character))
        if text_stream.stopped:
            return
        held = text[: index + 1].removeprefix(shown)
        assert held == "" or any(each.startswith(held) for each in stop)


def byte_fallback_tokenizer() -> Tokenizer:
    """A SentencePiece decoder: ``▁`` is a space, the first one is dropped, bytes have tokens of their own."""
    vocabulary = {"<unk>": 0, "▁the": 1, "▁": 2, "x": 3} | {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.sampled_from(["▁the", "▁", "x", "é", "€", "🙂"]), max_size=12))
def test_byte_fallback_gives_the_whole_text_of_valid_utf8(words):
    tokenizer = byte_fallback_tokenizer()
    ids = [i for word in words for i in ([tokenizer.token_to_id(word)] if word in "▁thex" else _byte_ids(word))]
    pieces, _ = stream(tokenizer.decode, ids)
    assert "".join(pieces) == tokenizer.decode(ids)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 259), max_size=20))
def test_byte_fallback_of_broken_utf8_keeps_what_is_not_bytes(ids):
    """What was shown stays shown, so only the replacement characters may differ from the whole decode."""
    tokenizer = byte_fallback_tokenizer()
    pieces, _ = stream(tokenizer.decode, [*ids, 1])
    assert "".join(pieces).count("the") == tokenizer.decode([*ids, 1]).count("the")


def test_broken_utf8_after_valid_utf8_is_one_replacement_character_a_byte():
    """The whole decode spoils the euro sign too; ``DecodeStream`` of tokenizers raises here."""
    tokenizer = byte_fallback_tokenizer()
    pieces, _ = stream(tokenizer.decode, [*_byte_ids("€"), 4 + 0xE2, 1])
    assert [piece for piece in pieces if piece] == ["€", "\ufffd the"]


def test_a_second_flush_gives_nothing():
    tokenizer = byte_fallback_tokenizer()
    text_stream = TextStream(tokenizer.decode, ["abc"])
    assert text_stream.push(4 + 0xE2) == ""
    assert [text_stream.flush(), text_stream.flush()] == ["\ufffd", ""]


def _byte_ids(text: str) -> list[int]:
    return [4 + byte for byte in text.encode()]

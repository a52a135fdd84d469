"""Text from tokens, as soon as it is certain.

One token is not one piece of text: a character may be spread over several tokens, and the beginning of a stop string
must not be shown before it is known not to be one. ``TextStream`` holds both back.

``tokenizers.decoders.DecodeStream`` is not used: it raises on a byte sequence that is not UTF-8 after one that was,
in every tokenizer with byte fallback (Llama 2, Gemma, Mistral), and cannot give out what it still holds at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """Decodes a growing list of tokens; each call costs the few tokens since the last certain text, not all of them.

    A text that ends with the replacement character is an unfinished UTF-8 sequence and is held back. Tokens are decoded
    together with those of the last text given out, for tokenizers in which the first token loses its leading space.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._token_ids: list[int] = []
        self._n_given_tokens = 0  # the first of these tokens have been given out and are kept for their context

    def push(self, token_id: int) -> str:
        """The text that ``token_id`` makes certain, often none."""
        self._token_ids.append(token_id)
        text = self._pending()
        if not text or text.endswith(REPLACEMENT):
            return ""
        self._token_ids = self._token_ids[self._n_given_tokens :]
        self._n_given_tokens = len(self._token_ids)
        return text

    def flush(self) -> str:
        """The text still held back, with replacement characters for what is not UTF-8."""
        text = self._pending()
        self._n_given_tokens = len(self._token_ids)
        return text

    def _pending(self) -> str:
        given = self._decode(self._token_ids[: self._n_given_tokens])
        text = self._decode(self._token_ids)
        if text.startswith(given):
            return text[len(given) :]
        # Byte fallback spoils a whole run of bytes for one that is wrong; what was shown stays shown.
        return self._decode(self._token_ids[self._n_given_tokens :])


class StopStrings:
    """Cuts a text before the stop string that is complete first (of two that end together: before the longer)."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        assert all(stop), "check_options refuses an empty stop string"
        self._stop = tuple(stop)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What of the text so far can be shown: nothing that may be the beginning of a stop string."""
        if self.found:
            return ""
        text = self._held + text
        begin = self._first_stop(text)
        self.found = begin is not None
        shown = begin if begin is not None else len(text) - self._longest_beginning(text)
        self._held = "" if self.found else text[shown:]
        return text[:shown]

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        text, self._held = self._held, ""
        return text

    def _first_stop(self, text: str) -> int | None:
        matches = [(begin + len(stop), begin) for stop in self._stop if (begin := text.find(stop)) >= 0]
        return min(matches)[1] if matches else None

    def _longest_beginning(self, text: str) -> int:
        """Characters at the end of ``text`` that a stop string begins with."""
        longest = min(max((len(stop) - 1 for stop in self._stop), default=0), len(text))
        for length in range(longest, 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


class TextStream:
    """The text of one answer, piece by piece.

    The pieces of ``push`` and ``flush`` together are ``decode`` of all the tokens, cut before the first stop string,
    however the tokens fall.

    Args:
        decode: the text of a list of tokens, special tokens left out.
        stop: strings that end the answer; they are not part of it.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(decode)
        self._stop_strings = StopStrings(stop)
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The answer so far: all that ``push`` and ``flush`` gave."""
        return "".join(self._pieces)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come; nothing is added to the answer any more."""
        return self._stop_strings.found

    def push(self, token_id: int) -> str:
        """The text that is certain now and was not before."""
        return self._give(self._stop_strings.push(self._detokenizer.push(token_id)))

    def flush(self) -> str:
        """The rest of the answer, when no token comes any more. A second call gives nothing."""
        return self._give(self._stop_strings.push(self._detokenizer.flush()) + self._stop_strings.flush())

    def _give(self, text: str) -> str:
        self._pieces.append(text)
        return text

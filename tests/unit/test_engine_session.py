import dataclasses
import json

import pytest

from llmrun.engine.session import Message, Session
from llmrun.engine.text_stream import TextStream
from llmrun.errors import DeviceError, UsageError
from llmrun.events import Accepted, Finished, FinishReason, Token
from llmrun.settings import SamplingSettings


class LetterTokenizer:
    """A token is a character; a conversation is ``role:content;`` over and over."""

    def encode_chat(self, messages, *, think=None, generation_prompt=True):
        if any(message.content == "refused" for message in messages):
            raise UsageError("chat-template", "refused")
        text = "".join(f"{message.role[0]}:{message.content};" for message in messages)
        return [ord(c) for c in text + ("think!" if think else "") + ("a:" if generation_prompt else "")]

    def stream(self, stop=()):
        return TextStream(lambda ids: "".join(map(chr, ids)), stop)


class FakeGenerator:
    """Answers with the texts it was given; notes the prompts it got and how its generators ended."""

    def __init__(self, *answers, error=None, reason=FinishReason.STOP):
        self.answers = list(answers)
        self.error = error
        self.reason = reason
        self.prompts = []
        self.samplings = []
        self.closed = 0
        self.running = None
        self.tokens_ahead = 0

    def generate(self, prompt, sampling, stream):
        self.prompts.append("".join(map(chr, prompt)))
        self.samplings.append(sampling)
        self.running = self._events(prompt, stream)  # kept, so that only close() can end it
        return self.running

    def _events(self, prompt, stream):
        try:
            yield Accepted(0.0, len(prompt), 0)
            waiting = []
            for character in self.answers.pop(0):
                waiting.append(Token(0.0, ord(character), stream.push(ord(character))))
                if len(waiting) > self.tokens_ahead:
                    yield waiting.pop(0)
                if stream.stopped:
                    break
            yield from waiting
            if self.error:
                raise self.error
            yield Finished(0.0, self.reason, stream.flush())
        finally:
            self.closed += 1


def session_of(*answers, system=None, think=None, sampling=None, **options):
    generator = FakeGenerator(*answers, **options)
    return Session(generator, LetterTokenizer(), sampling or SamplingSettings(), system, think), generator


def until_token(events, text):
    """Reads events up to the token that says ``text``."""
    for event in events:
        if isinstance(event, Token) and event.text == text:
            return
    pytest.fail("the token never came")


def test_a_conversation_grows_by_question_and_answer():
    session, generator = session_of("yes", "no", system="S")
    events = list(session.ask("one?"))
    assert [type(event) for event in events] == [Accepted, Token, Token, Token, Finished]
    assert session.messages == (Message("system", "S"), Message("user", "one?"), Message("assistant", "yes"))
    list(session.ask("two?"))
    assert generator.prompts == ["s:S;u:one?;a:", "s:S;u:one?;a:yes;u:two?;a:"]
    assert generator.prompts[1].startswith(generator.prompts[0] + "yes")


def test_what_a_stop_string_held_back_belongs_to_the_answer():
    session, _ = session_of("a<EN", sampling=SamplingSettings(stop=("<END>",)))
    list(session.ask("q"))
    assert session.messages[-1].content == "a<EN"
    session, _ = session_of("a<END>b", sampling=SamplingSettings(stop=("<END>",)))
    list(session.ask("q"))
    assert session.messages[-1].content == "a"


def test_closing_keeps_the_answer_so_far_and_ends_the_generator():
    session, generator = session_of("yes", "ok")
    events = session.ask("q")
    until_token(events, "e")
    events.close()
    assert generator.closed == 1
    assert session.messages == (Message("user", "q"), Message("assistant", "ye"))
    list(session.ask("r"))
    assert generator.prompts[1] == "u:q;a:ye;u:r;a:"


def test_closing_keeps_what_was_held_back():
    session, _ = session_of("a<ENx", sampling=SamplingSettings(stop=("<END>",)))
    events = session.ask("q")
    for event in events:
        if isinstance(event, Token) and event.token_id == ord("N"):
            break
    events.close()
    assert session.messages[-1] == Message("assistant", "a<EN")


def test_closing_keeps_what_the_generator_is_ahead():
    session, generator = session_of("ye<s", sampling=SamplingSettings(stop=("<END>",)))
    generator.tokens_ahead = 2
    events = session.ask("q")
    until_token(events, "y")
    events.close()
    assert session.messages[-1] == Message("assistant", "ye<")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceError("read-failed", "disk")])
def test_an_error_in_mid_answer_keeps_the_answer_so_far(error):
    session, generator = session_of("ye", error=error)
    with pytest.raises(type(error)):
        list(session.ask("q"))
    assert session.messages == (Message("user", "q"), Message("assistant", "ye"))
    assert generator.closed == 1


@pytest.mark.parametrize(
    "options", [{"error": DeviceError("read-failed", "disk")}, {"reason": FinishReason.INTERRUPTED}]
)
def test_a_question_without_any_answer_is_taken_back(options):
    session, generator = session_of("yes", "", "fine")
    list(session.ask("q"))
    before = session.messages
    generator.error, generator.reason = options.get("error"), options.get("reason", FinishReason.STOP)
    try:
        list(session.ask("r"))
    except DeviceError:
        assert "error" in options
    assert session.messages == before
    generator.error = None
    list(session.ask("s"))
    assert generator.prompts[-1] == "u:q;a:yes;u:s;a:"


def test_an_empty_answer_of_the_model_is_an_answer():
    session, _ = session_of("")
    list(session.ask("q"))
    assert session.messages == (Message("user", "q"), Message("assistant", ""))


def test_a_refusing_template_leaves_the_conversation_as_it_was():
    session, _ = session_of("yes")
    list(session.ask("q"))
    with pytest.raises(UsageError, match="refused"):
        list(session.ask("refused"))
    assert session.messages[-1] == Message("assistant", "yes")


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_an_empty_prompt_is_refused_at_once(text):
    session, generator = session_of()
    with pytest.raises(UsageError) as caught:
        session.ask(text)
    assert caught.value.reference == "empty-prompt"
    assert generator.prompts == []


def test_regenerate_puts_another_answer_in_place_of_the_last():
    session, generator = session_of("yes", "no")
    list(session.ask("q"))
    list(session.regenerate())
    assert generator.prompts == ["u:q;a:", "u:q;a:"]
    assert session.messages == (Message("user", "q"), Message("assistant", "no"))


def test_regenerate_without_a_new_answer_keeps_the_old_one():
    session, _ = session_of("yes", "no")
    list(session.ask("q"))
    events = session.regenerate()
    next(events)
    events.close()
    assert session.messages == (Message("user", "q"), Message("assistant", "yes"))


def test_regenerate_needs_a_question():
    session, _ = session_of(system="S")
    with pytest.raises(UsageError) as caught:
        session.regenerate()
    assert caught.value.reference == "nothing-to-regenerate"


def test_clear_forgets_all_but_the_system_message():
    session, generator = session_of("yes", "no", system="S")
    list(session.ask("q"))
    session.clear()
    assert session.messages == (Message("system", "S"),)
    list(session.ask("r"))
    assert generator.prompts[-1] == "s:S;u:r;a:"


def test_the_system_message_can_be_set_and_taken_away():
    session, generator = session_of("x", "y", "z")
    list(session.ask("q"))
    session.set_system("S")
    list(session.ask("r"))
    assert generator.prompts[-1] == "s:S;u:q;a:x;u:r;a:"
    session.set_system(" ")
    list(session.ask("t"))
    assert generator.prompts[-1] == "u:q;a:x;u:r;a:y;u:t;a:"


def test_sampling_and_thinking_can_be_set_between_answers():
    session, generator = session_of("x", "y")
    list(session.ask("q"))
    session.sampling = dataclasses.replace(session.sampling, temperature=0.0)
    session.think = True
    list(session.ask("r"))
    assert [sampling.temperature for sampling in generator.samplings] == [None, 0.0]
    assert generator.prompts == ["u:q;a:", "u:q;a:x;u:r;think!a:"]


def test_token_count_is_that_of_the_conversation():
    session, _ = session_of("yes", system="S")
    assert session.token_count == 0
    list(session.ask("q"))
    assert session.token_count == len("s:S;u:q;a:yes;")


def test_a_saved_conversation_comes_back(tmp_path):
    path = tmp_path / "talk.json"
    session, _ = session_of("ja 🙂", system="S")
    list(session.ask("qué?\n"))
    session.save(path)
    assert json.loads(path.read_text(encoding="utf-8"))["schema"] == 1
    other, generator = session_of("no")
    other.restore(Session.load_messages(path))
    assert other.messages == session.messages
    list(other.ask("r"))
    assert generator.prompts == ["s:S;u:qué?\n;a:ja 🙂;u:r;a:"]


def test_saving_leaves_one_file_and_replaces_the_old_one(tmp_path):
    session, _ = session_of("x")
    session.save(tmp_path / "talk.json")
    list(session.ask("q"))
    session.save(tmp_path / "talk.json")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]
    assert len(Session.load_messages(tmp_path / "talk.json")) == 2


def test_a_session_that_cannot_be_saved_is_an_error(tmp_path):
    session, _ = session_of()
    with pytest.raises(DeviceError, match="No such file") as caught:
        session.save(tmp_path / "nowhere" / "talk.json")
    assert caught.value.reference == "session-not-saved"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"schema": 2, "messages": []}',
        '{"schema": 1}',
        '{"schema": 1, "messages": {}}',
        '{"schema": 1, "messages": ["hello"]}',
        '{"schema": 1, "messages": [{"role": "user"}]}',
        '{"schema": 1, "messages": [{"role": "user", "content": 3}]}',
        '{"schema": 1, "messages": [{"role": "robot", "content": "x"}]}',
        '{"schema": 1, "messages": [{"role": ["user"], "content": "x"}]}',
    ],
)
def test_a_bad_session_file_is_an_error(tmp_path, text):
    path = tmp_path / "talk.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        Session.load_messages(path)
    assert caught.value.reference == "bad-session-file"
    assert str(path) in caught.value.message

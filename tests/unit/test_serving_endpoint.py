"""A server as `llmrun compare` sees it: what counts as an answer, and each way in which it fails."""

import asyncio
import json
from itertools import pairwise

import httpx2
import pytest
import streaming_server as server
from hypothesis import given
from hypothesis import strategies as st
from streaming_server import DONE, chat_chunk, event, serving

from llmrun.bench.serving.chunk import printable
from llmrun.bench.serving.endpoint import Api, Endpoint, api_key, open_endpoint
from llmrun.bench.serving.load import Load, attempt, drive
from llmrun.bench.serving.outcome import Answer, Failure
from llmrun.bench.serving.workload import Request
from llmrun.errors import DeviceError, UsageError

REQUEST = Request("Name a river.", 3)


def ask(url, *, timeout_s=30.0, model="m", api=Api.CHAT, **options):
    async def run():
        async with open_endpoint(f"{url}/v1/", model, api, **options) as endpoint:
            return await attempt(endpoint.ask, REQUEST, timeout_s)

    return asyncio.run(run())


def asked(*replies, **options):
    """The outcome of one request."""
    with serving(*replies) as running:
        return ask(running.url, **options)


@pytest.mark.parametrize("reply", [server.ok, server.in_crumbs, server.without_done])
def test_an_answer(reply):
    answer = asked(reply)
    assert isinstance(answer, Answer), answer
    assert len(answer.token_times_s) == 3  # the role alone is no token, nor is the word that it ends
    assert (answer.prompt_tokens, answer.output_tokens, answer.counted_by) == (7, 3, "usage")
    assert answer.sent_s <= answer.token_times_s[0] <= answer.token_times_s[-1] <= answer.end_s


def test_a_completion():
    answer = asked(server.text_ok, api=Api.COMPLETIONS)
    assert (len(answer.token_times_s), answer.output_tokens) == (3, 3)


def test_without_usage_the_chunks_with_text_are_counted():
    answer = asked(server.without_usage)
    assert (answer.prompt_tokens, answer.output_tokens, answer.counted_by) == (None, 3, "chunks")


def test_tokens_without_text_come_with_the_end():
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    answer = asked(lambda exchange: exchange.stream([event(chat_chunk(finish="stop")), event(usage), DONE]))
    assert (answer.token_times_s, answer.output_tokens) == ((answer.end_s,), 2)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_are_tokens(name):
    def thinks(exchange):
        exchange.stream([event({"choices": [{"delta": {name: "hm"}}]}), *server.CHAT, *server.END])

    assert len(asked(thinks).token_times_s) == 4


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (server.stalls, "no end within 0.2 s (--timeout)"),
        (server.never_answers, "no end within 0.2 s (--timeout)"),
        (server.drops, "connection broke off in mid-stream"),
        (server.drops_at_once, "connection broke off before the answer"),
        (server.ends_early, "the stream ended before the answer"),
        (server.broken_json, "broken chunk: not JSON"),
        (server.wrong_shape, "broken chunk: choices.0.delta.content: Input should be a valid string"),
        (server.error_in_stream, "error in the stream: out of [31m memory"),
        (server.no_text, "an answer without a token"),
        (server.too_many, "HTTP 429 Too Many Requests (Retry-After: 2): slow down"),
        (server.fails, "HTTP 500 Internal Server Error: <html>Internal Server Error</html>"),
    ],
)
def test_failures_have_a_reason(reply, reason):
    waits = reply in (server.stalls, server.never_answers)
    failure = asked(reply, timeout_s=0.2 if waits else 30.0)
    assert isinstance(failure, Failure), failure
    assert failure.reason == reason


def test_a_page_instead_of_a_stream():
    assert asked(server.not_a_stream).reason.startswith("no event stream: ")


def test_nobody_listens():
    with serving() as gone:
        pass
    assert ask(gone.url).reason.startswith("no connection: ")
    with pytest.raises(DeviceError) as error:
        ask(gone.url, model=None)
    assert error.value.reference == "endpoint-unreachable"


def test_a_refusal_is_not_asked_again():
    with serving(server.too_many, server.ok) as running:
        assert isinstance(ask(running.url), Failure)
        assert len(running.bodies) == 1


def test_each_request_has_a_connection_of_its_own():
    """So that a server that closes after an answer, without a word, as llama.cpp's does, costs no request."""
    connections = []

    def closes(exchange):
        connections.append(exchange.handler.client_address)
        server.ok(exchange)
        exchange.drop()

    _, done = driven(closes, count=6, load=Load(max_concurrency=1))
    assert all(isinstance(outcome, Answer) for outcome in done.outcomes)
    assert len(set(connections)) == 6


def test_what_is_sent():
    with serving() as running:
        ask(running.url, ignore_eos=True, key="sesame")
        ask(running.url, api=Api.COMPLETIONS)
    same = {"model": "m", "max_tokens": 3, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    chat = {"messages": [{"role": "user", "content": "Name a river."}], "ignore_eos": True}
    assert running.bodies == [same | chat, same | {"prompt": "Name a river."}]
    assert running.paths == ["/v1/chat/completions", "/v1/completions"]
    assert running.headers[0]["Authorization"] == "Bearer sesame"
    assert "Authorization" not in running.headers[1]


def test_the_first_model_of_the_server():
    with serving() as running:
        ask(running.url, model=None)
    assert running.bodies[0]["model"] == server.MODEL


@pytest.mark.parametrize(
    ("reply", "says", "hint"),
    [
        (lambda exchange: exchange.page(200, '{"data": []}'), "empty or none", "--model"),
        (lambda exchange: exchange.page(200, "<html>"), "empty or none", "--model"),
        (lambda exchange: exchange.page(404, "not here"), "HTTP 404 Not Found: not here", "--model"),
        (
            lambda exchange: exchange.page(401, '{"error": "no key like sesame"}'),
            "no key like \\*\\*\\*",
            "OPENAI_API_KEY",
        ),
    ],
)
def test_a_server_that_names_no_model(reply, says, hint):
    with serving(models=reply) as running, pytest.raises(DeviceError, match=says) as error:
        ask(running.url, model=None, key="sesame")
    assert error.value.reference == "endpoint-no-model"
    assert hint in error.value.hint


def test_a_key_is_never_told():
    failure = asked(lambda exchange: exchange.page(401, '{"error": {"message": "bad: sesame"}}'), key="sesame")
    assert failure.reason == "HTTP 401 Unauthorized: bad: ***"
    assert "sesame" not in repr(Endpoint(httpx2.AsyncClient(), "m", Api.CHAT, key="sesame"))


def test_the_key_of_the_environment():
    assert api_key({}) is api_key({"OPENAI_API_KEY": " "}) is None
    assert api_key({"OPENAI_API_KEY": "theirs\n"}) == "theirs"
    assert api_key({"OPENAI_API_KEY": "theirs", "LLMRUN_API_KEY": "ours"}) == "ours"
    with pytest.raises(UsageError) as error:
        api_key({"LLMRUN_API_KEY": "schlüssel"})
    assert "schlüssel" not in error.value.render()


def driven(*replies, count, load):
    ended = []

    async def run(url):
        async with open_endpoint(f"{url}/v1/", "m", Api.CHAT) as endpoint:
            return await drive(endpoint.ask, [REQUEST] * count, load, lambda: ended.append(1))

    with serving(*replies) as running:
        done = asyncio.run(run(running.url))
    assert len(ended) == len(done.outcomes) == count
    return running, done


def test_some_fail_and_the_others_count():
    _, done = driven(server.ok, server.fails, server.drops, server.ok, count=5, load=Load(max_concurrency=1))
    assert [isinstance(outcome, Answer) for outcome in done.outcomes] == [True, False, False, True, True]
    assert not done.interrupted


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_than_so_many_are_under_way(most):
    running, _ = driven(server.ok, count=8, load=Load(max_concurrency=most))
    assert running.most_under_way <= most


def test_all_at_once():
    together = 4
    arrived = asyncio.run(_all_under_way(together))
    assert arrived == together


async def _all_under_way(count):
    waiting, everyone = 0, asyncio.Event()

    async def ask(request):
        nonlocal waiting
        waiting += 1
        if waiting == count:
            everyone.set()
        await everyone.wait()
        return Answer(0.0, (1.0,), 1.0, 1, 1, "usage")

    await drive(ask, [REQUEST] * count, Load(), lambda: None)
    return waiting


def test_cancelled_it_keeps_what_has_ended():
    async def run():
        under_way = asyncio.Event()

        async def ask(request):
            if request.max_tokens > 1:
                under_way.set()
                await asyncio.Event().wait()
            return Answer(0.0, (1.0,), 1.0, 1, 1, "usage")

        task = asyncio.create_task(drive(ask, [Request("a", 1), Request("b", 2)], Load(), lambda: None))
        await under_way.wait()
        task.cancel()
        return await task

    done = asyncio.run(run())
    assert (len(done.outcomes), done.n_requests, done.interrupted) == (1, 2, True)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(
    words=st.lists(WORDS, min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=30),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    escaped=st.booleans(),
)
def test_a_stream_is_the_same_however_it_is_cut(words, cuts, newline, escaped):
    chunks = [chat_chunk(word) for word in words] + [{"choices": [], "usage": {"completion_tokens": 99}}]
    lines = [line for chunk in chunks for line in (": ping", f"data: {json.dumps(chunk, ensure_ascii=escaped)}", "")]
    data = newline.join(line.encode() for line in [*lines, "data: [DONE]", "", ""])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})

    async def parts():
        for begin, end in pairwise(edges):
            yield data[begin:end]

    async def run():
        headers = {"Content-Type": "text/event-stream; charset=utf-8"}
        transport = httpx2.MockTransport(lambda request: httpx2.Response(200, headers=headers, content=parts()))
        async with httpx2.AsyncClient(transport=transport, base_url="http://a/v1/") as client:
            return await Endpoint(client, "m", Api.CHAT).ask(REQUEST)

    answer = asyncio.run(run())
    assert (len(answer.token_times_s), answer.output_tokens) == (len(words), 99)


def test_what_a_server_says_steers_no_terminal():
    assert printable("a\x1b[31m\r\nb\u202e c") == "a [31m b c"
    assert len(printable("x" * 10_000)) == 200

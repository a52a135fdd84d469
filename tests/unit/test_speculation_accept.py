"""What is taken of a draft: greedily the model's own answer, in sampling tokens that are distributed as the model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from llmrun.engine.request import Script
from llmrun.engine.sampling import Sampler
from llmrun.engine.speculation.accept import accept
from llmrun.engine.speculation.chain import draft_chain
from llmrun.engine.speculation.draft import Draft
from llmrun.settings import SamplingSettings

V, LENGTH, N = 4, 3, 3000
Model = Callable[[Sequence[int]], torch.Tensor]


def model(seed: int, sharp: float = 1.5) -> Model:
    """Logits ``(V,)`` by the last two tokens."""
    table = torch.randn(V, V, V, generator=torch.Generator().manual_seed(seed)) * sharp
    return lambda tokens: table[tokens[-2], tokens[-1]]


TARGET, OTHER = model(1), model(2)
MIXED: Model = lambda tokens: 0.7 * TARGET(tokens) + 0.3 * OTHER(tokens)  # noqa: E731
PROMPT = [0, 1]


def sampler(seed: int | None = None, **options: float) -> Sampler:
    settings = SamplingSettings(**{"temperature": 1.0, "top_k": 0, **options}, seed=seed)  # type: ignore[arg-type]
    return Sampler(settings, {}, [])


def answer(drafting: Model | None, chooser: Sampler, count: int, take: Callable[..., list[int]] = accept) -> list[int]:
    """Tokens of the target after the prompt, drafted by another model."""
    tokens = list(PROMPT)
    while len(tokens) - len(PROMPT) < count:
        said = list(tokens[:-1])

        def decode(token: int, said: list[int] = said) -> torch.Tensor:
            said.append(token)
            assert drafting
            return drafting(said)

        draft = draft_chain(decode, tokens, LENGTH, chooser) if drafting else Draft()
        rows = torch.stack([TARGET([*tokens, *draft.tokens[:i]]) for i in range(len(draft.tokens) + 1)])
        tokens += take(draft, rows, tokens, chooser)
    return tokens[len(PROMPT) : len(PROMPT) + count]


def expected(temperature: float = 1.0) -> list[float]:
    """The probability of each answer of LENGTH tokens."""
    result = []
    for words in product(range(V), repeat=LENGTH):
        tokens, share = list(PROMPT), 1.0
        for word in words:
            share *= float((TARGET(tokens) / temperature).softmax(-1)[word])
            tokens.append(word)
        result.append(share)
    return result


def pvalue(answers: list[list[int]], shares: list[float]) -> float:
    """Of a chi-square test; answers that are rare count together."""
    counts = [0] * len(shares)
    for words in answers:
        counts[sum(word * V ** (LENGTH - 1 - i) for i, word in enumerate(words))] += 1
    often = [i for i, share in enumerate(shares) if share * N >= 5]
    seen = [counts[i] for i in often] + [N - sum(counts[i] for i in often)]
    meant = [shares[i] * N for i in often]
    meant.append(max(N - sum(meant), 1e-9))
    return float(chisquare(seen, [m * N / sum(meant) for m in meant]).pvalue)


def many(drafting: Model | None, take: Callable[..., list[int]] = accept, temperature: float = 1.0) -> list[list[int]]:
    chooser = sampler(None, temperature=temperature)
    chooser._generator.manual_seed(5)
    return [answer(drafting, chooser, LENGTH, take) for _ in range(N)]


@pytest.mark.parametrize("drafting", [TARGET, MIXED, OTHER], ids=["perfect", "good", "bad"])
def test_drawn_tokens_are_distributed_as_the_models_own(drafting: Model) -> None:
    assert pvalue(many(drafting), expected()) > 0.001


def test_the_distribution_is_that_after_the_processors() -> None:
    assert pvalue(many(OTHER, temperature=0.6), expected(0.6)) > 0.001


def too_willing(draft: Draft, rows: torch.Tensor, past: Sequence[int], chooser: Sampler) -> list[int]:
    """A wrong rule: what is refused is drawn from p, not from what is left of it."""
    assert draft.probabilities is not None
    for i, guess in enumerate(draft.tokens):
        p = chooser.probabilities(rows[i], past)
        if chooser.chance() * draft.probabilities[i][guess] >= p[guess]:
            return [*draft.tokens[:i], chooser.draw(p)]
    return [*draft.tokens, chooser.next(rows[-1], past)]


def test_a_wrong_rule_would_be_noticed() -> None:
    assert pvalue(many(OTHER, too_willing), expected()) < 1e-6


def test_more_is_taken_of_a_better_draft() -> None:
    def taken(drafting: Model) -> int:
        chooser, total = sampler(None), 0
        chooser._generator.manual_seed(5)

        def count(draft: Draft, *rest: object) -> list[int]:
            nonlocal total
            chosen = accept(draft, *rest)  # type: ignore[arg-type]
            total += len(chosen) - 1
            return chosen

        for _ in range(300):
            answer(drafting, chooser, 1, count)
        return total

    assert taken(TARGET) == 300 * LENGTH  # p is q: nothing is refused
    assert taken(TARGET) > taken(MIXED) > taken(OTHER)


@pytest.mark.parametrize("drafting", [TARGET, MIXED, OTHER], ids=["perfect", "good", "bad"])
@pytest.mark.parametrize("options", [{"seed": 3}, {"temperature": 0.0}, {"seed": 4, "repetition_penalty": 1.7}])
def test_a_seed_and_greed_give_the_text_of_a_run_without_drafts(drafting: Model, options: dict[str, float]) -> None:
    assert answer(drafting, sampler(**options), 40) == answer(None, sampler(**options), 40)  # type: ignore[arg-type]


def test_a_coupled_draft_of_a_near_model_is_mostly_taken() -> None:
    """Daliri et al. 2024: alike in at least sum min(p, q) / sum max(p, q) of all cases."""
    chooser = sampler(3)
    rows = torch.stack([TARGET(PROMPT)] * 2)
    p, q = TARGET(PROMPT).softmax(-1), MIXED(PROMPT).softmax(-1)
    alike = 0
    for _ in range(600):
        draft = draft_chain(lambda token: MIXED(PROMPT), PROMPT, 1, chooser)
        alike += accept(draft, rows, PROMPT, chooser)[0] == draft.tokens[0]
    least = float(torch.minimum(p, q).sum() / torch.maximum(p, q).sum())
    assert alike / 600 > least - 0.04
    assert least > float((p * q).sum()) + 0.1  # two draws of noise of their own


def test_a_draft_that_is_certain_is_taken_as_often_as_the_model_would_draw_it() -> None:
    chooser = sampler(9)
    rows = torch.stack([TARGET(PROMPT)] * 2)
    first = [accept(Draft((2,)), rows, PROMPT, chooser)[0] for _ in range(N)]
    shares = TARGET(PROMPT).softmax(-1).double() * N
    assert chisquare([first.count(word) for word in range(V)], shares / shares.sum() * N).pvalue > 0.001


def test_the_repetition_penalty_counts_what_was_taken() -> None:
    row = torch.tensor([2.0, 1.9, 0.0, 0.0])
    chooser = Sampler(SamplingSettings(temperature=0, repetition_penalty=1.5), {}, [])
    assert accept(Draft((0, 1, 0)), torch.stack([row] * 4), [], chooser) == [0, 1, 0, 0]
    assert accept(Draft((0, 0, 0)), torch.stack([row] * 4), [], chooser) == [0, 1]


def test_given_tokens_are_taken_as_far_as_they_were_guessed() -> None:
    assert accept(Draft((7, 8, 3)), torch.zeros(4, V), [], Script([7, 8, 9, 5])) == [7, 8, 9]


def test_a_draft_ends_where_its_model_is_no_longer_sure() -> None:
    logits = torch.tensor([3.0, 0.0, 0.0, 0.0])
    doubt = -float(logits.log_softmax(-1).max())
    draft = draft_chain(lambda token: logits, PROMPT, 9, sampler(temperature=0.0), most_doubt=2.5 * doubt)
    assert draft.tokens == (0, 0)
    assert draft.doubts == pytest.approx((doubt, doubt))


def test_greedy_probabilities_are_certain() -> None:
    greedy = sampler(temperature=0.0)
    assert greedy.probabilities(TARGET(PROMPT), []).tolist().count(1.0) == 1
    draft = Draft((int(OTHER(PROMPT).argmax()),), OTHER(PROMPT).softmax(-1)[None])
    rows = torch.stack([TARGET(PROMPT)] * 2)
    assert accept(draft, rows, PROMPT, greedy)[0] == int(TARGET(PROMPT).argmax())


BUSH = (-1, -1, -1, 0, 0, 1, 1, 3)
"""Three guesses for the first place, two after the first and the second of them, one more."""


def bush(drafting: Model, tokens: Sequence[int], chooser: Sampler) -> Draft:
    """A tree of that form from a drafting model, with the noise that is to come."""
    found: list[int] = []
    next_noise = chooser.noise_ahead()
    noise = [next_noise(V) for _ in range(LENGTH)]
    for index, parent in enumerate(BUSH):
        way: list[int] = []
        node = parent
        while node >= 0:
            way.insert(0, found[node])
            node = BUSH[node]
        past = [*tokens, *way]
        order = chooser.leanings(drafting(past), past, noise[len(way)]).argsort(descending=True).tolist()
        found.append(order[BUSH[:index].count(parent)])
    return Draft(tuple(found), parents=BUSH)


def tree_answer(drafting: Model | None, chooser: Sampler, count: int) -> tuple[list[int], int]:
    """Tokens of the target after the prompt, and how many passes over it they took."""
    tokens, passes = list(PROMPT), 0
    while len(tokens) - len(PROMPT) < count:
        draft = bush(drafting, tokens, chooser) if drafting else Draft()
        found = [TARGET(tokens)]
        for index in range(len(draft.tokens)):
            way = [i for i in range(len(draft.tokens)) if draft.sees[index + 1, i + 1]]
            found.append(TARGET([*tokens, *(draft.tokens[i] for i in way)]))
        tokens += accept(draft, torch.stack(found), tokens, chooser)
        passes += 1
    return tokens[len(PROMPT) : len(PROMPT) + count], passes


def test_tokens_drawn_along_a_tree_are_distributed_as_the_models_own() -> None:
    chooser = sampler(None)
    chooser._generator.manual_seed(5)
    answers = [tree_answer(OTHER, chooser, LENGTH)[0] for _ in range(N)]
    assert pvalue(answers, expected()) > 0.001


@pytest.mark.parametrize("drafting", [TARGET, MIXED, OTHER], ids=["perfect", "good", "bad"])
@pytest.mark.parametrize("options", [{"seed": 3}, {"temperature": 0.0}, {"seed": 4, "repetition_penalty": 1.7}])
def test_with_trees_too_the_text_is_that_of_a_run_without(drafting: Model, options: dict[str, float]) -> None:
    own, drafted = (tree_answer(each, sampler(**options), 40) for each in (None, drafting))  # type: ignore[arg-type]
    assert own[0] == drafted[0]
    assert own[1] == 40 > drafted[1]
    assert drafted[1] <= (10 if drafting is TARGET else 30)  # a perfect one: all that comes first at its places


def test_the_walk_goes_on_in_the_guess_that_was_chosen() -> None:
    draft = Draft((5, 6, 7, 8, 8), parents=(-1, -1, 0, 1, 0))
    for script, path in (([6, 8, 2], [1, 3]), ([5, 8, 2], [0, 4]), ([5, 6, 2], [0]), ([9, 2], [])):
        chosen = accept(draft, torch.zeros(6, V), [], Script(script))
        assert chosen == script[: len(path) + 1]
        assert draft.path(chosen[:-1]) == path
    assert draft.depth == 2
    assert draft.sees.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 0, 1, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"seed": 4, "top_k": 2, "temperature": 0.5}])
def test_leanings_say_what_will_be_drawn(options: dict[str, float]) -> None:
    chooser = sampler(**options)  # type: ignore[arg-type]
    next_noise = chooser.noise_ahead()
    for tokens in product(range(V), repeat=3):
        row = TARGET(tokens)
        leaning = int(chooser.leanings(row, [], next_noise(V)).argmax())
        assert leaning == chooser.next(row, [])

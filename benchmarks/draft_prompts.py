"""The prompts of speculation.py and substitutes.py: four kinds, and words that are hard to guess."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

STORY = (
    "The village lies at the end of a long valley. In winter the road is closed for weeks, and what people need has to "
    "be there by November. Flour, salt and lamp oil come up on mules; wood is cut in September and dried under the "
    "eaves. Last year the mules came late, because a bridge had fallen, and for ten days there was no bread. Since "
    "then every house keeps a second sack of flour, and the council has bought timber for a new bridge, which is to be "
    "built in May by the men of both villages. The mayor says that it will be wide enough for a cart."
)
KINDS: Mapping[str, Sequence[str]] = {
    "chat": (
        "What should I see in Paris in two days?",
        "Explain to a child why the sky is blue.",
        "How do I keep a houseplant alive in winter?",
        "Give me three ideas for a birthday party at home.",
        "What is the difference between a virus and a bacterium?",
    ),
    "code": (
        "Write a Python function that returns the n-th Fibonacci number.",
        "Write a Python function that reverses the words of a sentence.",
        "Write a SQL query that counts the orders of each customer.",
        "Write a JavaScript function that checks whether a number is prime.",
        "Write a Python class for a bank account with deposit and withdraw.",
    ),
    "summary": tuple(
        f"{task}\n\n{STORY}"
        for task in (
            "Summarize this text in two sentences.",
            "List the main facts of this text.",
            "What happened last year, according to this text?",
            "Write a headline and a short summary of this text.",
            "Repeat this text, but in the past tense.",
        )
    ),
    "translation": tuple(
        f"Translate into {language}: {sentence}"
        for language, sentence in (
            ("French", "The train to the coast leaves at nine, and we have forgotten the tickets."),
            ("German", "My neighbour has a small garden in which he grows tomatoes and beans."),
            ("Spanish", "The museum is closed on Mondays, but the park behind it is always open."),
            ("Italian", "She read the letter twice and put it back into the drawer."),
            ("Portuguese", "It rained all night, and in the morning the street was full of leaves."),
        )
    ),
}
WORDS = tuple(STORY.replace(",", "").replace(".", "").lower().split())
RANDOM, RANDOM_PROMPTS, RANDOM_WORDS = "random words", 3, 40


def prompts(each: int) -> Iterator[tuple[str, str]]:
    """Kind and prompt."""
    for kind, texts in KINDS.items():
        yield from ((kind, text) for text in texts[:each])
    source = random.Random(6)
    for _ in range(RANDOM_PROMPTS):
        yield RANDOM, " ".join(source.choices(WORDS, k=RANDOM_WORDS))

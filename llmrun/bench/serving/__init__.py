"""The same requests against any OpenAI-compatible server and against llmrun: what `llmrun compare` measures.

``target`` says what is compared, ``workload`` and ``schedule`` what is asked and when; ``endpoint`` and ``local``
answer a request, ``load`` sends them all, ``measure`` does so for a target; ``metrics`` makes figures of the
outcomes and ``report`` a table or JSON of these.
"""

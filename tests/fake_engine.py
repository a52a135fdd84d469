"""A model that is not there: scripted answers, one token a character, for tests of what shows and stores them."""

from contextlib import contextmanager
from dataclasses import dataclass, field

from llmrun.checkpoint.spec import ModelSpec, TensorSpec, UnitKind, UnitSpec
from llmrun.cli.run import Running
from llmrun.engine.text_stream import TextStream
from llmrun.events import Accepted, BytesRead, Finished, FinishReason, MemorySample, PrefillProgress, Stall, Token
from llmrun.planner.plan import DeviceMemory, MemoryLine, Placement, Plan
from llmrun.settings import Budget, Workload
from llmrun.units import MIB


def letters(token_ids):
    return "".join(map(chr, token_ids))


class LetterTokenizer:
    """A token is a character; a conversation is ``role:content;`` over and over."""

    def __init__(self):
        self.thinks = []

    def encode_chat(self, messages, *, think=None, generation_prompt=True):
        self.thinks.append(think)
        return [ord(c) for message in messages for c in f"{message.role}:{message.content};"]

    def stream(self, stop=()):
        return TextStream(letters, stop)


@dataclass
class FakeEngine:
    """Gives the answers one after the other; an exception among the characters is raised there."""

    answers: list = field(default_factory=lambda: ["Paris."])
    tokenizer: LetterTokenizer = field(default_factory=LetterTokenizer)
    prompts: list = field(default_factory=list)
    samplings: list = field(default_factory=list)
    closed: int = 0

    @property
    def thinks(self):
        return self.tokenizer.thinks

    def generate(self, prompt, sampling, stream):
        self.prompts.append(letters(prompt))
        self.samplings.append(sampling)
        answer = self.answers.pop(0)
        yield Accepted(100.0, len(prompt), 0)
        yield BytesRead(101.0, "disk", 600 * MIB)
        yield Stall(101.0, "layer 0", 0.5)
        yield PrefillProgress(101.0, 2, 2, len(prompt))
        yield MemorySample(101.0, "cpu", 300 * MIB, 400 * MIB, 512 * MIB)
        for index, part in enumerate(answer):
            if isinstance(part, BaseException):
                raise part
            yield BytesRead(102.0 + index, "disk", 100 * MIB)
            yield Token(102.0 + index, ord(part), stream.push(ord(part)))
        yield Finished(110.0, FinishReason.STOP, stream.flush())


def spec() -> ModelSpec:
    matrix = TensorSpec("embed", "model.safetensors", 0, 100 * MIB, "BF16", (100, 524288))
    layer = TensorSpec("layer", "model.safetensors", 100 * MIB, 400 * MIB, "BF16", (400, 524288))
    units = (
        UnitSpec("embedding", UnitKind.EMBEDDING, None, (matrix,), 0),
        UnitSpec("layer 0", UnitKind.LAYER, 0, (layer,), 1000, 64),
    )
    return ModelSpec(
        name="fake:1b", folder="/models/fake", architecture="LlamaForCausalLM", model_type="llama", dtype="BF16",
        n_layers=1, hidden_size=8, intermediate_size=16, n_heads=2, n_kv_heads=2, head_dim=4, vocab_size=100,
        context_tokens=2048, tied_embeddings=False, embedding=matrix, units=units,
    )  # fmt: skip


def plan() -> Plan:
    placements = (Placement("embedding", "cpu", "cpu"), Placement("layer 0", "disk", "cpu"))
    memory = (DeviceMemory("cpu", 512 * MIB, (MemoryLine("process", 400 * MIB),)),)
    return Plan("fake:1b", "even", Workload(context_tokens=2048), placements, (), memory)


def starts(engine: FakeEngine, settings_seen=None):
    """A stand-in for ``llmrun.cli.run.start``."""

    @contextmanager
    def start(settings, notify, starting):
        if settings_seen is not None:
            settings_seen.append(settings)
        notify("fetching the model")
        starting("starting fake:1b")
        try:
            yield Running(spec(), Budget(512 * MIB), plan(), engine)
        finally:
            engine.closed += 1

    return start

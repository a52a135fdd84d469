"""Names of models to checkpoints on this disk: folders, Hugging Face ids, GGUF files, aliases."""

from llmrun.hub.aliases import DEFAULT_ALIAS
from llmrun.hub.describe import find_spec
from llmrun.hub.model import LocalModel, Notify, Origin
from llmrun.hub.names import resolve

__all__ = ["DEFAULT_ALIAS", "LocalModel", "Notify", "Origin", "find_spec", "resolve"]

"""llmrun runs language models that are larger than the memory they may use."""

__version__ = "0.1.0"

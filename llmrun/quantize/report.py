"""What becomes of the tensors of a checkpoint, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llmrun.checkpoint.written import Shard
from llmrun.units import format_bytes


def becomes(files: Sequence[Shard]) -> str:
    """How large the files are, how many matrices each format has, and the bits per weight of all together."""
    pieces = [piece for shard in files for piece in shard.pieces]
    packed = Counter(piece.fmt.name for piece in pieces if not piece.is_kept)
    said = [f"{count} matrices {name}" for name, count in sorted(packed.items(), key=lambda item: -item[1])]
    said += [f"{sum(piece.is_kept for piece in pieces)} tensors as they are"]
    n_weights = sum(piece.n_weights for piece in pieces)
    size = format_bytes(sum(shard.nbytes for shard in files))
    return f"{size}: {', '.join(said)}; {8 * sum(piece.nbytes for piece in pieces) / n_weights:.2f} bits per weight"

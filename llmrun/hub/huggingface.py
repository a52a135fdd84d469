"""Models on the Hugging Face hub, all through ``huggingface_hub``.

The library honours HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE, resumes a broken-off file and draws its progress
bar only on a terminal.
"""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmrun.errors import CheckpointError, DeviceError
from llmrun.hub.disk import check_room, writing
from llmrun.hub.folder import PICKLES, check_folder, nbytes
from llmrun.hub.hf_cache import HubId
from llmrun.hub.model import Notify
from llmrun.units import format_bytes

_DOWNLOADING = ("the download", "`llmrun pull {hub}` goes on where it stopped")
_CONNECT_TIMEOUT_S = 3.0
_PROBE_TIMEOUT_S = 5.0  # looking a name up has no timeout of its own
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors.index.json",
    "tokenizer*",
    "*.model",
    "chat_template*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "tekken.json",
)


def unreachable() -> str | None:
    """Why the hub cannot be asked, or ``None`` where it answers. Takes five seconds at most."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "offline mode is on (HF_HUB_OFFLINE)"
    answers: list[str | None] = []
    # a thread of its own, because a dead name server can hold the look-up for minutes
    probe = threading.Thread(target=lambda: answers.append(_probe(constants.ENDPOINT)), daemon=True)
    probe.start()
    probe.join(_PROBE_TIMEOUT_S)
    return answers[0] if answers else f"{constants.ENDPOINT} did not answer within {_PROBE_TIMEOUT_S:.0f} s"


def _probe(endpoint: str) -> str | None:
    from huggingface_hub import get_session
    from huggingface_hub.errors import HTTPError

    try:
        status = get_session().head(endpoint, timeout=_CONNECT_TIMEOUT_S).status_code
    except (HTTPError, OSError, ValueError) as error:
        return f"{endpoint} cannot be reached ({error or type(error).__name__})"
    return f"{endpoint} answers with status {status}" if status >= 500 or status == 407 else None


def download(hub: HubId, *, notify: Notify) -> Path:
    """Bring the files that are needed into the local cache; what is there already is not fetched again.

    Raises:
        CheckpointError: ``model-not-found``, ``revision-not-found``, ``model-gated``, ``pickle-checkpoint``,
            ``no-weights``.
        DeviceError: ``disk-full``, ``write-failed``, ``download-failed``.
    """
    from huggingface_hub import constants, snapshot_download

    cache = Path(constants.HF_HUB_CACHE)
    with telling(hub, *_DOWNLOADING):
        _, sizes = file_sizes(hub)
    files = needed_files(hub, list(sizes))
    needed_bytes = max(0, sum(sizes[name] for name in files) - _bytes_here(cache, hub))
    check_room(cache, needed_bytes)
    notify(f"downloading {hub} from {constants.ENDPOINT}, {format_bytes(needed_bytes)}")
    with writing(cache, needed_bytes), telling(hub, *_DOWNLOADING):
        folder = snapshot_download(
            hub.repo,
            revision=hub.revision,
            allow_patterns=files,
            endpoint=constants.ENDPOINT,
            tqdm_class=_progress_bar(),
        )
    return check_folder(Path(folder))


def file_sizes(hub: HubId) -> tuple[str, dict[str, int]]:
    """The commit that a revision is at, and the bytes of every file in it. Call it within ``telling``."""
    from huggingface_hub import HfApi, constants

    info = HfApi(endpoint=constants.ENDPOINT).model_info(hub.repo, revision=hub.revision, files_metadata=True)
    return info.sha or hub.revision, {file.rfilename: file.size or 0 for file in info.siblings or ()}


def needed_files(hub: HubId, names: Sequence[str]) -> list[str]:
    """The files of a repository that a run needs: no pickles, no second copy of the weights.

    Raises:
        CheckpointError: ``pickle-checkpoint``, ``no-weights``.
    """
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if _WEIGHTS.fullmatch(name)]
    if "model.safetensors" in weights:
        weights = ["model.safetensors"]
    # repositories of Mistral hold the same weights again as consolidated.safetensors
    weights = weights or [name for name in top if name.endswith(".safetensors") and "consolidated" not in name]
    if not weights:
        raise _no_weights(hub, names)
    small = [name for name in top if any(fnmatch.fnmatch(name, pattern) for pattern in _SMALL_FILES)]
    return sorted({*weights, *(name for name in small if not name.endswith(PICKLES))})


def _progress_bar() -> Any:  # noqa: ANN401 - a subclass of tqdm
    """The library's own bar, silent where stderr is no terminal (the library silences some of its bars only)."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            super().__init__(*args, **(kwargs | {"disable": None}))

    return Bar


def _bytes_here(cache: Path, hub: HubId) -> int:
    from huggingface_hub.file_download import repo_folder_name

    blobs = cache / repo_folder_name(repo_id=hub.repo, repo_type="model") / "blobs"
    return nbytes(blobs) if blobs.is_dir() else 0


@contextmanager
def telling(hub: HubId, doing: str, hint: str) -> Iterator[None]:
    """Turn the library's errors into ours; ``hint`` (with ``{hub}``) helps where ``doing`` broke off.

    Raises:
        CheckpointError: ``model-not-found``, ``revision-not-found``, ``model-gated``.
        DeviceError: ``download-failed``.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            "model-gated",
            f"{hub.repo} is only for those who have accepted its terms",
            hint=f"accept them on the page of {hub.repo}, then set HF_TOKEN or run `hf auth login`",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError("revision-not-found", f"{hub.repo} has no revision {hub.revision!r}") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise CheckpointError(
            "model-not-found",
            f"the hub has no model {hub.repo}, or it is private",
            hint="check the spelling; for a private model set HF_TOKEN or run `hf auth login`",
        ) from error
    except (errors.HTTPError, errors.LocalEntryNotFoundError, RuntimeError) as error:
        raise DeviceError(
            "download-failed", f"{doing} of {hub} broke off: {_first_line(error)}", hint=hint.format(hub=hub)
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _no_weights(hub: HubId, names: Sequence[str]) -> CheckpointError:
    pickles = [name for name in names if name.endswith(PICKLES)]
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        hint = f"download {ggufs[0]} and name the file: `llmrun pull ./{Path(ggufs[0]).name}`"
        return CheckpointError("no-weights", f"{hub} has no safetensors, but {len(ggufs)} GGUF file(s)", hint=hint)
    if pickles:
        return CheckpointError(
            "pickle-checkpoint",
            f"{hub} has its weights only as pickles ({pickles[0]}): loading one runs whatever code is in it",
            hint="look for a revision with safetensors, for example refs/pr/1 (`ORG/NAME@refs/pr/1`)",
        )
    return CheckpointError("no-weights", f"{hub} has no safetensors files")

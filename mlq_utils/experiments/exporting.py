"""Taking a tuned model home: as a folder with a model card, and to the Hugging Face Hub."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlq_utils import experiments, languages, modeling
from mlq_utils.data import HUB_NAME, PACKAGE_DATA
from mlq_utils.experiments.spec import STORE, losses, lost, scores, spec_of
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import prompts


def export(
    run: str,
    folder: Path,
    /,
    *,
    adapter: bool = False,
    push: str | None = None,
    store: str = STORE,
) -> str:
    """Export a tuned model as a folder in Hugging Face's format, with a model card.

    Args:
        run: Identity of a run, which is tuned again. `mlq run --export FOLDER` exports at once.
        folder: New or empty folder.
        adapter: Whether to export an adapter of PEFT, for LoRA or Embed FT, in place of the whole
            model.
        push: Private repository of the Hub to push to, owner/name.
        store: Folder or URL where records are kept.

    Raises:
        ValueError: There is no such run, it makes no adapter, or the folder is not empty.
        OSError: The Hub refuses or cannot be reached. Nothing has been computed.
    """
    kept = Store(store)
    record = kept.get(run)
    if record is None or record["status"] != "done":
        raise ValueError(f"{run!r} is the identity of no run in {store}")
    check(folder, push)
    experiments.run(spec_of(record), kept, export=folder, adapter=adapter)
    if push:
        _hub("upload_folder", push, folder_path=folder)
    return f"{folder} holds the model." + (f" It is at huggingface.co/{push}, too." if push else "")


def check(folder: Path, push: str | None = None) -> None:
    """Refuse a folder that holds something, and make the repository to push to."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds something: give a new or an empty folder to export to")
    if push and not HUB_NAME.fullmatch(push):
        raise ValueError(f"a repository of the Hub is owner/name, not {push!r}")
    if push:
        _hub("create_repo", push, private=True, exist_ok=True)


def _hub(what: str, name: str, **options: Any) -> None:
    """Call the Hub; all that it refuses becomes one OSError."""
    import huggingface_hub

    try:
        getattr(huggingface_hub.HfApi(), what)(repo_id=name, **options)
    except (OSError, ValueError) as error:  # the Hub's own errors are OSErrors, too
        why = str(error).strip().splitlines()[0]
        raise OSError(f"the Hub does not take {name}: {why}. `hf auth login` logs you in") from None


def write_card(folder: Path, record: dict[str, Any], store: Store) -> None:
    """Write the model card of a run, by which the folder is known to be complete."""
    spec, drawn = spec_of(record), record["training"]["drawn"]
    frame = scores([record])[["target", "spbleu", "spbleu_low", "spbleu_high", "chrf", "sentences"]]
    changes = losses(store.get(spec.untuned().identity()) or {}, record)
    known = changes[changes["measure"] == "spbleu"].set_index("language")["before"]
    frame.insert(1, "before", frame["target"].map(known))
    named = lost(changes, spec.languages)
    if known.index.isin(spec.languages).all():
        named = "not known, since no other language was scored before and after tuning"
    pairs = spec.pairs and f"`{Path(spec.pairs.file).name}` (SHA-256 {spec.pairs.sha256})"
    signatures = {row[f"{of}_signature"] for row in record["scores"] for of in ("spbleu", "chrf")}
    text = (PACKAGE_DATA / "model_card.md").read_text("utf8")
    text = text.format(
        base="the mini base of mlq_utils" if spec.base == "mini" else spec.base,
        codes=", ".join(f'"{code}"' for code in spec.languages),
        names=" and ".join(languages.get(spec.spoken(code)).name for code in spec.languages),
        trained=modeling.STRATEGIES[spec.strategy],
        pairs=sum(drawn["pairs"].values()),
        corpus=pairs or " and ".join(spec.corpus),
        left_out=drawn.get("left_out", "none"),
        epochs=spec.epochs,
        seed=spec.seed,
        prompt=prompts.translation(spec.spoken(spec.languages[0]), "…", spec.into_english),
        scores=frame.round(1).to_string(index=False),
        signatures=", ".join(sorted(signatures)),
        lost=named,
        identity=record["identity"],
        version=version("mlq_utils"),
    )
    (folder / "README.md").write_text(text, "utf8")

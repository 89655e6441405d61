"""How a run is made: tune a base model, translate, score, and keep the record.

    record = run(Spec(languages=("ro",), targets=("ro", "fr", "af")))

A run that the store has is not computed again. What takes long is kept on the way: training in
checkpoints (in `CHECKPOINTS`), and each target's translations in the store, until the record is
complete. A run that was killed continues from there, on the same machine or, if both lie on a
shared disk, on another one.

    accelerate launch --multi_gpu -m mlq_utils run --languages ro --targets ro fr af --strategy full
"""

import math
import os
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from mlq_utils import corpora, modeling, scoring
from mlq_utils.corpora import cldr
from mlq_utils.experiments import drawing, exporting
from mlq_utils.experiments.spec import TASKS, Spec, default_store, losses, lost, scores
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import bases, distributed, extension, memory, prompts, training, translation
from mlq_utils.scoring import error_types, intervals
from mlq_utils.tokenization import PREFIXES, PrefixShortener

VOCABULARY_SIZES = {"cldr": 5000, "mc4": 100_000}
"""Maximum number of lines that new pieces are learned from; other texts are used in full."""
VOCABULARY_SEED = 1
CHECKPOINTS = Path(os.environ.get("MLQ_CHECKPOINTS") or "_build/checkpoints")
"""Folder for checkpoints of unfinished training. A full FT of LLaMA-7B needs 162 GB, for two."""
PART_SECONDS = 10.0
"""Targets that took longer to translate are stored at once, others with the whole record."""

Part = tuple[dict[str, Any], pd.DataFrame]
"""The scores of one target with what training took, and its translations."""


def run(
    spec: Spec,
    store: Store | None = None,
    *,
    progress: bool | None = None,
    export: Path | None = None,
    adapter: bool = False,
) -> dict[str, Any]:
    """Return the record of a run, computing it if the store has none.

    Args:
        spec: What to run.
        store: Where records are kept. Defaults to `default_store()`.
        progress: Whether to show a progress bar. Defaults to showing it outside notebooks.
        export: Empty folder to export the tuned model to, for `modeling.load` and Hugging Face's
            libraries. The untuned model is scored, too; and a model whose record the store has is
            tuned again.
        adapter: Whether to export an adapter of PEFT, for LoRA or Embed FT, in place of the whole
            model. Defaults to False.

    Returns:
        The record: `spec`, `identity`, `status` (`done`, or `failed` with `error`), `scores` (by
        target, with signatures and counts of errors and of the languages `found`), `panel` (bits
        per character), `training` (time, memory, …), `seconds`, `versions`, `hardware` and `date`.

    Raises:
        ValueError: `export` is given but nothing is tuned, its tokenizer cannot be written, it
            makes no adapter, or the folder holds something.
        OSError: The store cannot be written to. Nothing has been computed.
    """
    store = store or default_store()
    key = spec.identity()
    if export is not None:
        distributed.broadcast_from_main(lambda: _check_export(spec, export, adapter))
        run(spec.untuned(), store, progress=progress)  # the card says what was lost
    known = distributed.broadcast_from_main(lambda: store.get(key))
    if known is not None:
        if export and known["status"] == "done":
            _tune(spec, progress, export, adapter)
            _write_card(export, known, store)
        return known
    distributed.broadcast_from_main(store.check)  # before what it would not take is computed
    start = perf_counter()
    record, hypotheses = {"spec": asdict(spec), "identity": key}, None
    try:
        with cldr.enciphered(spec.ciphers):
            results, hypotheses = _compute(spec, store, progress, export, adapter)
        record |= {"status": "done"} | results
    except FloatingPointError as error:  # it would fail the same way again; others go on
        record |= {"status": "failed", "error": str(error)}
    record |= {
        "seconds": round(perf_counter() - start, 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": modeling.hardware(),
        "versions": {p: version(p) for p in ("mlq_utils", "torch", "transformers", "sacrebleu")},
    }
    kept = distributed.broadcast_from_main(lambda: _keep(spec, store, record, hypotheses))
    if kept["status"] == "done":
        _write_card(export, kept, store)
    return kept


def _check_export(spec: Spec, folder: Path, adapter: bool) -> None:
    if not spec.languages or spec.shorten is not None:
        raise ValueError(
            "only a model that is tuned, with a tokenizer that others can read, is exported: "
            f"languages={spec.languages}, shorten={spec.shorten!r}"
        )
    if adapter and spec.extension:
        raise ValueError("an adapter has no room for new pieces: export the whole model instead")
    if adapter:
        modeling.check_adapter(spec.strategy, spec.base, spec.revision)
    exporting.check(folder)


def _write_card(folder: Path | None, record: dict[str, Any], store: Store) -> None:
    if folder is not None and distributed.state().is_main_process:
        exporting.write_card(folder, record, store)


def report(spec: Spec, store: Store, compare: bool = False, **options: Any) -> str:
    """Make a run as `run` does, and return its scores and one example per target as text.

    If the store has the untuned model's record, or `compare` asks for it, the text also says what
    tuning changed, and names what was lost.

    Raises:
        ValueError: The run failed; or as `run`.
    """
    before = run(spec.untuned(), store) if compare else store.get(spec.untuned().identity())
    record = run(spec, store, **options)
    if record["status"] == "failed":
        raise ValueError(record["error"])
    if not distributed.state().is_main_process:
        return ""  # only the first of several processes prints
    lines = [scores([record]).loc[:, "target":].round(1).to_string(index=False)]
    if spec.pairs and record["training"]:
        lines.insert(0, f"{left_out(record)}\n")
    if read := record.get("panel"):
        shown = pd.DataFrame(read).drop(columns=["bits", "characters"])
        lines.append(f"\n{shown.round(3).to_string(index=False)}")
    if spec.languages and before:
        changes = losses(before, record)
        shown = changes.round(2).to_string(index=False)
        lines.append(f"\nchange by tuning, most lost first\n{shown}")
        lines.append(f"lost: {lost(changes, spec.languages)}")
    examples = store.hypotheses(record["identity"]).groupby("target_language", sort=False).head(1)
    for row in examples.itertuples():
        lines.append(f"\n{row.target_language}  source      {row.source}")
        lines.append(f"    reference   {row.target}\n    hypothesis  {row.hypothesis}")
    return "\n".join(lines)


def left_out(record: dict[str, Any]) -> str:
    """Return in words which of the own pairs a run was tuned on, and why others were left out."""
    drawn = record["training"]["drawn"]
    (code,) = drawn["pairs"]
    read, used = drawn["read"][code], drawn["pairs"][code]
    lost = drawing.counted(drawn["left_out"][code])
    return f"{code}: {read} pairs read, {used} tuned on; left out: {lost}"


def _keep(
    spec: Spec, store: Store, record: dict[str, Any], hypotheses: pd.DataFrame | None
) -> dict[str, Any]:
    """Write the record, and clear away what was kept on the way to it."""
    kept = store.put(record["identity"], record, hypotheses)
    for target in spec.targets:
        if store.get(part := f"{spec.identity()}-{target}") is not None:
            store.remove(part)
    _checkpoint(spec).unlink(missing_ok=True)
    return kept


def _checkpoint(spec: Spec) -> Path:
    return CHECKPOINTS / f"{spec.identity()}.safetensors"


def _compute(
    spec: Spec, store: Store, progress: bool | None, export: Path | None, adapter: bool
) -> Part:
    """Return scores, with what training took, and translations."""
    if spec.test[0] != "cldr":  # what cannot be scored is not tuned
        scoring.check_flores101()
        error_types.words_of("flores200")
    if spec.test[0] != "cldr" or spec.own:
        for code in (*spec.targets, *spec.panel):
            drawing.texts_to_read(spec, code)
    parts = distributed.broadcast_from_main(lambda: _kept(spec, store))
    trained = next((part["training"] for part, _ in parts.values()), None)
    panel = {}
    if len(parts) < len(spec.targets) or export or spec.panel:
        base, trained = _tune(spec, progress, export, adapter)
        if spec.panel:
            panel = {"panel": [_read(spec, base, code) for code in spec.panel]}
        base = modeling.for_translation(base)
    for target in spec.targets:
        if target not in parts:
            row, frame = _score(spec, base, target)
            parts[target] = {"training": trained, "row": row}, frame
            long = row["seconds"] > PART_SECONDS and len(spec.targets) > 1
            if long and distributed.state().is_main_process:
                store.put(f"{spec.identity()}-{target}", *parts[target])
    rows, frames = zip(*(parts[target] for target in spec.targets), strict=True)
    found = {"training": trained, "scores": [row["row"] for row in rows], **panel}
    return found, pd.concat(frames, ignore_index=True)


def _kept(spec: Spec, store: Store) -> dict[str, Part]:
    """Return what an interrupted run has kept, by target."""
    keys = {target: f"{spec.identity()}-{target}" for target in spec.targets}
    return {t: (part, store.hypotheses(key)) for t, key in keys.items() if (part := store.get(key))}


def _tune(
    spec: Spec,
    progress: bool | None = None,
    export: Path | None = None,
    adapter: bool = False,
) -> tuple[modeling.Model, dict[str, Any] | None]:
    """Return the model to translate with, and what training took or None for the untuned base."""
    frame = drawing.tuning_data(spec) if spec.languages else pd.DataFrame()
    with memory.phase("loading the model"):
        device, dtype = modeling.placement()
        if spec.languages and dtype.itemsize < 4:
            dtype = None  # training casts what is frozen itself; masters must not be rounded
        given = {"revision": spec.revision, "spare_rows": spec.spare_rows}
        base = modeling.load(spec.base, dtype=dtype, **given)
        # Of several processes each takes its shard to its device: the whole may not fit there.
        if distributed.state().num_processes == 1 or not spec.languages:
            base.model.to(device)
    if not spec.languages:
        return base, None
    if spec.pairs or spec.language:
        drawing.check_letters(base, frame["prompt" if spec.into_english else "target"])
    if spec.extension:
        base = extended(spec, base)
    if spec.shorten is not None:
        codec = PrefixShortener.fit(base.tokenizer, frame["target"], PREFIXES[spec.shorten])
        base = replace(base, tokenizer=codec.shortened())
    options = {"layers": spec.layers, "checkpoint": _checkpoint(spec), "progress": progress}
    result = training.fine_tune(base, frame, spec.strategy, spec.steps(), **options)
    if export is not None and distributed.state().is_main_process:
        if adapter:
            modeling.export_adapter(result.trained, export, spec.strategy, spec.base, **given)
        else:
            own = None if spec.extension else bases.find(spec.base, spec.revision)
            modeling.export(result.model, export, own)
    counts = ("peak_bytes", "estimated_peak_bytes", "examples", "skipped")
    return result.model, {
        "losses": [round(loss, 4) for loss in result.losses],
        "seconds": round(result.seconds, 2),
        "label_tokens_per_second": round(result.label_tokens_per_second),
        "estimated_seconds": round(result.estimated_seconds, 2),
        **{name: getattr(result, name) for name in (*counts, "precision", "micro_batch_tokens")},
        "drawn": frame.attrs,
        "processes": distributed.state().num_processes,
    }


def extended(spec: Spec, base: modeling.Model) -> modeling.Model:
    """Return a base with the new pieces of a run. It is resized in place."""
    how, code = spec.extension, spec.spoken(spec.languages[0])
    size = VOCABULARY_SIZES.get(how.text, 1_000_000)
    text = corpora.monolingual(how.text, code, size, VOCABULARY_SEED).tolist()
    pieces = extension.learn(how.method, text, how.pieces, base.tokenizer)
    return extension.extend(base, pieces, how.start, how.ranked, spec.seed, text)


def _score(spec: Spec, base: modeling.Model, target: str) -> Part:
    """Translate and score one target."""
    test = drawing.sentences(spec, target)
    sources, references = test["source"].tolist(), test["target"].tolist()
    language = spec.spoken(target)
    asked = [prompts.translation(language, source, spec.into_english) for source in sources]
    text = drawing.untested(spec, target)
    cap = spec.cap or (
        translation.scaled_cap(base.tokenizer, text) if len(text) else modeling.PAPER_CAP
    )
    options = {"beam_size": spec.beam_size, "cap": cap, "bos_id": base.bos, "eos_id": base.eos}
    start = perf_counter()
    out = translation.translate(base.model, base.tokenizer, asked, **options)
    seconds = perf_counter() - start
    bits, _ = modeling.read(base, references, asked, hidden=False)
    bits = intervals.ratio(bits, list(map(len, references)))["ratio"]
    texts = test[["source", "target"]].assign(hypothesis=out["hypothesis"])
    plain = texts.map(cldr.decipher)
    row = {
        "target": target,
        **_points(spec, language, plain, list(map(cldr.decipher, text)), out["cap_hit"]),
        "reference_bits_per_char": None if math.isnan(bits) else round(bits, 4),
        "sentences": len(plain),
        "cap": cap,
        **{name: out.attrs[name] for name in ("cap_hit_rate", "engine", "precision")},
        "skipped": len(out.attrs["skipped"]),
        "seconds": round(seconds, 2),
    }
    return row, test.assign(target_language=target, **plain)


def _points(
    spec: Spec, language: Any, texts: pd.DataFrame, text: list[str], cap_hit: pd.Series
) -> dict[str, Any]:
    """Return the scores of translations, and counts of their errors and languages."""
    sources, references, found = (texts[column].tolist() for column in texts)
    pieces = scoring.cldr_spm() if spec.test[0] == "cldr" else None
    bleu = scoring.spbleu(found, references, tokenizer=pieces)
    chrf = scoring.chrf(found, references)
    words = {"cap_hit": cap_hit, "corpus": drawing.words_corpus(spec)}
    if spec.into_english:
        words["source_language"], language = language, "en"
    with cldr.enciphered(()):  # words to recognise languages by are plain
        errors = scoring.errors(sources, found, references, language, text=text, **words)
    return {
        "spbleu": round(bleu.score, 2),
        "spbleu_low": round(bleu.low, 2),
        "spbleu_high": round(bleu.high, 2),
        "spbleu_signature": bleu.signature,
        "chrf": round(chrf.score, 2),
        "chrf_signature": chrf.signature,
        "errors": {k: None if pd.isna(v) else int(v) for k, v in scoring.summary(errors).items()},
        "found": errors["found"].value_counts().to_dict(),
    }


def _read(spec: Spec, base: modeling.Model, code: str) -> dict[str, Any]:
    """Return how well a model reads the test sentences of a language, or answers to `TASKS`."""
    frame = drawing.texts_to_read(spec, code)
    texts, before = frame["target"], frame["prompt"].tolist() if code == TASKS else None
    bits, _ = modeling.read(base, texts.tolist(), before, hidden=False)
    characters = texts.str.len().tolist()
    value, low, high, n = intervals.ratio(bits, characters)
    names = ("bits_per_char", "bits_per_char_low", "bits_per_char_high")
    found = dict(zip(names, np.round([value, low, high], 4).tolist(), strict=True))
    sides = {"bits": bits.round(2).tolist(), "characters": characters}
    return {"language": code, **found, "sentences": int(n), **sides}

"""Speed and memory, mostly as ratios of two programs, written to `_build/bench.json`.

    make bench                                        # all benchmarks
    python -m benchmarks translation mini_run         # some of them
    python -m benchmarks --record                     # also writes the figures into the package
    python -m benchmarks at_size --shape llama-7b     # a model of that shape, on a GPU

Two programs are timed in turn, A B A B …, so that their ratio holds even if the machine's speed
drifts. Each key of the file has the ratio of the medians, both medians in seconds, the number of
runs and a description. If a ratio is only fair at equal quality, it also has the quality of both.
Other figures have `seconds` (the median) or `megabytes` instead of a ratio.
"""

import datetime
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median, stdev
from time import perf_counter
from typing import Any, Literal

import pandas as pd
import torch
from scipy.stats import t

from benchmarks.bench_at_size import SHAPES, at_size
from mlq_utils import corpora, experiments, modeling, scoring, tokenization
from mlq_utils.data import PACKAGE_DATA, atomic_write
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import batches, prompts, translation
from mlq_utils.modeling.distributed import hardware

RUNS = 7
OUTPUT = Path("_build/bench.json")
RECORD = PACKAGE_DATA / "bench.json"
"""The figures that the book shows, measured on a machine that did nothing else."""
RATES = {"embed": 3e-3, "full": 1e-3}
"""Learning rates at which training is compared with the Trainer."""
EQUAL = 1.05
"""Ratio of held-out losses up to which training is as good as the Trainer's."""
PAIRS = 1000
SENTENCES = 200
TWELVE = ("af", "et", "ha", "he", "km", "luo", "mi", "ro", "ta", "th", "tr", "zh")
"""The representatives of Table 12, and Khmer for Northern Sotho, which CLDR lacks."""


def compare(first: Callable[[], object], second: Callable[[], object], runs: int = RUNS) -> dict:
    """Time two functions in turn, after one run of each that does not count.

    Returns:
        The `ratio` of the medians (first to second), the `medians` in seconds, and `runs`.
    """
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for function, spent in zip((first, second), times, strict=True):
            start = perf_counter()
            function()
            spent.append(perf_counter() - start)
    medians = [median(spent) for spent in times]
    return {"ratio": medians[0] / medians[1], "medians": medians, "runs": runs}


def tokenizer() -> dict[str, dict]:
    """Measure the tokenizer analysis against SentencePiece alone, and shortening against none."""
    try:
        if corpora.find("flores200") is None:
            raise FileNotFoundError("FLORES-200 is not in the data folder")
        words = tokenization.load("llama")
        texts = corpora.texts("flores200", "devtest")
        what = "the LLaMA tokenizer on FLORES-200 devtest, all languages"
    except FileNotFoundError:
        words = corpora.english_centric_tokenizer(3072)
        texts = corpora.texts("cldr", "test", 1012)
        what = "a tokenizer trained on CLDR, on CLDR text of all languages, 1012 sentences each"
    short = tokenization.PrefixShortener.fit(words, texts["te"]).shortened()

    def bare() -> None:
        for sentences in texts.values():
            words.backend.encode(sentences)

    def analysis() -> None:
        tokenization.analyse(words, texts)

    def shortened() -> None:
        tokenization.analyse(short, texts)

    return {
        "tokenizer_vs_sentencepiece": compare(analysis, bare) | {"what": what},
        "shortening_vs_plain": compare(shortened, analysis) | {"what": what},
    }


def trainer(base: modeling.Model, data: batches.Examples, schedule: modeling.Schedule) -> None:
    """Tune a model with `transformers.Trainer`.

    All settings are the Trainer's defaults, except those that decide the result: the learning rate,
    its schedule, the number of epochs and the batch size.
    """
    import transformers

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        ids, labels, _ = batches.collate(data, [[i] for i in indices], base.pad)
        lengths = torch.tensor([len(data.ids[i]) for i in indices])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return {"input_ids": ids, "labels": labels, "attention_mask": mask.long()}

    with tempfile.TemporaryDirectory() as folder:
        done = transformers.Trainer(
            base.model,
            transformers.TrainingArguments(
                folder,
                num_train_epochs=schedule.epochs,
                per_device_train_batch_size=schedule.batch_size,
                learning_rate=schedule.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=int(schedule.warmup_steps),
                seed=schedule.seed,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=list(range(len(data.ids))),
            data_collator=collate,
        )
        done.remove_callback(transformers.PrinterCallback)
        transformers.utils.logging.set_verbosity_error()
        done.train()


@torch.inference_mode()
def held_out_loss(base: modeling.Model) -> float:
    """Return a model's loss on English–Romanian pairs of the test split, in nats per label."""
    data = batches.examples(prompts.mixture({"ro": SENTENCES}, split="test"), base)
    ids, labels, _ = batches.collate(data, [[i] for i in range(len(data.ids))], base.pad)
    return batches.label_loss(base.model.eval(), ids, labels).item()


def quality(losses: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return whether one program's losses are as good as another's, or whether that is undecided.

    Args:
        losses: The held-out losses of each program, first "ours", with one number per seed.

    Returns:
        `held_out_loss`, the means; `standard_error`, theirs; `loss_ratio`, the 95% interval of the
        ratio of the means, ours to the other; and `equal_loss`: "yes" if the interval ends at
        `EQUAL` or below, "no" if it begins above, and otherwise "undecided".
    """
    means = {name: fmean(some) for name, some in losses.items()}
    errors = {name: stdev(some) / len(some) ** 0.5 for name, some in losses.items()}
    ours, other = means
    # The logarithm of a mean has the mean's relative error.
    error = math.hypot(*(errors[name] / means[name] for name in means))
    half = float(t.ppf(0.975, sum(map(len, losses.values())) - 2)) * error
    low, high = (means[ours] / means[other] * math.exp(sign * half) for sign in (-1, 1))
    verdict = "yes" if high <= EQUAL else "no" if low > EQUAL else "undecided"
    return {
        "held_out_loss": means,
        "standard_error": errors,
        "loss_ratio": [low, high],
        "equal_loss": verdict,
    }


def fine_tuning() -> dict[str, dict]:
    """Measure Embed FT and full FT against `transformers.Trainer`, and against each other.

    Speed is compared at equal quality if the mean held-out loss is at most 5% above the Trainer's
    (see `quality`). Each run has its own seed, which both programs share, and both draw batches at
    random. Both train at `RATES`: at the mini world's rate for full FT the loss of one seed is up
    to four times that of another, so that nothing could be told from a few.
    """
    frame = prompts.mixture({"ro": PAIRS})
    results, seconds = {}, {}
    for strategy in ("embed", "full"):
        tuned: dict[str, list[modeling.Model]] = {"ours": [], "trainer": []}

        def ours(strategy=strategy, tuned=tuned["ours"]) -> None:
            schedule = modeling.Schedule(RATES[strategy], seed=len(tuned))
            done = modeling.fine_tune(
                modeling.load("mini"), frame, strategy, schedule, progress=False
            )
            tuned.append(done.model)

        def theirs(strategy=strategy, tuned=tuned["trainer"]) -> None:
            schedule = modeling.Schedule(RATES[strategy], seed=len(tuned))
            base = modeling.load("mini")
            modeling.prepare(base.model, strategy)
            trainer(base, batches.examples(frame, base), schedule)
            tuned.append(base)

        key = "training_vs_trainer" + ("" if strategy == "full" else f"_{strategy}")
        rate, epochs = RATES[strategy], modeling.Schedule(RATES[strategy]).epochs
        what = f"{strategy} FT of the mini base, {PAIRS} pairs, {epochs} epochs, rate {rate:g}"
        times = compare(theirs, ours, 3)
        losses = {name: list(map(held_out_loss, bases)) for name, bases in tuned.items()}
        results[key] = times | {"what": what} | quality(losses)
        seconds[strategy] = results[key]["medians"][1]
    results["full_vs_embed"] = {
        "ratio": seconds["full"] / seconds["embed"],
        "medians": [seconds["full"], seconds["embed"]],
        "runs": 3,
        "what": "full FT against Embed FT, from the two above",
    }
    return results


def decoding() -> dict[str, dict]:
    """Measure translation against `model.generate` as a newcomer calls it."""
    frame = prompts.mixture({"ro": PAIRS})
    base = modeling.fine_tune(modeling.load("mini"), frame, "embed", progress=False).model
    test = corpora.load("cldr", "ro", "test", size=SENTENCES)
    asked = [prompts.translation("ro", source) for source in test["source"]]
    cap = translation.scaled_cap(base.tokenizer, list(frame["target"][:SENTENCES]))
    found: dict[str, list[str]] = {}

    def ours() -> None:
        fast = modeling.for_translation(base)
        out = translation.translate(
            fast.model, base.tokenizer, asked, cap=cap, bos_id=base.bos, eos_id=base.eos
        )
        found["ours"] = out["hypothesis"].tolist()

    def theirs() -> None:
        found["generate"] = _generate(base, asked, cap)

    result = compare(theirs, ours, 3)
    references = test["target"].tolist()
    result["spbleu"] = {
        name: scoring.spbleu(texts, references, tokenizer=scoring.cldr_spm(), resamples=1).score
        for name, texts in found.items()
    }
    what = f"beam size 4, {SENTENCES} sentences into Romanian, model.generate in batches of 8"
    return {"translation_vs_generate": result | {"what": what}}


@torch.inference_mode()
def _generate(base: modeling.Model, asked: list[str], cap: int) -> list[str]:
    texts = []
    for start in range(0, len(asked), 8):
        rows = [[base.bos, *ids] for ids in base.tokenizer.encode(asked[start : start + 8])]
        width = max(map(len, rows))
        ids = torch.tensor([[base.pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        out = base.model.generate(
            input_ids=ids, attention_mask=mask, num_beams=4, do_sample=False, max_new_tokens=cap,
            eos_token_id=base.eos, pad_token_id=base.pad,
        )  # fmt: skip
        for row in out[:, width:].tolist():
            row = row[: row.index(base.eos)] if base.eos in row else row
            texts.append(base.tokenizer.decode(row).strip())
    return texts


def mini_run() -> dict[str, dict]:
    """Measure one whole run: tune on 1,000 pairs for 3 epochs, score 12 languages of 50."""
    spec = experiments.Spec(languages=("ro",), targets=TWELVE, size=PAIRS, test_size=50)
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            start = perf_counter()
            experiments.run(spec, Store(folder), progress=False)
            times.append(perf_counter() - start)
    what = (
        f"Embed FT on {PAIRS} pairs, {spec.epochs} epochs, {len(TWELVE)} languages of "
        f"{spec.test_size} sentences, beam size {spec.beam_size}"
    )
    return {"mini_run_seconds": {"seconds": median(times), "all": times, "runs": 3, "what": what}}


def memory() -> dict[str, dict]:
    """Measure the peak memory of each strategy, in a process that holds nothing else."""
    what = f"the most that a process held at once while tuning the mini base on {PAIRS} pairs"
    results = {}
    for strategy in (s for s in modeling.STRATEGIES if s != "rows"):
        layers = (0,) if strategy == "layers" else None
        script = (
            "from mlq_utils import modeling;"
            f"print(modeling.fine_tune(modeling.load('mini'), modeling.mixture({{'ro': {PAIRS}}}),"
            f"{strategy!r}, layers={layers}, progress=False).peak_bytes)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        megabytes = round(int(done.stdout.split()[-1]) / 1e6)
        results[f"peak_memory_{strategy}"] = {"megabytes": megabytes, "runs": 1, "what": what}
    return results


BENCHMARKS: dict[str, Callable[..., dict[str, dict]]] = {
    "tokenizer": tokenizer,
    "training": fine_tuning,
    "translation": decoding,
    "mini_run": mini_run,
    "memory": memory,
    "at_size": at_size,
}
FIGURES = ("ratio", "teraflops", "seconds", "megabytes")
"""Kinds of figures. The first kind that a result has is printed."""
QUALITY = ("held_out_loss", "standard_error", "loss_ratio", "equal_loss", "spbleu")
"""What is printed in addition."""


def load() -> pd.DataFrame:
    """Return the recorded figures.

    Returns:
        One row per key: one or more of `FIGURES`; `runs`; `what` was measured; `hardware`;
        `versions`; `date`; and what `quality` returns, or `spbleu`, if quality matters.
    """
    return pd.DataFrame.from_dict(json.loads(RECORD.read_text("utf8")), orient="index")


def main(
    names: tuple[Literal[*BENCHMARKS], ...] = (),
    /,
    *,
    shape: Literal[*SHAPES] | None = None,
    record: bool = False,
) -> None:
    """Measure speed and memory, and write the figures after each benchmark.

    Args:
        names: Benchmarks to run. Defaults to all. Figures of the others stay in the file.
        shape: Shape of the model of `at_size`. Defaults to one that suits the device.
        record: Whether to write the figures into the package too, for the book.
    """
    for name in names or BENCHMARKS:
        options = {"shape": shape} if name == "at_size" else {}
        found = BENCHMARKS[name](**options)
        for key, result in found.items():
            figure = next(result[k] for k in FIGURES if k in result)
            more = {k: v for k, v in result.items() if k in QUALITY}
            print(f"{key}: {figure:.3f} ({result['what']}; {hardware()}) {more or ''}", flush=True)
        keep(found)
    if record:
        keep(json.loads(OUTPUT.read_text("utf8")), record=True)


def keep(results: dict[str, dict], *, record: bool = False) -> None:
    """Add figures to `_build/bench.json`, with the hardware, versions and date.

    Args:
        results: The figures by key.
        record: Whether to add them to the figures that the package records, too. Those of other
            hardware have other keys and stay.
    """
    provenance = {
        "hardware": hardware(),
        "versions": {p: version(p) for p in ("torch", "transformers", "sentencepiece")},
        "date": str(datetime.date.today()),
    }
    for path in (OUTPUT, RECORD) if record else (OUTPUT,):
        known = json.loads(path.read_text("utf8")) if path.exists() else {}
        known |= {key: provenance | result for key, result in results.items()}
        with atomic_write(path) as aside:
            aside.write_text(json.dumps(known, indent=2) + "\n", encoding="utf8")

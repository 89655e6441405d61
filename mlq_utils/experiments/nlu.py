"""Natural language understanding, as in Table 16: five tasks by EleutherAI's harness.

    found = evaluate("mini", ["mgsm"], ["es", "th"], limit=20)
    average(found)                                  # or compare(found), with what is printed

Prompts, choices and metrics are those of lm-evaluation-harness (`pip install "mlq_utils[nlu]"`),
which has no part in how text becomes ids: that is the model's own tokenizer (`_harness`). Data is
read from the files of the releases in the data folder (`_nlu_data` lists them) and fetched by the
harness where a release is not there. `datasets` 4 and later run no loading scripts: a data set that
needs one is refused, with the address of its release.

The paper (Appendix H) names the tasks, "all languages" and accuracy, and no more. Examples in the
prompt: none, since the harness's published zero-shot results of LLaMA-7B (`published.harness`)
are, in the mean, what Table 16 prints for XCOPA, XStoryCloze, PAWS-X and XNLI; for the last two
only when English is left out, and XNLI on its test set, though the harness has since turned to the
development set. MGSM is open: which prompts, and how many examples they held. Here it is the direct
variant (no chain of thought), scored by the last number of the answer.

    python -m mlq_utils.experiments.nlu --base mini --tasks mgsm xcopa --languages es th --limit 20
"""

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mlq_utils import modeling, paper
from mlq_utils.data import one_of
from mlq_utils.experiments.nlu_data import TASKS, Data, find
from mlq_utils.experiments.spec import STORE
from mlq_utils.experiments.store import Store
from mlq_utils.modeling.device import hardware, placement

if TYPE_CHECKING:
    from mlq_utils.experiments.harness import Harness

__all__ = ["TASKS", "average", "compare", "evaluate", "main"]

SEMANTICS = 1
"""Raised when the same settings would give another result."""
SHOTS = 0
"""Examples in the prompt."""
BATCH_SIZE = 16


def evaluate(
    base: str | Path = "mini",
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    *,
    revision: str | None = None,
    spare_rows: int = 0,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    data: str | os.PathLike | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Return a model's scores. What the store has is not computed again.

    Args:
        base: What `modeling.load` takes, a folder that `modeling.save` wrote among them.
        tasks: Some of `TASKS`; all where None.
        languages: Their codes; all that a task has where None. Of those given, each task is scored
            in the ones that it has.
        revision: The Hub's branch, tag or commit of `base`.
        spare_rows: As `modeling.load`.
        limit: The first so many examples of each language only, which is a trial and no result.
        batch_size: Requests at once; halved where memory runs out.
        data: The data folder, see `_common.data_folder`.
        store: Where records are kept; `experiments.STORE` where None.

    Returns:
        A row a task and language: `task`, `language`, `metric` (the harness's name), `score` and
        `stderr` (percent; `stderr` is missing for one example), `samples`, and `truncated`
        (requests that lost their beginning, being longer than the model's context). `attrs` has
        `base`, `harness` (its version), `shots` (examples in the prompt), `limit` and, by task and
        language, `data`: a file's name and SHA-256, or the Hub's data set and its commit.

    Raises:
        ModuleNotFoundError: The extra `nlu` is not installed.
        ValueError: An unknown task; a language that no task has, or none of a task's; a damaged
            file; a limit or batch size below 1; a data set that needs a script; or as
            `modeling.load`.
        FileNotFoundError, ConnectionError: Data or the model are neither here nor to be had.
    """
    jobs = _jobs(tasks, languages)
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    _check_harness()
    found = {job: find(*job, data) for job in jobs}  # all, before anything is computed
    store = store or Store(STORE)
    settings = {
        "base": str(base), "digest": modeling.digest(str(base)), "revision": revision,
        "spare_rows": spare_rows, "shots": SHOTS, "limit": limit, "harness": version("lm_eval"),
    }  # fmt: skip
    specs = {
        (name, language): settings
        | {"task": name, "language": language, "data": found[name, language].source}
        for name, language in jobs
    }
    records = {job: store.get(_key(spec)) for job, spec in specs.items()}
    missing = [job for job, record in records.items() if record is None]
    if missing:
        model = _model(settings, batch_size)
        for job in missing:
            record = _score(model, specs[job], found[job])
            records[job] = store.put(record["identity"], record)
    return _frame(list(records.values()), settings)


def average(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over each task's languages and then, as `AVG`, the mean over the tasks.

    Every language counts the same within its task, every task the same in `AVG`. That is not
    Table 16's AVG, which counts Flores-101 as a sixth task and divides the sum of the six by five,
    but in LLaMA-7B's row, where it divides by six.

    Args:
        scores: As `evaluate` returns them. Without some rows, for example English's, the means are
            without them.

    Returns:
        A row a task and one for `AVG`: `task`, `languages` (how many), `all_languages` (whether
        these are all that the task has), `score` (percent).
    """
    rows = [
        {
            "task": name,
            "languages": group["language"].nunique(),
            "all_languages": set(group["language"]) == set(TASKS[name].languages),
            "score": group["score"].mean(),
        }
        for name, group in scores.groupby("task", sort=False)
    ]
    means = pd.DataFrame(rows)
    total = {
        "task": "AVG",
        "languages": means["languages"].sum(),
        "all_languages": means["all_languages"].all() and len(means) == len(TASKS),
        "score": means["score"].mean(),
    }
    return pd.concat([means, pd.DataFrame([total])], ignore_index=True)


def compare(
    scores: pd.DataFrame, training_data: str = "none", strategy: str = "untuned"
) -> pd.DataFrame:
    """Return averages beside what Table 16 prints for a model of LLaMA-7B.

    Args:
        scores: As `evaluate` returns them.
        training_data: Of the printed row: none, Alpaca-En, Alpaca-X, Bilingual.
        strategy: Of the printed row: untuned, full, lora, embed.

    Returns:
        The columns of `average`, `printed` and `difference` (percent). `AVG` is on both sides the
        mean over the tasks in `scores`, not what is printed as AVG.

    Raises:
        ValueError: The table has no such row.
    """
    cells = _printed(training_data, strategy)
    means = average(scores)
    printed = [cells[TASKS[name].printed] for name in means["task"][:-1]]
    means["printed"] = [*printed, sum(printed) / len(printed)]
    return means.assign(difference=means["score"] - means["printed"])


def _printed(training_data: str, strategy: str) -> pd.Series:
    """Return a row of Table 16, by the tasks' printed names."""
    table = paper.table(16).query("model == 'LLaMA-7B'")
    one_of("training data", training_data, table["training_data"].unique())
    table = table[table["training_data"] == training_data]
    one_of(f"strategy on {training_data}", strategy, table["strategy"].unique())
    return table[table["strategy"] == strategy].set_index("task")["score"]


def _check_harness() -> None:
    if find_spec("lm_eval") is None:
        raise ModuleNotFoundError(
            'lm-evaluation-harness is not installed: pip install "mlq_utils[nlu]"', name="lm_eval"
        )


def _jobs(tasks: Sequence[str] | None, languages: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return which tasks are scored in which languages."""
    chosen = [one_of("task", name, TASKS) for name in dict.fromkeys(tasks or TASKS)]
    known = sorted({code for name in chosen for code in TASKS[name].languages})
    for code in languages or ():
        one_of(f"language of {', '.join(chosen)}", code, known)
    jobs = []
    for name in chosen:
        codes = [c for c in TASKS[name].languages if not languages or c in languages]
        if not codes:
            raise ValueError(
                f"{name} has none of the languages {', '.join(languages or ())}: it has "
                f"{', '.join(TASKS[name].languages)}"
            )
        jobs += [(name, code) for code in codes]
    return jobs


def _key(spec: dict[str, Any]) -> str:
    """Return a record's key: a hash of all that changes the result, and of nothing else."""
    parts = {k: v for k, v in spec.items() if k != "base"} | {"semantics": SEMANTICS}
    return hashlib.sha256(json.dumps({"nlu": parts}, sort_keys=True).encode()).hexdigest()


def _model(settings: dict[str, Any], batch_size: int) -> "Harness":
    from mlq_utils.experiments.harness import Harness

    device, dtype = placement()
    base = modeling.load(
        settings["base"],
        revision=settings["revision"],
        dtype=dtype,
        spare_rows=settings["spare_rows"],
    )
    base.model.to(device)
    return Harness(base, batch_size)


def _score(model: "Harness", spec: dict[str, Any], data: Data) -> dict[str, Any]:
    """Score a task in a language; where memory runs out, in smaller batches from then on."""
    from mlq_utils.experiments import harness as _harness

    start = perf_counter()
    task, manager = TASKS[spec["task"]], _harness.manager()
    while True:
        try:
            result = _harness.score(model, manager, task, spec["language"], data, spec["limit"])
            break
        except torch.OutOfMemoryError:
            if model.batch_size_per_gpu == 1:
                raise
        torch.cuda.empty_cache()
        model.batch_size_per_gpu //= 2
    return {
        "identity": _key(spec),
        "status": "done",
        "nlu": spec,
        "metric": task.metric,
        **result,
        "batch_size": model.batch_size_per_gpu,
        "precision": str(model.model.dtype).removeprefix("torch."),
        "seconds": round(perf_counter() - start, 2),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": {
            p: version(p) for p in ("mlq_utils", "torch", "transformers", "lm_eval", "datasets")
        },
    }


def _frame(records: list[dict[str, Any]], settings: dict[str, Any]) -> pd.DataFrame:
    columns = ("metric", "score", "stderr", "samples", "truncated")
    rows = [
        {name: record["nlu"][name] for name in ("task", "language")}
        | {name: record[name] for name in columns}
        for record in records
    ]
    frame = pd.DataFrame(rows).astype({"stderr": float})
    frame.attrs = {name: settings[name] for name in ("base", "harness", "shots", "limit")}
    frame.attrs["data"] = {
        f"{r['nlu']['task']} {r['nlu']['language']}": r["nlu"]["data"] for r in records
    }
    return frame


def main(arguments: Sequence[str] | None = None) -> None:
    """Score a model from the command line; print the scores and their averages."""
    parser = argparse.ArgumentParser(
        prog="python -m mlq_utils.experiments.nlu", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--base", default="mini", help="a base model's or tuned folder, or name")
    parser.add_argument("--revision", help="of a base on the Hub")
    parser.add_argument(
        "--spare-rows", type=int, default=0, help="embeddings beyond the tokenizer's vocabulary"
    )
    parser.add_argument("--tasks", nargs="+", help=f"some of {', '.join(TASKS)}; all if none")
    parser.add_argument("--languages", nargs="+", help="their codes; all if none")
    parser.add_argument("--limit", type=int, help="the first so many examples of each, as a trial")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--data", type=Path, help="the data folder; MLQ_DATA if none")
    parser.add_argument("--store", default=STORE, help="where records are kept, a folder or URL")
    parser.add_argument(
        "--beside", nargs=2, metavar=("DATA", "STRATEGY"), default=("none", "untuned"),
        help="the row of Table 16 to print beside the averages, for example Bilingual embed",
    )  # fmt: skip
    given = vars(parser.parse_args(arguments))
    store, beside = Store(given.pop("store")), given.pop("beside")
    try:
        _printed(*beside)  # what is wrong there is said first
        found = evaluate(**given, store=store)
        means = compare(found, *beside)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        parser.error(str(error))
    print(found.round(1).to_string(index=False))
    print("\n" + means.round(1).to_string(index=False))


if __name__ == "__main__":
    main()

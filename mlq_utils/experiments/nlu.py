"""Natural language understanding as in Table 16: five tasks, scored by lm-evaluation-harness.

Example::

    scores = evaluate("mini", ["mgsm"], ["es", "th"], limit=20)
    compare(scores)                                      # beside a row of Table 16

Prompts, choices and metrics are the harness's own (`pip install "mlq_utils[nlu]"`). Data is read
from files as released, which `data/nlu/tasks.yaml` lists. Prompts hold no examples: the paper
(Appendix H) does not say how many, but the harness's zero-shot results of LLaMA-7B are what Table
16 prints. MGSM is asked directly, without a chain of thought, which the paper leaves open too.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mlq_utils import modeling, paper
from mlq_utils.corpora import lines
from mlq_utils.data import PACKAGE_DATA, data_folder, one_of, sha256
from mlq_utils.experiments.spec import STORE
from mlq_utils.experiments.store import Store

TASKS: dict[str, dict[str, Any]] = yaml.safe_load((PACKAGE_DATA / "nlu/tasks.yaml").read_bytes())
"""The tasks by name; the file says what their fields mean."""
SEMANTICS = 2
"""Part of each record's identity; raised when the same settings would give another result."""


def evaluate(
    base: str | Path = "mini",
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    *,
    revision: str | None = None,
    spare_rows: int = 0,
    limit: int | None = None,
    batch_size: int = 16,
    data: str | os.PathLike | None = None,
    store: Store | None = None,
) -> pd.DataFrame:
    """Return a model's scores. Scores that the store holds are not computed again.

    Args:
        base: A model that `modeling.load` takes, such as a folder that `modeling.save` wrote.
        tasks: Names in `TASKS`. Defaults to all.
        languages: Codes of languages; each task is scored in those that it has. Defaults to all.
        revision: Branch, tag or commit of `base` on the Hub.
        spare_rows: See `modeling.load`.
        limit: Number of examples per language, for a trial. Defaults to all.
        batch_size: Number of requests in a batch, halved when memory runs out. Defaults to 16.
        data: The data folder. Defaults to the environment variable MLQ_DATA.
        store: Where records are kept. Defaults to `experiments.STORE`.

    Returns:
        One row per task and language: `task`, `language`, `metric`, `score` and `stderr` (percent;
        `stderr` is missing for one example), `samples`, and `truncated`, the number of requests cut
        to the model's context. `attrs` holds `base`, `harness` (its version), `shots`, `limit` and
        `data` (file and SHA-256 of each row).

    Raises:
        ModuleNotFoundError: lm-evaluation-harness is not installed.
        FileNotFoundError: A file is missing. The message says where to get it and place it.
        ValueError: A name, a number or a file is wrong; or as `modeling.load`.
    """
    jobs = _jobs(tasks, languages)
    for name, value in (("limit", limit), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: give 1 or more")
    if find_spec("lm_eval") is None:
        raise ModuleNotFoundError('lm-evaluation-harness is missing: pip install "mlq_utils[nlu]"')
    from mlq_utils.experiments import nlu_harness

    files = [read(*job, data) for job in jobs]  # all are checked before anything is computed
    base, store, model, records = str(base), store or Store(STORE), None, []
    settings = {
        "base": base, "digest": modeling.digest(base), "revision": revision,
        "spare_rows": spare_rows, "shots": 0, "limit": limit, "harness": version("lm_eval"),
    }  # fmt: skip
    for (name, language), (examples, source) in zip(jobs, files, strict=True):
        spec = settings | {"task": name, "language": language, "data": source}
        record = store.get(key := _key(spec))
        if record is None:
            model = model or nlu_harness.load(base, revision, spare_rows, batch_size)
            found = nlu_harness.score(model, TASKS[name], language, examples, limit)
            record = store.put(key, {"identity": key, "status": "done", "nlu": spec} | found)
        records.append(record | spec)
    return _frame(records)


def average(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over each task's languages and then, as `AVG`, the mean over the tasks.

    Table 16's AVG counts Flores-101 as a sixth task and divides by five, except for LLaMA-7B.

    Args:
        scores: The result of `evaluate`, or some of its rows, for example those without English.

    Returns:
        One row per task and one for `AVG`: `task`, `languages` (their number), `all_languages`
        (whether these are all that the task has) and `score` (percent).
    """
    groups = scores.groupby("task", sort=False)
    means = groups.agg(languages=("language", "nunique"), score=("score", "mean")).reset_index()
    known = [len(TASKS[name]["languages"]) for name in means["task"]]
    means.insert(2, "all_languages", means["languages"] == known)
    whole = means["all_languages"].all() and len(means) == len(TASKS)
    means.loc[len(means)] = ["AVG", means["languages"].sum(), whole, means["score"].mean()]
    return means


def compare(
    scores: pd.DataFrame, training_data: str = "none", strategy: str = "untuned"
) -> pd.DataFrame:
    """Return averages beside what Table 16 prints for a model of LLaMA-7B.

    Args:
        scores: See `average`.
        training_data: Training data of the printed row: none, Alpaca-En, Alpaca-X or Bilingual.
        strategy: Strategy of the printed row: untuned, full, lora or embed.

    Returns:
        The columns of `average`, `printed` and `difference` (percent). On both sides `AVG` is the
        mean over the tasks in `scores`.

    Raises:
        ValueError: The table has no such row.
    """
    cells = printed_row(training_data, strategy)
    means = average(scores)
    printed = [cells[TASKS[name]["printed"]] for name in means["task"][:-1]]
    means["printed"] = [*printed, sum(printed) / len(printed)]
    return means.assign(difference=means["score"] - means["printed"])


def printed_row(training_data: str, strategy: str) -> pd.Series:
    """Return a row of Table 16 for LLaMA-7B by task. For arguments and errors see `compare`."""
    table = paper.table(16).query("model == 'LLaMA-7B'")
    one_of("training data", training_data, table["training_data"].unique())
    table = table[table["training_data"] == training_data]
    one_of(f"strategy on {training_data}", strategy, table["strategy"].unique())
    return table[table["strategy"] == strategy].set_index("task")["score"]


def read(
    name: str, language: str, data: str | os.PathLike | None = None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return a task's examples in a language, and the file's name and SHA-256; see `evaluate`."""
    task, folder = TASKS[name], data_folder(data)
    place = f"{task['folder']}/{task['file'].format(language=language)}"
    if folder is None or not (folder / place).is_file():
        where = folder or "the data folder, which MLQ_DATA must name"
        raise FileNotFoundError(f"{place} is missing from {where}: get it from {task['origin']}")
    path, examples = folder / place, []
    for number, line in enumerate(lines(path), 1):
        try:
            example = None if number <= task.get("header", 0) else _example(task, line, language)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            about = f"not an example of {name} ({error!r}): the file is damaged or another one"
            raise ValueError(f"{path}, line {number}: {about}") from error
        examples += [example] if example else []
    # A number that is cut would still be a number.
    cut = "number" in task and not path.read_bytes().endswith(b"\n")
    if cut or len(examples) != task["examples"]:
        about = f"{len(examples)} examples of {language} instead of {task['examples']}"
        about = "a last line without an end" if cut else about
        raise ValueError(f"{path} has {about}: the file is truncated or not the release's")
    return examples, {"file": place, "sha256": sha256(path)}


def report(
    base: str = "mini",
    tasks: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    *,
    training_data: str = "none",
    strategy: str = "untuned",
    revision: str | None = None,
    spare_rows: int = 0,
    limit: int | None = None,
    batch_size: int = 16,
    data: Path | None = None,
    store: str = STORE,
) -> str:
    """Score a model on tasks of language understanding, beside a row of Table 16.

    Args:
        base: Name or folder of a model, or "mini" for the packaged one.
        tasks: Names of tasks: xcopa, mgsm, xstorycloze, pawsx, xnli. Defaults to all.
        languages: Codes of languages; each task is scored in those that it has. Defaults to all.
        training_data: Training data of the printed row: none, Alpaca-En, Alpaca-X or Bilingual.
        strategy: Strategy of the printed row: untuned, full, lora or embed.
        revision: Branch, tag or commit of the model on the Hub.
        spare_rows: Number of embeddings that the model may have beyond the tokenizer's vocabulary.
        limit: Number of examples per language, for a trial. Defaults to all.
        batch_size: Number of requests in a batch, halved when memory runs out. Defaults to 16.
        data: The data folder. Defaults to the environment variable MLQ_DATA.
        store: Folder or URL where records are kept.
    """
    printed_row(training_data, strategy)  # so that a wrong name is told before anything is scored
    scores = evaluate(
        base, tasks, languages, revision=revision, spare_rows=spare_rows, limit=limit,
        batch_size=batch_size, data=data, store=Store(store),
    )  # fmt: skip
    frames = scores, compare(scores, training_data, strategy)
    return "\n\n".join(frame.round(1).to_string(index=False) for frame in frames)


def _example(task: dict[str, Any], line: str, language: str) -> dict[str, Any] | None:
    """Return an example as the harness's prompts expect it, or None for another language."""
    names, cells = task.get("columns"), line.split("\t")
    if names and len(cells) != len(names):
        raise ValueError(f"{len(cells)} columns instead of {len(names)}")
    row = dict(zip(names, cells, strict=True)) if names else json.loads(line)
    if row.get("language", language) != language:
        return None
    if not all(row[column].strip() for column in task["texts"]):
        raise ValueError("an empty text")
    for column, meanings in task.get("values", {}).items():
        row[column] = meanings[str(row[column])]
    if column := task.get("number"):
        row[column] = int(row[column].replace(",", ""))  # "2,125"
    return row | task.get("constants", {})


def _jobs(tasks: Sequence[str] | None, languages: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return which tasks are scored in which languages."""
    chosen = [one_of("task", name, TASKS) for name in dict.fromkeys(tasks or TASKS)]
    known = sorted({code for name in chosen for code in TASKS[name]["languages"]})
    wanted = [one_of(f"language of {', '.join(chosen)}", c, known) for c in languages or known]
    for name in chosen:
        if not set(wanted) & set(has := TASKS[name]["languages"]):
            raise ValueError(f"{name} has none of the languages {', '.join(wanted)}, only {has}")
    return [(name, c) for name in chosen for c in TASKS[name]["languages"] if c in wanted]


def _frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return records, completed by their settings, as `evaluate` returns them."""
    columns = ["task", "language", "metric", "score", "stderr", "samples", "truncated"]
    frame = pd.DataFrame(records)[columns].astype({"stderr": float})
    frame.attrs = {name: records[0][name] for name in ("base", "harness", "shots", "limit")}
    frame.attrs["data"] = {f"{r['task']} {r['language']}": r["data"] for r in records}
    return frame


def _key(spec: dict[str, Any]) -> str:
    """Return a record's key, a hash of all that changes the result and of nothing else."""
    parts = {k: v for k, v in spec.items() if k != "base"} | {"semantics": SEMANTICS}
    return hashlib.sha256(json.dumps({"nlu": parts}, sort_keys=True).encode()).hexdigest()

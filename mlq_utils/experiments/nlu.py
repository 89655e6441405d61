"""Natural language understanding as in Table 16: five tasks, scored by lm-evaluation-harness.

Example::

    scores = Evaluation("mini", ["mgsm"], ["es", "th"], limit=20).scores()
    compare(scores)                                      # beside a row of Table 16

Prompts, choices and metrics are the harness's own (`pip install "mlq_utils[nlu]"`). Data is read
from the files in `MLQ_DATA` as they are released, which `data/nlu/tasks.yaml` lists. Prompts hold
no examples: the paper (Appendix H) does not say how many, but the harness's zero-shot results of
LLaMA-7B are what Table 16 prints. MGSM is asked directly, without a chain of thought, which the
paper leaves open too.
"""

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mlq_utils import modeling, paper
from mlq_utils.corpora import lines
from mlq_utils.data import PACKAGE_DATA, data_folder, one_of

TASKS: dict[str, dict[str, Any]] = yaml.safe_load((PACKAGE_DATA / "nlu/tasks.yaml").read_bytes())
"""The tasks by name; the file says what their fields mean."""
PROBE = "Thursday, January 9, 2003: joi, 9 ianuarie 2003, និង রোমানিয়া"
"""Text that a converted tokenizer must split as SentencePiece does."""


@dataclass(frozen=True)
class Evaluation:
    """A model, and the tasks of language understanding that it is scored on.

    Attributes:
        base: A model that `modeling.load` takes, such as an exported folder.
            Defaults to the packaged one, "mini".
        tasks: Names of tasks: xcopa, mgsm, xstorycloze, pawsx, xnli. Defaults to all.
        languages: Codes of languages; each task is scored in those that it has. Defaults to all.
        revision: Branch, tag or commit of the model on the Hub.
        spare_rows: Number of embeddings that the model may have beyond the tokenizer's vocabulary.
        limit: Number of examples per language, for a trial. Defaults to all.
        batch_size: Number of requests in a batch, halved when memory runs out. Defaults to 16.
    """

    base: str = "mini"
    tasks: Sequence[str] = ()
    languages: Sequence[str] = ()
    revision: str | None = None
    spare_rows: int = 0
    limit: int | None = None
    batch_size: int = 16

    def scores(self) -> pd.DataFrame:
        """Return the scores. Answers of the model that were kept are not computed again.

        Returns:
            One row per task and language: `task`, `language`, `metric`, `score` and `stderr`
            (percent; `stderr` is missing for one example), and the number of `samples`.

        Raises:
            ModuleNotFoundError: lm-evaluation-harness is not installed.
            FileNotFoundError: A file is missing. The message says where to get it and place it.
            ValueError: A name, a number or a file is wrong; or as `modeling.load`.
        """
        jobs = self._jobs()
        if find_spec("lm_eval") is None:
            name = "lm-evaluation-harness"
            raise ModuleNotFoundError(f'{name} is missing: pip install "mlq_utils[nlu]"')
        files = {job: read(*job) for job in jobs}  # all are checked before anything is computed
        found, rows = _evaluated(self, files), []
        for name, language in jobs:
            label, metric = TASKS[name]["harness"].format(language=language), TASKS[name]["metric"]
            scored, counts = found["results"][label], found["n-samples"][label]
            error = pd.to_numeric(scored[metric.replace(",", "_stderr,")], errors="coerce")
            score, samples = scored[metric], counts["effective"]
            rows.append((name, language, metric, 100 * score, 100 * error, samples))
        columns = ["task", "language", "metric", "score", "stderr", "samples"]
        return pd.DataFrame(rows, columns=columns)

    def _jobs(self) -> list[tuple[str, str]]:
        """Return which tasks are scored in which languages."""
        for name in ("limit", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        tasks = [one_of("task", name, TASKS) for name in dict.fromkeys(self.tasks or TASKS)]
        known = sorted({code for name in tasks for code in TASKS[name]["languages"]})
        kind = f"language of {', '.join(tasks)}"
        wanted = [one_of(kind, code, known) for code in self.languages or known]
        for name in tasks:
            if not set(wanted) & set(has := TASKS[name]["languages"]):
                given = ", ".join(wanted)
                raise ValueError(f"{name} has none of the languages {given}, only {has}")
        return [(name, c) for name in tasks for c in TASKS[name]["languages"] if c in wanted]


def compare(scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean scores above the rows that Table 16 prints for models of LLaMA-7B.

    Table 16's AVG counts Flores-101 as a sixth task and divides by five, except for LLaMA-7B. Here
    it is the mean over the tasks in `scores` for all rows.

    Args:
        scores: Scores as `Evaluation.scores` returns them, or some of its rows, for example those
            without English.

    Returns:
        One row per model: `training_data` ("scored here" in the first row), `strategy`, and in
        percent the mean over the languages of each task, by its name in the table, and `AVG`.
    """
    means = scores.groupby("task", sort=False)["score"].mean()
    means = means.rename(lambda name: TASKS[name]["printed"]).to_frame(("scored here", "")).T
    printed = paper.table(16).query("model == 'LLaMA-7B'")
    printed = printed.pivot(index=["training_data", "strategy"], columns="task", values="score")
    rows = pd.concat([means, printed[means.columns]]).rename_axis(printed.index.names)
    return rows.assign(AVG=rows.mean(axis="columns")).reset_index()


def report(evaluation: Evaluation) -> str:
    """Score a model on tasks of language understanding, and show it above rows of Table 16.

    Args:
        evaluation: What to score.
    """
    scores = evaluation.scores()
    frames = scores, compare(scores)
    return "\n\n".join(frame.round(1).to_string(index=False) for frame in frames)


def read(name: str, language: str) -> list[dict[str, Any]]:
    """Return a task's examples in a language, as the harness's prompts expect them.

    Raises:
        FileNotFoundError: The file is missing. The message says where to get it and place it.
        ValueError: The file is damaged.
    """
    task, folder = TASKS[name], data_folder()
    place = f"{task['folder']}/{task['file'].format(language=language)}"
    if folder is None or not (folder / place).is_file():
        where = folder or "the data folder, which MLQ_DATA must name"
        raise FileNotFoundError(f"{place} is missing from {where}: get it from {task['origin']}")
    path, examples = folder / place, []
    # A number that is cut would still be a number, so its line must have an end.
    for number, line in enumerate(lines(path, strict="number" in task), 1):
        try:
            example = None if number <= task.get("header", 0) else _example(task, line, language)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            about = f"not an example of {name} ({error!r}): the file is damaged or another one"
            raise ValueError(f"{path}, line {number}: {about}") from error
        examples += [example] if example else []
    if len(examples) != task["examples"]:
        about = f"{len(examples)} examples of {language} instead of {task['examples']}"
        raise ValueError(f"{path} has {about}: the file is truncated or not the release's")
    return examples


def _example(task: dict[str, Any], line: str, language: str) -> dict[str, Any] | None:
    """Return the example of a line, or None if it is of another language."""
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


def _evaluated(
    evaluation: Evaluation, files: dict[tuple[str, str], list[dict[str, Any]]]
) -> dict[str, Any]:
    """Return the harness's results on the examples that we have read of tasks in languages."""
    import datasets
    import lm_eval
    from lm_eval.tasks import TaskManager

    from mlq_utils.modeling import memory

    datasets.disable_progress_bars()  # they leave widgets in notebooks
    logging.getLogger("lm_eval.api.task").setLevel(logging.ERROR)  # hints on its command line
    configs = []
    for (name, language), examples in files.items():
        docs = {"test": datasets.Dataset.from_list(examples)}
        label = TASKS[name]["harness"].format(language=language)
        configs.append({
            "task": label, "custom_dataset": lambda docs=docs, **_: docs, "training_split": None,
            "validation_split": None, "test_split": "test", "num_fewshot": 0,
        })  # fmt: skip
    folder = Path(lm_eval.__file__).parent / "tasks"
    definitions = {folder / TASKS[name]["definitions"] for name, _ in files}
    manager = TaskManager(include_path=list(definitions), include_defaults=False)
    tasks = manager.load([{"group": "nlu", "task": configs}])
    model = _load(evaluation)

    def compute(batch_size: int) -> dict[str, Any]:
        model.lm.batch_size_per_gpu = batch_size
        return lm_eval.evaluate(model, tasks, limit=evaluation.limit)

    with contextlib.closing(model.dbdict), memory.phase("scoring by one request at a time"):
        return memory.halving(compute, evaluation.batch_size, "requests")[0]


def _load(evaluation: Evaluation) -> Any:
    """Return the model as the harness takes it, with a file that keeps its answers."""
    from lm_eval.api.model import CachingLM
    from lm_eval.models.huggingface import HFLM

    from mlq_utils.experiments.runner import CHECKPOINTS
    from mlq_utils.modeling import memory

    device, dtype = modeling.placement()
    given = {"revision": evaluation.revision, "spare_rows": evaluation.spare_rows}
    with memory.phase("loading the model"):
        base = modeling.load(evaluation.base, dtype=dtype, **given)
        base.model.to(device)
    # Some configurations of LLaMA name another EOS than their tokenizers have.
    base.model.generation_config.eos_token_id = base.eos
    model = HFLM(
        base.model,
        backend="causal",
        tokenizer=_transformers_tokenizer(base),
        add_bos_token=base.bos is not None,
        max_length=modeling.context_length(base.model),
        batch_size=evaluation.batch_size,
        softmax_dtype="float32",  # sums in bf16 would tie, and the first choice win
    )
    digest = modeling.digest(str(evaluation.base))
    about = f"{digest} {evaluation.revision} {dtype} {version('lm_eval')}"
    path = str(CHECKPOINTS / f"nlu-{hashlib.sha256(about.encode()).hexdigest()}.db")
    kept = CachingLM(model, path)
    kept.dbdict.close()  # the harness would pickle the answers; here they are JSON
    kept.dbdict = type(kept.dbdict)(path, autocommit=True, encode=json.dumps, decode=json.loads)
    model.set_cache_hook(kept.get_cache_hook())
    return kept


def _transformers_tokenizer(base: "modeling.Model") -> Any:
    """Return a model's tokenizer as transformers has it.

    For SentencePiece it is `LlamaTokenizer`, which differs only on doubled and leading spaces.
    `AutoTokenizer` would leave out the space that SentencePiece puts before a text.

    Raises:
        ValueError: The conversion gives other ids than SentencePiece for ordinary text.
    """
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    backend = base.tokenizer.backend
    if not hasattr(backend, "serialized_model_proto"):
        eos = backend.id_to_token(base.eos)
        bos = None if base.bos is None else backend.id_to_token(base.bos)
        return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.model").write_bytes(backend.serialized_model_proto())
        found = LlamaTokenizer.from_pretrained(folder, add_bos_token=base.bos is not None)
    if found.encode(PROBE, add_special_tokens=False) != base.tokenizer.encode(PROBE):
        raise ValueError(f"transformers cannot apply the SentencePiece model of {base.name}")
    return found

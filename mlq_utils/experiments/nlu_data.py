"""The five NLU tasks of Table 16: what the harness calls them, and the files of their releases.

    xcopa/data/<code>/test.<code>.jsonl                                500 examples
    mgsm/mgsm_<code>.tsv                                               250
    XStoryCloze/spring2016.val.<code>.tsv.split_20_80_eval.tsv       1,511
    x-final/<code>/test_2k.tsv                                       2,000 (PAWS-X)
    XNLI-1.0/xnli.test.tsv                             5,010 of each language, all in one file

Each reader returns examples with the names and types that the harness's prompts ask for.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mlq_utils.corpora import lines as _lines
from mlq_utils.data import data_folder, sha256

Example = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A task of the harness.

    Attributes:
        printed: Its name in Table 16.
        harness: Its name in the harness, to be completed with the language.
        yaml: The folder of the harness that defines it.
        hub: The data set that the harness fetches.
        metric: The score, as the harness names it.
        languages: Their codes, all that the task has.
        folder, file: Where the release is, below the data folder, and a language's file in it.
        origin: Where to get it.
        examples: How many a language has; a file with another number is damaged.
        read: Returns a language's examples.
        overrides: What is changed of the harness's definition.
    """

    printed: str
    harness: str
    yaml: str
    hub: str
    metric: str
    languages: tuple[str, ...]
    folder: str
    file: str
    origin: str
    examples: int
    read: Callable[[Path, str], Iterator[Example]]
    overrides: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Data:
    """A language's examples.

    Attributes:
        examples: The examples, None where the harness is to fetch them.
        source: A file's name and SHA-256, or the Hub's data set and its commit.
    """

    examples: list[Example] | None
    source: dict[str, str]


def load(task: Task, language: str, folder: Path) -> tuple[list[Example], dict[str, str]]:
    """Return a language's examples from the release, and the file's name and SHA-256.

    Args:
        task: The task.
        language: One of its languages.
        folder: The data folder, which holds the release's.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is truncated, damaged or another file.
    """
    name = f"{task.folder}/{task.file.format(language=language)}"
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the release is at {task.origin}")
    examples = list(task.read(path, language))
    if len(examples) != task.examples:
        raise ValueError(
            f"{path} has {len(examples)} examples of {language} where {task.examples} are "
            "expected: the file is truncated or not the release's"
        )
    return examples, {"file": name, "sha256": sha256(path)}


def _cells(path: Path, count: int, header: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Yield where each line is, for messages, and its cells; quotes mean nothing in these files."""
    for number, line in enumerate(_lines(path), 1):
        cells = line.split("\t")
        if len(cells) != count:
            raise ValueError(
                f"{path}, line {number}: {len(cells)} columns instead of {count}: the file is "
                "truncated or not the release's"
            )
        if number > header:
            yield f"{path}, line {number}", cells


def _number(where: str, text: Any, allowed: range) -> int:
    try:
        number = int(text)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: no number: {text!r}") from None
    if number not in allowed:
        raise ValueError(f"{where}: {number}, which is none of {', '.join(map(str, allowed))}")
    return number


def _full(where: str, *texts: Any) -> None:
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{where}: an empty text")


def _xcopa(path: Path, language: str) -> Iterator[Example]:
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
            texts = {name: row[name] for name in ("premise", "choice1", "choice2", "question")}
            label = row["label"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where}: no example of XCOPA ({error!r})") from None
        _full(where, *texts.values())
        if texts["question"] not in ("cause", "effect"):
            raise ValueError(f"{where}: asks for {texts['question']!r}, not for cause or effect")
        yield texts | {"label": _number(where, label, range(2))}


def _mgsm(path: Path, language: str) -> Iterator[Example]:
    if not path.read_bytes().endswith(b"\n"):  # half a number would be a number
        raise ValueError(f"{path}: the last line has no end: the file is truncated")
    for where, (question, answer) in _cells(path, 2, header=False):
        _full(where, question)
        try:
            number = int(answer.replace(",", ""))  # "2,125"
        except ValueError:
            raise ValueError(f"{where}: no number: {answer!r}") from None
        yield {"question": question, "answer": None, "answer_number": number}


def _xstorycloze(path: Path, language: str) -> Iterator[Example]:
    names = [f"input_sentence_{n}" for n in range(1, 5)] + ["sentence_quiz1", "sentence_quiz2"]
    for where, (_, *texts, answer) in _cells(path, 8):
        _full(where, *texts)
        right = _number(where, answer, range(1, 3))
        yield dict(zip(names, texts, strict=True)) | {"answer_right_ending": right}


def _pawsx(path: Path, language: str) -> Iterator[Example]:
    for where, (_, first, second, label) in _cells(path, 4):  # the harness drops empty ones
        label = _number(where, label, range(2))
        yield {"sentence1": first, "sentence2": second, "label": label}


def _xnli(path: Path, language: str) -> Iterator[Example]:
    labels = ("entailment", "neutral", "contradiction")
    for where, cells in _cells(path, 19):
        code, label, premise, hypothesis = cells[0], cells[1], cells[6], cells[7]
        if code != language:
            continue
        if label not in labels:
            raise ValueError(f"{where}: {label!r}, which is none of {', '.join(labels)}")
        _full(where, premise, hypothesis)
        yield {"premise": premise, "hypothesis": hypothesis, "label": labels.index(label)}


TASKS = {
    "xcopa": Task(
        printed="XCOPA",
        harness="xcopa_{language}",
        yaml="xcopa",
        hub="cambridgeltl/xcopa",
        metric="acc,none",
        languages=("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"),
        folder="xcopa",
        file="data/{language}/test.{language}.jsonl",
        origin="https://github.com/cambridgeltl/xcopa",
        examples=500,
        read=_xcopa,
    ),
    "mgsm": Task(
        printed="MGSM",
        harness="mgsm_direct_{language}",
        yaml="mgsm/direct",
        hub="juletxara/mgsm",
        metric="exact_match,flexible-extract",
        languages=("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"),
        folder="mgsm",
        file="mgsm_{language}.tsv",
        origin="https://github.com/google-research/url-nlp, folder mgsm",
        examples=250,
        read=_mgsm,
    ),
    "xstorycloze": Task(
        printed="XStoryCloze",
        harness="xstorycloze_{language}",
        yaml="xstorycloze",
        hub="juletxara/xstory_cloze",
        metric="acc,none",
        languages=("ar", "en", "es", "eu", "hi", "id", "my", "ru", "sw", "te", "zh"),
        folder="XStoryCloze",
        file="spring2016.val.{language}.tsv.split_20_80_eval.tsv",
        origin="the Hub, juletxara/xstory_cloze",
        examples=1511,
        read=_xstorycloze,
    ),
    "pawsx": Task(
        printed="PAW-X",
        harness="paws_{language}",
        yaml="paws-x",
        hub="google-research-datasets/paws-x",
        metric="acc,none",
        languages=("de", "en", "es", "fr", "ja", "ko", "zh"),
        folder="x-final",
        file="{language}/test_2k.tsv",
        origin="https://storage.googleapis.com/paws/pawsx/x-final.tar.gz",
        examples=2000,
        read=_pawsx,
    ),
    "xnli": Task(
        printed="XNLI",
        harness="xnli_{language}",
        yaml="xnli",
        hub="facebook/xnli",
        metric="acc,none",
        languages=(
            "ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi",
            "zh",
        ),
        folder="XNLI-1.0",
        file="xnli.test.tsv",
        origin="https://dl.fbaipublicfiles.com/XNLI/XNLI-1.0.zip",
        examples=5010,
        read=_xnli,
        # The harness now scores the development set; Table 16's LLaMA was scored on the test set.
        overrides=(("validation_split", None), ("test_split", "test")),
    ),
}  # fmt: skip
"""By the names that `nlu.evaluate` takes."""


def find(name: str, language: str, data: str | os.PathLike | None = None) -> Data:
    """Return a language's data: the release's, or which data set the harness is to fetch.

    A release whose folder is there but incomplete is an error, never a reason to download.

    Args:
        name: The task, one of `TASKS`.
        language: One of its languages.
        data: The data folder, see `_common.data_folder`.

    Raises:
        FileNotFoundError: A file of the release is missing, or the Hub has no such data set.
        ConnectionError: There is no such release here, and the Hub cannot be reached.
        ValueError: The file is damaged, or the Hub's data set is a script.
    """
    task, folder = TASKS[name], data_folder(data)
    if folder and (folder / task.folder).is_dir():
        return Data(*load(task, language, folder))
    return Data(None, {"hub": task.hub, "revision": _hub_revision(task)})


@cache
def _hub_revision(task: Task) -> str:
    """Return the commit of the data set that the harness would fetch, once for all languages."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    remedy = (
        f"Put {task.file.format(language='<code>')} of the release ({task.origin}) into "
        f"{task.folder} in the folder MLQ_DATA"
    )
    try:
        about = HfApi().dataset_info(task.hub)
    except HfHubHTTPError as error:
        raise FileNotFoundError(
            f"no data set {task.hub!r}, the Hub answers: {error}. {remedy}"
        ) from error
    except Exception as error:  # of the HTTP library's own kinds, which are no OSError
        raise ConnectionError(
            f"no data set {task.hub!r}: the Hub cannot be reached ({error}). {remedy}"
        ) from error
    script = f"{task.hub.split('/')[1]}.py"
    if script in {file.rfilename for file in about.siblings or ()}:
        raise ValueError(
            f"the data set {task.hub!r} is a script ({script}), which is not run. {remedy}"
        )
    return str(about.sha)

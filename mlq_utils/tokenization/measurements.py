"""What the LLaMA and GPT-NeoX tokenizers do to FLORES-200: recorded, and measured anew.

The record is in the package, with checksums of what was measured, so that the book shows real
measurements on a machine that has neither the tokenizers nor the corpus. Where both are in the
data folder (`MLQ_DATA`), the book measures again and compares. `python -m mlq_utils.tokenization.measurements`
writes the record anew.
"""

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import pandas as pd

from mlq_utils import corpora, languages, paper
from mlq_utils.data import PACKAGE_DATA, data_folder, one_of, sha256
from mlq_utils.tokenization import fertility as tokenization
from mlq_utils.tokenization import shortening

TOKENIZERS = {"llama": "tokenizer.model", "gpt-neox-20b": "tokenizer.json"}
"""The tokenizers measured and their files: LLaMA 1 and 2, and GPT-NeoX-20B, which MPT uses too."""
SPLIT = "devtest"
OVERTOKENIZED = 0.1
"""Shortening is measured where LLaMA splits at least this share of a language's characters."""
LENGTHS = {"one token": 1, "two tokens": 2, "table": None}
FOLDER = PACKAGE_DATA / "recorded"


def missing() -> list[str]:
    """Return what is not in the data folder and would be needed to measure again."""
    folder = data_folder()
    absent = [] if corpora.find("flores200") else ["FLORES-200 (flores200_dataset)"]
    for name, file in TOKENIZERS.items():
        if folder is None or not (folder / "tokenizers" / name / file).is_file():
            absent.append(f"the tokenizer {name} (tokenizers/{name}/{file})")
    return absent


def check_data() -> None:
    """Read all that a book rests on, so that damage is found before any notebook runs.

    Raises:
        ValueError: A table of the paper contradicts itself where print does not, a record was
            edited, or a file of a local FLORES-200 is damaged or short.
        FileNotFoundError: A local FLORES-200 lacks a file.
    """
    for number in range(1, 17):
        paper.table(number)
    for name in MEASURES:
        recorded(name)
    if corpora.find("flores200"):
        texts("flores200", SPLIT)


def measure(name: str) -> pd.DataFrame:
    """Measure now.

    Args:
        name: `fertility`: a row a tokenizer and language, with the columns of
            `tokenization.analyse`. `shortening`: a row a language and kind of prefix (`one token`,
            `two tokens`, `table`), with those of `shortening.gain`, LLaMA only.

    Raises:
        ValueError: Unknown name.
        FileNotFoundError: A tokenizer or the corpus is missing; the message says which.
    """
    one_of("measurement", name, MEASURES)
    if absent := missing():
        raise FileNotFoundError(
            f"cannot measure {name}: {' and '.join(absent)} not found in the folder MLQ_DATA"
        )
    return MEASURES[name](texts("flores200", SPLIT))


def texts(
    corpus: str, split: str, sentences: int | None = None, seed: int = 0
) -> dict[str, list[str]]:
    """Return the sentences of every language of a corpus.

    Args:
        corpus: A name of `corpora.load`.
        split: One of its splits.
        sentences: How many a language, at most; None for all.
        seed: Of a corpus that is drawn, such as `cldr`.

    Returns:
        Sentences by language, English included.
    """
    options = {"size": sentences, "seed": seed} if corpus == "cldr" else {}
    frames = {
        code: corpora.load(corpus, code, split, **options) for code in languages.codes(corpus)
    }
    return {code: frame["target"].tolist()[:sentences] for code, frame in frames.items()}


def tokenizer(
    name_or_path: str | None, vocabulary_size: int, seed: int = 0
) -> tokenization.Tokenizer:
    """Return the tokenizer of the live part: the one that is named, or one trained on CLDR text.

    Args:
        name_or_path: As in `tokenization.load`; None for `english_centric_tokenizer`.
        vocabulary_size: Pieces of the one that is trained.
        seed: Of the text that it is trained on.
    """
    if name_or_path is not None:
        return tokenization.load(name_or_path)
    return english_centric_tokenizer(vocabulary_size, seed=seed)


def english_centric_tokenizer(
    vocabulary_size: int, sentences: int = 20_000, seed: int = 0
) -> tokenization.Tokenizer:
    """Train a tokenizer on CLDR text as English-centric as LLaMA's: half English.

    The other half is shared equally by the 19 other languages of LLaMA's Wikipedia text (the
    paper's footnote 2).

    Args:
        vocabulary_size: Number of pieces; LLaMA has 32,000 for a corpus far larger.
        sentences: How many in all.
        seed: Of the sentences drawn.
    """
    table = languages.table().query("pretraining and code != 'en'")
    half = sentences // 2
    text = [corpora.load("cldr", "en", "train", size=half, seed=seed)["target"]]
    for code in table["code"]:
        size = half // len(table)
        text.append(corpora.load("cldr", code, "train", size=size, seed=seed)["target"])
    return tokenization.train(pd.concat(text), vocabulary_size, "CLDR")


def _fertility(sentences: dict[str, list[str]]) -> pd.DataFrame:
    frames = {t: tokenization.analyse(tokenization.load(t), sentences) for t in TOKENIZERS}
    return pd.concat(frames, names=["tokenizer"]).reset_index("tokenizer").reset_index(drop=True)


def _shortening(sentences: dict[str, list[str]]) -> pd.DataFrame:
    return shortenings(tokenization.load("llama"), sentences)


def shortenings(
    model: tokenization.Tokenizer, sentences: dict[str, list[str]], cap: int = 256
) -> pd.DataFrame:
    """Measure prefix shortening on each language that the tokenizer over-tokenises.

    Args:
        model: The tokenizer.
        sentences: Sentences by language.
        cap: As in `shortening.gain`.

    Returns:
        A row a language and kind of prefix (`one token`, `two tokens`, `table`): `language`,
        `kind`, `overtokenized_share`, and the columns of `shortening.gain`.
    """
    rows = []
    for language, text in sentences.items():
        share = tokenization.fertility(model, text)["overtokenized_share"]
        if share < OVERTOKENIZED:
            continue
        for kind, length in LENGTHS.items():
            row = {"language": language, "kind": kind, "overtokenized_share": share}
            try:
                rows.append(row | dict(shortening.gain(model, text, length, cap)))
            except ValueError:  # every split character takes two tokens: no prefix of two
                continue
    return pd.DataFrame(rows)


MEASURES = {"fertility": _fertility, "shortening": _shortening}


def recorded(name: str) -> pd.DataFrame:
    """Return the recorded measurement, with its provenance in `attrs`.

    Raises:
        ValueError: Unknown name, or the file is not the one that was recorded.
    """
    path = FOLDER / f"{one_of('measurement', name, MEASURES)}.csv"
    provenance = json.loads((FOLDER / "provenance.json").read_text(encoding="utf8"))
    if sha256(path) != provenance["files"][path.name]:
        raise ValueError(f"{path.name} is not the record that was made; reinstall mlq_utils")
    frame = pd.read_csv(path, keep_default_na=False)
    frame.attrs = provenance
    return frame


def load(name: str) -> pd.DataFrame:
    """Return a measurement: made now where the data is present, the record elsewhere.

    Returns:
        The frame of `measure`; `attrs["origin"]` says in a sentence which of the two it is and,
        where it was made now, the largest relative difference from the record.
    """
    record = recorded(name)
    if absent := missing():
        record.attrs["origin"] = (
            f"Recorded on {record.attrs['date']}; not measured again here, for lack of "
            f"{' and '.join(absent)}."
        )
        return record
    frame = measure(name)
    frame.attrs["origin"] = f"Measured when this page was made; {compare(frame, record)}."
    return frame


def ratios(fertility: pd.DataFrame) -> pd.DataFrame:
    """Set the Ratio that the paper prints (Tables 5 and 13) beside what is measured.

    Args:
        fertility: The measurement of that name.

    Returns:
        A row a language that either table has, by measured ratio: `Table 13`, `Table 5` (missing
        where not printed), `measured` (tokens per word), `per character`, `difference` (measured
        minus Table 13) and `rounds to it` (whether it rounds to Table 13's digit).
    """
    llama = fertility[fertility["tokenizer"] == "llama"].set_index("language")
    printed = {f"Table {n}": paper.table(n).groupby("target")["ratio"].first() for n in (13, 5)}
    frame = pd.DataFrame(printed)
    frame["measured"] = llama["tokens_per_word"]
    frame["per character"] = llama["tokens_per_char"]
    frame["difference"] = frame["measured"] - frame["Table 13"]
    rounds = frame["measured"].round(1) == frame["Table 13"]
    frame["rounds to it"] = rounds.where(frame["Table 13"].notna())
    return frame.sort_values("measured")


def checksums() -> str:
    """Return what the record was made with, in a line: date, tokenizers, corpus, checksums."""
    made = json.loads((FOLDER / "provenance.json").read_text(encoding="utf8"))
    corpus = made["corpus"]
    parts = [f"{name} sha256 {t['sha256'][:12]}…" for name, t in made["tokenizers"].items()]
    parts.append(f"{corpus['name']} {corpus['split']} {corpus['sha256_of_sha256s'][:12]}…")
    return f"{made['date']}: {', '.join(parts)}"


def compare(frame: pd.DataFrame, record: pd.DataFrame) -> str:
    """Say how far a measurement is from the record."""
    if list(frame.columns) != list(record.columns) or len(frame) != len(record):
        return "its rows or columns are not those of the record"
    numbers = frame.select_dtypes("number").columns
    same = frame.drop(columns=numbers).astype(str) == record.drop(columns=numbers).astype(str)
    if not same.all(axis=None):
        return "its languages or prefixes are not those of the record"
    far = np.abs(frame[numbers] - record[numbers]) / record[numbers].abs().clip(lower=1e-9)
    return f"the largest relative difference from the record is {far.max(axis=None):.0e}"


def record() -> None:
    """Measure all and write the record into the package."""
    files = {}
    for name in MEASURES:
        path = FOLDER / f"{name}.csv"
        measure(name).to_csv(path, index=False, float_format="%.8g", lineterminator="\n")
        files[path.name] = sha256(path)
    corpus = [corpora.load("flores200", c, SPLIT).attrs for c in languages.codes("flores200")]
    digests = "".join(attrs["target_sha256"] for attrs in corpus)
    provenance = {
        "date": datetime.now(UTC).date().isoformat(),
        "corpus": {
            "name": "flores200",
            "split": SPLIT,
            "languages": len(corpus),
            "sha256_of_sha256s": hashlib.sha256(digests.encode()).hexdigest(),
        },
        "tokenizers": {
            name: {"file": file, "sha256": sha256(data_folder() / "tokenizers" / name / file)}
            for name, file in TOKENIZERS.items()
        },
        "versions": {p: version(p) for p in ("sentencepiece", "tokenizers", "numpy", "pandas")},
        "files": files,
    }
    text = json.dumps(provenance, indent=2) + "\n"
    (FOLDER / "provenance.json").write_text(text, encoding="utf8")


if __name__ == "__main__":
    record()

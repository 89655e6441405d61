"""Text to learn vocabularies and tokenizers from, and instructions."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlq_utils import languages, tokenization
from mlq_utils.corpora import readers, releases
from mlq_utils.corpora.loading import about, composed, draw, load
from mlq_utils.data import PACKAGE_DATA, cache_folder, one_of, sha256
from mlq_utils.languages import Language

TEXTS = {"cldr": "train", "flores101": "dev", "flores200": "dev"}
"""Corpora whose translations serve as text in one language, and the split that does."""


def monolingual(name: str, language: str | Language, size: int, seed: int = 0) -> pd.Series:
    """Return text in one language, from which a vocabulary is learned (Section 4.3, Table 6).

    Args:
        name: "mc4", whose lines are read until there are enough; a key of `TEXTS`, whose sentences
            are drawn; or your own file of UTF-8 text, whose lines are drawn. The paper takes mC4
            and the dev set of FLORES-101.
        language: A language, as `languages.get` takes it.
        size: Largest number of lines or sentences.
        seed: Random seed for the order of files or sentences.

    Returns:
        A Series `text`. Its `attrs` are those of `load`, with `lines` instead of `pairs`.

    Raises:
        ValueError: The name or language is unknown, the corpus lacks the language, `size` is less
            than 1, or a file is damaged.
        FileNotFoundError, ConnectionError: As for `load`.
    """
    if size < 1:
        raise ValueError(f"size must be 1 or more, not {size}")
    if Path(name).is_file():
        return _own(Path(name), language, size, seed)
    one_of("file or source of text", name, ("mc4", *TEXTS))
    code = releases.code_in(name, language)
    if name == "mc4":
        lines = list(itertools.islice(_mc4_lines(code, seed), size))
        if not lines:
            raise ValueError(f"mC4 has no text in {language!r}: no line of its files is left")
        text = pd.Series(lines, name="text")
        digest = hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()
        attrs = {"sha256": digest, **about(name)}
    else:
        options = composed(name, size, seed)
        frame = load(name, language, TEXTS[name], **options)
        text = (frame if options else draw(frame, size, seed))["target"].rename("text")
        attrs = {key: value for key, value in frame.attrs.items() if key != "pairs"}
    given = {"corpus": name, "language": languages.get(language).code, "size": size, "seed": seed}
    text.attrs = attrs | given | {"lines": len(text)}
    return text


def _own(file: Path, language: str | Language, size: int, seed: int) -> pd.Series:
    lines = [line for line in readers.lines(file) if line.strip()]
    if not lines:
        raise ValueError(f"{file} holds no text")
    text = draw(pd.DataFrame({"text": lines}), size, seed)["text"]
    code = languages.get(language).code
    given = {"corpus": file.name, "language": code, "size": size, "seed": seed}
    text.attrs = {"sha256": sha256(file)} | given | {"lines": len(text)}
    return text


def _mc4_lines(code: str, seed: int) -> Iterator[str]:
    """Yield the lines of mC4's files in drawn order, or of those that a user's folder has."""
    files = mc4_files(code, seed)
    folder = releases.find("mc4")
    if folder is not None and folder.parent != cache_folder():
        files, first = [file for file in files if (folder / file).is_file()], files[0]
        if not files:
            raise FileNotFoundError(
                f"{folder} has no file of {code!r}, such as {first}. Get some from "
                f"{releases.CORPORA['mc4'].origin}, or take the folder away"
            )
    for file in files:  # one by one, because the first is mostly enough
        (path,) = releases.fetched("mc4", [file])
        yield from readers.mc4(path)


def mc4_files(code: str, seed: int) -> list[str]:
    """Return mC4's files of a language (mC4's code) in the drawn order in which they are read."""
    counts = pd.read_csv(PACKAGE_DATA / "mc4.csv").set_index("language")["files"]
    order = np.random.default_rng(seed).permutation(counts[code])
    return [f"c4-{code}.tfrecord-{n:05d}-of-{counts[code]:05d}.json.gz" for n in order]


@dataclass(frozen=True)
class _Instruction:
    instruction: str
    input: str
    output: str


def alpaca(language: str = "en") -> pd.DataFrame:
    """Return the instructions of Alpaca (Taori et al. 2023), or a translation of them.

    Only the English ones are downloaded. Translations are published in many places, none of them
    the paper's. Put one into the folder `alpaca` as `alpaca_data_<language>.json`.

    Args:
        language: The paper's code.

    Returns:
        One row per instruction, with columns `instruction`, `input` (often empty) and `output`.

    Raises:
        ValueError: The file is damaged or not in Alpaca's format.
        FileNotFoundError, ConnectionError: The file is not here, and cannot be downloaded.
    """
    from pydantic import TypeAdapter, ValidationError

    english = languages.get(language).code == "en"
    file = "alpaca_data.json" if english else f"alpaca_data_{language}.json"
    (path,) = releases.fetched("alpaca", [file], by_hand=not english)
    try:
        rows = TypeAdapter(list[_Instruction]).validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        where = " ".join(map(str, ["entry", *fault["loc"]])) if fault["loc"] else "the file"
        raise ValueError(
            f"{path} is truncated or no list of instructions: {where}: {fault['msg']}"
        ) from None
    if not rows:
        raise ValueError(f"{path} is an empty list of instructions")
    return pd.DataFrame(rows)


def texts(
    corpus: str, split: str, sentences: int | None = None, seed: int = 0
) -> dict[str, list[str]]:
    """Return the sentences of every language of a corpus, English among them, by language.

    Args:
        corpus: One of `NAMES`.
        split: One of its splits.
        sentences: Largest number of sentences per language. Defaults to all.
        seed: Random seed of `cldr`. Other corpora are not sampled.
    """
    options = composed(corpus, sentences, seed)
    frames = {code: load(corpus, code, split, **options) for code in languages.codes(corpus)}
    return {code: frame["target"].tolist()[:sentences] for code, frame in frames.items()}


def english_centric_tokenizer(
    vocabulary_size: int, sentences: int = 20_000, seed: int = 0
) -> tokenization.Tokenizer:
    """Train a tokenizer on CLDR text that is half English, like LLaMA's.

    The other half of the sentences is shared equally by the 19 other languages of LLaMA's Wikipedia
    text (footnote 2 of the paper). The seed decides which sentences are sampled.
    """
    others = languages.table().query("pretraining and code != 'en'")["code"]
    half = sentences // 2
    sizes = {"en": half, **dict.fromkeys(others, half // len(others))}
    text = [load("cldr", code, "train", size=n, seed=seed)["target"] for code, n in sizes.items()]
    return tokenization.train(pd.concat(text), vocabulary_size, "CLDR")

"""Text of all languages of a corpus, and a tokenizer trained on such text."""

import pandas as pd

from mlq_utils import languages, tokenization
from mlq_utils.corpora.loading import load


def texts(
    corpus: str, split: str, sentences: int | None = None, seed: int = 0
) -> dict[str, list[str]]:
    """Return the sentences of every language of a corpus.

    Args:
        corpus: Name of the corpus, as in `corpora.load`.
        split: One of its splits.
        sentences: Most sentences per language. Defaults to all.
        seed: Random seed of a corpus that is sampled, such as `cldr`.

    Returns:
        Sentences by language, including English.
    """
    options = {"size": sentences, "seed": seed} if corpus == "cldr" else {}
    frames = {code: load(corpus, code, split, **options) for code in languages.codes(corpus)}
    return {code: frame["target"].tolist()[:sentences] for code, frame in frames.items()}


def english_centric_tokenizer(
    vocabulary_size: int, sentences: int = 20_000, seed: int = 0
) -> tokenization.Tokenizer:
    """Train a tokenizer on CLDR text that is half English, like LLaMA's.

    The other half is shared equally by the 19 other languages of LLaMA's Wikipedia text
    (footnote 2 of the paper).

    Args:
        vocabulary_size: Number of pieces. LLaMA has 32,000 for a far larger corpus.
        sentences: Total number of sentences. Defaults to 20,000.
        seed: Random seed for sampling the sentences.
    """
    table = languages.table().query("pretraining and code != 'en'")
    half = sentences // 2
    text = [load("cldr", "en", "train", size=half, seed=seed)["target"]]
    for code in table["code"]:
        size = half // len(table)
        text.append(load("cldr", code, "train", size=size, seed=seed)["target"])
    return tokenization.train(pd.concat(text), vocabulary_size, "CLDR")

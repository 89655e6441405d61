"""Parallel and monolingual text: which corpora there are, and how they are read.

`load` reads every corpus, and `training_pairs` draws pairs to tune on. `monolingual` gives text in
one language, `texts` gives text in all languages, and `alpaca` gives instructions. `Pairs` are your
own, and `clean` leaves out those that a model should not be tuned on. The module
`cldr` composes the embedded corpus, and `inventory` lists all corpora. Released files are looked
for in the folder `MLQ_DATA` and in the download cache.
"""

from mlq_utils.corpora.loading import draw, load, training_pairs
from mlq_utils.corpora.own import Pairs, clean
from mlq_utils.corpora.readers import lines
from mlq_utils.corpora.releases import CORPORA, NAMES, Corpus, find
from mlq_utils.corpora.texts import TEXTS, alpaca, english_centric_tokenizer, monolingual, texts

__all__ = [
    "CORPORA",
    "NAMES",
    "TEXTS",
    "Corpus",
    "Pairs",
    "alpaca",
    "clean",
    "draw",
    "english_centric_tokenizer",
    "find",
    "lines",
    "load",
    "monolingual",
    "texts",
    "training_pairs",
]

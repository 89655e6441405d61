"""The metric's own SentencePiece model."""

import io

import sentencepiece

from mlq_utils import languages
from mlq_utils.corpora import cldr
from mlq_utils.data import PACKAGE_DATA
from mlq_utils.modeling.pretraining_text import pretraining_languages
from mlq_utils.scoring import cldr_spm, spbleu


def train():
    """How the packaged model was made: a unigram model of equal parts of all languages of CLDR."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(
            phrase
            for code in languages.codes("cldr")
            for phrase in cldr.pairs(code, "train", 1000, seed=1)["target"]
        ),
        model_writer=model,
        vocab_size=16_000,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def test_the_packaged_model_is_what_training_gives():
    assert train() == (PACKAGE_DATA / "cldr_spm.model").read_bytes()


def test_it_covers_all_characters_of_all_languages():
    backend = cldr_spm().backend
    unknown = [
        code
        for code in languages.codes("cldr")
        for text in cldr.pairs(code, "train", 20)["target"]
        if backend.unk_id() in backend.encode(text)
    ]
    assert not unknown


def test_copying_the_source_scores_next_to_nothing():
    """With a piece a digit it would score about thirty."""
    scores = []
    for code in pretraining_languages():
        pairs = cldr.pairs(code, "test", 60)
        found = spbleu(
            list(pairs["source"]), list(pairs["target"]), tokenizer=cldr_spm(), resamples=1
        )
        scores.append(found.score)
    assert 1 < sum(scores) / len(scores) < 6

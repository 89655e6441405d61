"""The metric's own SentencePiece model."""

import hashlib

from mlq_utils import languages
from mlq_utils.corpora import cldr
from mlq_utils.modeling.pretraining_text import pretraining_languages
from mlq_utils.scoring import metrics as scoring
from mlq_utils.scoring import spm


def test_the_packaged_model_is_what_training_gives():
    assert hashlib.sha256(spm.train()).digest() == hashlib.sha256(spm.MODEL.read_bytes()).digest()


def test_it_covers_all_characters_of_all_languages():
    backend = spm.cldr_spm().backend
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
        found = scoring.spbleu(
            list(pairs["source"]), list(pairs["target"]), tokenizer=spm.cldr_spm(), resamples=1
        )
        scores.append(found.score)
    assert 1 < sum(scores) / len(scores) < 6

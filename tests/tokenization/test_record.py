"""The record: complete, equal to a new measurement, and refused if it was edited."""

import json
import shutil

import pandas as pd
import pytest

from benchmarks import record_tokenizers
from mlq_utils import languages, tokenization
from mlq_utils.data import sha256
from mlq_utils.tokenization import record


def same(measured, on_record):
    on_record = on_record[list(measured)].reset_index(drop=True)
    pd.testing.assert_frame_equal(measured, on_record, rtol=1e-6, check_dtype=False)


@pytest.mark.parametrize(("third", "words"), [*enumerate(record_tokenizers.TOKENIZERS)])
def test_the_record_is_what_is_measured_now(flores, data, third, words):
    """A third of the languages for each tokenizer, and all of them together."""
    file = data / "tokenizers" / words / record_tokenizers.TOKENIZERS[words]
    if not file.is_file():
        pytest.skip(f"no tokenizer of {words} in the data folder")
    on_record = tokenization.recorded("fertility").query("tokenizer == @words")
    assert on_record["language"].tolist() == languages.codes("flores200")
    listed = {*on_record["language"].iloc[third % 3 :: 3], "en"}
    on_record = on_record[on_record["language"].isin(listed)]
    texts = {language: flores(language) for language in on_record["language"]}
    same(tokenization.analyse(tokenization.load(words), texts), on_record)
    assert on_record.attrs["tokenizers"][words]["sha256"] == sha256(file)


def test_the_recorded_shortening_is_what_is_measured_now(llama, flores):
    on_record = tokenization.recorded("shortening")
    shares = tokenization.recorded("fertility").query("tokenizer == 'llama'")
    over = shares["overtokenized_share"] >= tokenization.OVERTOKENIZED
    assert on_record["language"].unique().tolist() == shares["language"][over].tolist()
    texts = {language: flores(language) for language in on_record["language"].unique()}
    same(tokenization.gains(llama, texts), on_record)


def test_an_edited_record_is_refused(monkeypatch, tmp_path):
    folder = shutil.copytree(record.FOLDER, tmp_path / "recorded")
    monkeypatch.setattr(record, "FOLDER", folder)
    path = folder / "fertility.csv"
    path.write_text(path.read_text().replace("llama,ro,2", "llama,ro,3"))
    with pytest.raises(ValueError, match=r"fertility.csv is not the file that was recorded"):
        tokenization.recorded("fertility")


def test_unknown_measurement():
    with pytest.raises(ValueError, match=r"unknown measurement .fertilty.*Did you mean fertility"):
        tokenization.recorded("fertilty")


def test_every_shortened_sentence_came_back():
    shortened = tokenization.recorded("shortening")
    assert shortened["restored"].eq(1).all()
    assert {"km", "lo", "gu", "te"} <= set(shortened["language"])


def test_provenance_names_every_file():
    provenance = json.loads((record.FOLDER / "provenance.json").read_text())
    measured = {
        p.name
        for p in record.FOLDER.glob("*.csv")
        if not p.name.startswith(("diagnosis", "byte_level"))
    }
    assert measured == set(provenance["files"])  # diagnoses are of the packaged base
    assert provenance["date"] in tokenization.checksums()

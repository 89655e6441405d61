"""The record: complete, equal to a new measurement, and refused if it was edited."""

import json
import shutil

import pandas as pd
import pytest

from benchmarks import record_tokenizers
from mlq_utils import tokenization
from mlq_utils.data import sha256
from mlq_utils.tokenization import record

NAMES = ("fertility", "shortening")


def test_the_record_is_what_is_measured_now(llama, flores, data):
    if not (data / "tokenizers/gpt-neox-20b").is_dir():
        pytest.skip("no GPT-NeoX tokenizer in the data folder")
    measured = record_tokenizers.measure()
    assert tuple(measured) == NAMES
    for name, frame in measured.items():
        on_record = tokenization.recorded(name)
        pd.testing.assert_frame_equal(frame, on_record, rtol=1e-6, check_dtype=False, obj=name)
        for words, file in record_tokenizers.TOKENIZERS.items():
            digest = sha256(data / "tokenizers" / words / file)
            assert on_record.attrs["tokenizers"][words]["sha256"] == digest


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
    assert {p.name for p in record.FOLDER.glob("*.csv")} == set(provenance["files"])
    assert provenance["date"] in tokenization.checksums()

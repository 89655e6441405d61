"""The recorded study of byte-level extension has each of its runs."""

import pandas as pd
import pytest

from benchmarks import byte_level


@pytest.mark.parametrize("language", byte_level.LANGUAGES)
def test_the_record_has_a_row_for_each_run(language, monkeypatch):
    monkeypatch.setattr(byte_level, "base", lambda: "mini")  # which is not pretrained
    table = pd.read_csv(byte_level.TABLE, keep_default_na=False, na_values={"used": [""]})
    rows = table[table["language"] == language]
    made = [
        (spec.strategy, getattr(spec.extension, "start", ""), spec.seed)
        for spec in byte_level.specs(language)[1:]
    ]
    assert list(rows[["strategy", "start", "seed"]].itertuples(index=False, name=None)) == made
    assert (rows["used"].isna() == (rows["start"] == "")).all()
    assert rows["spbleu"].astype(float).between(0, 100).all()

"""The downloads: each frame as two files that hold the same, and a dictionary of all columns."""

import pandas as pd
import pytest

from mlq_utils import paper
from mlq_utils.book import downloads


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    downloads.write(folder)
    return folder


def test_each_frame_is_there_twice_and_the_same(folder):
    names = {*downloads.DOWNLOADS, "columns"}
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("csv", "parquet")
    }
    for name in names:
        parquet = pd.read_parquet(folder / f"{name}.parquet")
        csv = pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])
        assert len(parquet) and list(csv) == list(parquet), name
        assert len(csv) == len(parquet), name


def test_a_table_is_the_papers(folder):
    read = pd.read_csv(folder / "table_12.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(read, paper.table(12), check_dtype=False)


def test_the_catalogue_and_the_dictionary_know_every_file_and_column(folder):
    listed = downloads.catalogue().set_index("name")
    columns = set()
    for name in downloads.DOWNLOADS:
        frame = pd.read_parquet(folder / f"{name}.parquet")
        assert (listed.loc[name, "rows"], listed.loc[name, "columns"]) == frame.shape
        columns |= set(frame)
    dictionary = downloads.dictionary()
    assert columns == set(dictionary["column"])
    assert all(text.endswith(".") for text in dictionary["meaning"])

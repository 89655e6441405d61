"""A trial: runs of three strategies become one page with advice and a command."""

import dataclasses
import shlex

import pandas as pd
import pytest

from mlq_utils import cli, corpora, experiments, modeling
from mlq_utils.corpora import Pairs
from mlq_utils.experiments import Spec, Store, runner, trial
from mlq_utils.languages import Language


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("trial") / "pairs.tsv"
    frame = corpora.load("cldr", "eu", "train", size=350)
    frame.to_csv(path, sep="\t", header=False, index=False)
    return path


@pytest.fixture(scope="module")
def tried(file, base, tmp_path_factory):
    """What the command prints, and its folder."""
    folder = tmp_path_factory.mktemp("tried")
    words = f"trial --base {base} --language eu --pairs {file} --panel ro km --size 320 --epochs 1"
    words += f" --test-size 4 --beam-size 1 --cap 8 --folder {folder} --store {folder}/store"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *texts, **_: printed.extend(texts))
        assert cli.main(words.split()) == 0, printed
    return printed[-1], folder


def test_the_page_has_changes_advice_and_a_command(tried):
    printed, folder = tried
    assert "trial.md says what to do." in printed and (folder / "trial.png").stat().st_size > 5000
    page = (folder / "trial.md").read_text("utf8")
    assert "Trial: Basque" in page and "on 320 of " in page and "Basque (eu): " in page
    assert "{" not in page
    rows = [line.split() for line in printed.splitlines() if line.split()[1:2]]
    assert [row[:2] for row in rows[1:4]] == [
        ["embed", "0.003"],
        ["full", "0.003"],
        ["full", "0.0003"],
    ]
    (advised,) = [row for row in rows[1:4] if row[-1] == "True"]
    assert f"**{advised[0]} at a learning rate of {advised[1]}.**" in page


def test_the_command_on_the_page_makes_the_run_at_full_size(tried, monkeypatch):
    page = (tried[1] / "trial.md").read_text("utf8")
    (line,) = [line for line in page.splitlines() if line.startswith("    mlq run")]
    seen = []
    monkeypatch.setattr(runner, "report", lambda spec, *_, **__: seen.append(spec) or "")
    assert cli.main(shlex.split(line)[1:]) == 0
    (spec,) = seen
    assert spec.languages == ("eu",) and spec.targets == ("eu", "ro", "km")
    assert spec.panel == ("en", "eu", "ro", "km") and 320 <= spec.size < 350
    assert f"{trial.command(spec)} --compare" == line.strip()


def test_any_run_is_a_command(file):
    other = Language("qxx", "Newish", "Latn")
    spec = Spec(
        ("qxx",), ("qxx", "ro"), language=other, into_english=True,
        pairs=Pairs(str(file)), test_pairs=Pairs(str(file)),
    )  # fmt: skip
    words = trial.command(spec)
    assert "--language qxx Newish Latn" in words and words.endswith("--into-english")
    assert f"--pairs {file} --test-pairs {file}" in words


def test_the_advised_strategy_does_not_harm_others_if_any_does_not(
    file, base, monkeypatch, tmp_path
):
    changes = iter([(1, 5, 6), (30, -9, -2), (12, 1, 3)])

    def made(*_):
        own, others, high = next(changes)
        low = 2 * others - high
        return {
            "strategy": "x", "learning_rate": 0.1, "own": own, "own_low": own, "own_high": own,
            "others": others, "others_low": low, "others_high": high,
        }  # fmt: skip

    monkeypatch.setattr(trial, "_changes", made)
    monkeypatch.setattr(trial, "_page", lambda *_: "")
    monkeypatch.setattr(trial.planning, "plan", lambda *_, **__: None)
    monkeypatch.setattr(runner, "run", lambda *_: {"status": "done"})
    frame = experiments.trial.trial(
        Spec(("eu",), pairs=Pairs(str(file))), Store(tmp_path), tmp_path
    )
    assert frame["frontier"].tolist() == [True, True, True]
    assert frame["advised"].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--language eux --pairs FILE", "unknown language 'eux'"),
        ("--language eu --pairs none.tsv", "none.tsv"),
        ("--language eu --pairs FILE --panel eu", "a panel with others to score"),
        ("--pairs FILE", "a trial takes one language"),
        ("--language eu --pairs FILE --card X9", "unknown card 'X9'"),
        ("--language eu --pairs FILE --base nowhere", "no model 'nowhere'"),
        ("--language eu --pairs FEW", "of 12 pairs are left to tune on"),
    ],
)
def test_what_is_refused_before_anything_is_computed(
    words, message, file, tmp_path, capsys, monkeypatch
):
    few = tmp_path / "few.tsv"
    rows = pd.read_csv(file, sep="\t", header=None).head(12)
    rows.to_csv(few, sep="\t", header=False, index=False)
    monkeypatch.setattr(modeling, "load", lambda *_, **__: pytest.fail("computed"))
    words = words.replace("FILE", str(file)).replace("FEW", str(few))
    given = ["--store", str(tmp_path / "store"), "--folder", str(tmp_path / "page")]
    assert cli.main(["trial", *words.split(), *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_one_language_is_tuned_on():
    spec = dataclasses.replace(Spec(), languages=("ro", "fr"))
    with pytest.raises(ValueError, match="one language"):
        trial.trial(spec, Store("unused"), None)

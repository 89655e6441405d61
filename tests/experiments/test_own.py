"""Your own language, pairs and test set in a run, in both directions; and what is refused."""

import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import pytest

from mlq_utils import cli, corpora, experiments, languages, modeling, tokenization
from mlq_utils.corpora import Pairs
from mlq_utils.experiments import Spec, drawing, runner, spec_of
from mlq_utils.experiments.store import Store
from mlq_utils.languages import Language
from mlq_utils.modeling.extension import Extension

NEW = Language("qeu", "New Basque", "Latn", family_1="Basque")
FEW = {"size": 320, "epochs": 1, "beam_size": 1, "test_size": 4, "cap": 12}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """400 pairs of Basque, twice the same and one empty."""
    frame = corpora.load("cldr", "eu", "train", size=398)
    frame = pd.concat([frame, frame.tail(1), pd.DataFrame({"source": ["x"], "target": [""]})])
    path = tmp_path_factory.mktemp("own") / "pairs.tsv"
    frame.to_csv(path, sep="\t", header=False, index=False)
    return path


@pytest.fixture(scope="module")
def spec(file, base):
    return Spec(
        ("qeu",), ("qeu", "af"), pairs=Pairs(str(file)), language=NEW, base=str(base), **FEW
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def record(spec, store):
    return experiments.run(spec, store, progress=False)


def test_a_run_on_own_pairs_says_what_was_left_out(record, spec, store):
    assert [row["target"] for row in record["scores"]] == ["qeu", "af"]
    drawn = record["training"]["drawn"]
    assert drawn["read"] == {"qeu": 400} and drawn["pairs"] == {"qeu": 320}
    lost = drawn["left_out"]["qeu"]
    assert (lost["in_test"], lost["repeated"], lost["empty"]) == (4, 1, 1) and lost["identical"]
    assert "qeu: 400 pairs read, 320 tuned on; left out: 1 empty" in runner.report(spec, store)
    tested = store.hypotheses(record["identity"]).query("target_language == 'qeu'")
    tuned = drawing.tuning_data(spec)
    assert tuned["prompt"].str.startswith("### Instruction:\nTranslate English to New Bas").all()
    assert not set(tested["target"]) & set(tuned["target"])


def test_the_content_identifies_the_run_and_not_the_path(spec, record, file, tmp_path):
    moved = tmp_path / "moved.csv"
    pd.read_csv(file, sep="\t", header=None, keep_default_na=False).to_csv(
        moved, header=False, index=False
    )
    again = dataclasses.replace(spec, pairs=Pairs(str(moved)))
    assert again.identity() == spec.identity()
    moved.write_text("a,b\n", "utf8")
    assert dataclasses.replace(spec, pairs=Pairs(str(moved))).identity() != spec.identity()
    moved.unlink()
    assert spec_of(record) == spec  # which reads no file
    assert spec_of(json.loads(json.dumps(record))).identity() == record["identity"]


def test_what_is_not_named_changes_no_identity(spec):
    plain = Spec(("ro",))
    for name in ("pairs", "test_pairs", "language", "into_english"):
        changed = dataclasses.replace(plain, languages=("eu",), targets=("eu",))
        given = {name: True if name == "into_english" else getattr(spec, name) or spec.pairs}
        assert dataclasses.replace(changed, **given).identity() != changed.identity()
    named = dataclasses.replace(NEW, flores="eus_Latn")
    assert dataclasses.replace(spec, language=named).identity() != spec.identity()


def test_a_run_carries_its_language_to_other_processes(spec):
    with pytest.raises(ValueError, match="unknown language 'qeu'"):
        languages.get("qeu")  # so that nothing but the specification can know it
    there = pickle.loads(pickle.dumps(spec))
    assert there == spec and there.identity() == spec.identity()
    assert there.spoken("qeu").name == "New Basque"


@pytest.mark.parametrize("code", ["eu", "sq", "si", "br", "yue"])
def test_other_languages_of_cldr_work_at_once(code):
    spec = Spec((code,), (code, "ro"), into_english=code == "br")
    frame = drawing.tuning_data(spec)
    assert len(frame) == 600 and set(frame["language"]) == {code}
    assert len(drawing.sentences(spec, code)) == 40


def test_into_english(spec, tmp_path):
    back = dataclasses.replace(spec, into_english=True, targets=("qeu", "ro"))
    forth = drawing.sentences(spec, "qeu")
    assert drawing.sentences(back, "qeu")["source"].tolist() == forth["target"].tolist()
    frame = drawing.tuning_data(back)
    assert frame["prompt"].str.startswith("### Instruction:\nTranslate New Basque to Eng").all()
    assert set(frame["target"]) == set(drawing.tuning_data(spec)["prompt"].str.split("\n").str[3])
    record = experiments.run(back, Store(tmp_path), progress=False)
    assert record["status"] == "done"
    (first, _) = experiments.scores([record])["into_english"]
    assert first


def test_a_test_set_of_its_own(spec, file, tmp_path):
    """Sentences of the training pairs that are in it are not tuned on."""
    rows = pd.read_csv(file, sep="\t", header=None).iloc[[7, 50, 60]]
    rows.to_csv(tmp_path / "test.tsv", sep="\t", header=False, index=False)
    own = dataclasses.replace(spec, test_pairs=Pairs(str(tmp_path / "test.tsv")))
    assert drawing.sentences(own, "qeu")["target"].tolist() == rows[1].tolist()
    assert drawing.tuning_data(own).attrs["left_out"]["qeu"]["in_test"] == 3
    assert not set(drawing.tuning_data(own)["target"]) & set(rows[1])
    untuned = own.untuned()
    assert drawing.sentences(untuned, "qeu")["target"].tolist() == rows[1].tolist()
    assert dataclasses.replace(own, targets=("af",)).untuned().own == ""
    turned = dataclasses.replace(own, targets=("af", "qeu"))
    assert turned.untuned().targets == ("qeu", "af")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language": Language("cy", "New Welsh", "Latn")}, "code 'cy' is taken by Welsh"),
        ({"language": None}, "unknown language 'qeu'"),
        ({"languages": ("qeu", "ro")}, "of one language, not of qeu.ro"),
        ({"pairs": None}, "unknown language of cldr 'qeu'"),
        ({"targets": ("qeu", "umb")}, "unknown language of cldr 'umb'"),
        ({"test": ("flores200", "devtest")}, "unknown language of flores200 'qeu'"),
    ],
)
def test_what_cannot_be_run_is_refused_when_it_is_specified(spec, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(spec, **changes)


def few(rows, folder):
    path = folder / "few.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in rows), "utf8")
    return Pairs(str(path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [(f"{n} houses", f"{n} etxe") for n in range(12)],
            r"8 of 12 pairs are .*: 4 in test.*make 1 st",
        ),
        ([(f"{n} houses", f"{n} дома") for n in range(500)], "0 of 500 pairs .* 500 wrong script"),
    ],
)
def test_too_few_pairs_are_refused_with_the_reason(spec, tmp_path, monkeypatch, rows, message):
    monkeypatch.setattr(modeling, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=message):
        experiments.run(
            dataclasses.replace(spec, pairs=few(rows, tmp_path), targets=("qeu",)), Store(tmp_path)
        )


def test_a_script_that_the_tokenizer_lacks(base):
    latin = tokenization.train(["abc def"] * 9, 20, byte_fallback=False)
    model = dataclasses.replace(modeling.load(base), tokenizer=latin)
    drawing.check_letters(model, pd.Series(["abc", "def"]))
    with pytest.raises(ValueError, match=r"no tokens for 100% of the letters .*, such as ක ව"):
        drawing.check_letters(model, pd.Series(["වක"]))


def test_an_own_language_is_learned_from_and_planned(spec):
    named = dataclasses.replace(NEW, cldr="eu")
    extended = dataclasses.replace(spec, language=named, extension=Extension("bpe", 5))
    model, _ = runner._tune(dataclasses.replace(extended, size=320), progress=False)
    assert len(model.tokenizer) == 705
    planned = experiments.planning.plan([spec], card="cpu").iloc[0]
    texts = spec.pairs.read()["target"].tolist()
    expected = 320 * np.mean([len(ids) + 1 for ids in model.tokenizer.encode(texts)])
    assert planned["training_tokens"] > expected  # prompts are read, too
    with pytest.raises(ValueError, match="language whose lengths are known 'qxx'"):
        other = Language("qxx", "Other", "Latn", flores="eus_Latn")
        test = ("flores200", "devtest")
        experiments.planning.plan([Spec((), ("qxx",), language=other, test=test)], card="cpu")


# The command line.


def test_the_command_takes_files(file, tmp_path, capsys, monkeypatch):
    from mlq_utils.experiments import runner as called

    seen = []
    monkeypatch.setattr(called, "report", lambda spec, *_, **__: seen.append(spec) or "")
    language = ["--language", "qeu", "New Basque", "Latn"]
    words = ["run", "--languages", "qeu", "--targets", "qeu", "--pairs", str(file)]
    assert cli.main([*words, *language]) == 0
    table = pd.read_csv(file, sep="\t", header=None, names=["en", "eu"], keep_default_na=False)
    table.to_csv(tmp_path / "named.csv", index=False)
    run = tmp_path / "run.yaml"
    run.write_text(
        "languages: [qeu]\ntargets: [qeu]\n"
        "language: {code: qeu, name: New Basque, script: Latn}\n"
        f"pairs: {{file: {tmp_path}/named.csv, columns: [en, eu]}}\n",
        "utf8",
    )
    assert cli.main(["run", "--config", str(run)]) == 0
    named = ["--pairs", f"{tmp_path}/named.csv", "en", "eu"]
    assert cli.main([*words[:5], *named, *language]) == 0
    first, second, third = seen
    assert first == dataclasses.replace(first, pairs=Pairs(str(file)))
    assert first.language == Language("qeu", "New Basque", "Latn")
    assert first.identity() == second.identity() == third.identity()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--language cy X Latn", "taken by Welsh"),
        ("--language qx X", "--language takes other values"),
        ("--language qx X latin", "script must be an ISO 15924 code"),
        ("--language q/x X Latn", "code is of letters, not"),
        ("--pairs a b c d", "--pairs takes other values"),
        ("--pairs none.tsv", "none.tsv"),
    ],
)
def test_bad_flags_are_one_line(capsys, words, message):
    assert cli.main(["run", "--languages", "qx", "--targets", "qx", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mlq: error: ") and message in line


def test_a_language_of_which_cldr_has_too_little(base):
    tibetan = Language("bo", "Tibetan", "Tibt", cldr="ba")
    with pytest.raises(ValueError, match="too little text in 'ba'"):
        corpora.load("cldr", tibetan, "train")
    with pytest.raises(ValueError, match="no locale 'qqq'"):
        corpora.load("cldr", dataclasses.replace(tibetan, cldr="qqq"), "train")

"""Runs on the packaged base: what identifies them, what is kept, what a user sees."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from accelerate import PartialState
from sacrebleu.tokenizers import tokenizer_spm

from mlq_utils import cli, experiments, languages, modeling, scoring
from mlq_utils.corpora import Pairs
from mlq_utils.corpora import loading as corpora
from mlq_utils.experiments import Spec, drawing, runner
from mlq_utils.experiments.store import Store
from mlq_utils.languages import Language
from mlq_utils.modeling import distributed, training
from mlq_utils.modeling.extension import Extension


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def record(store, small):
    return experiments.run(small, store, progress=False)


def test_a_record_says_what_was_run_and_found(record, store, small):
    assert record["status"] == "done" and record["identity"] == small.identity()
    assert record["spec"]["languages"] == ["ro"]
    assert [s["target"] for s in record["scores"]] == ["ro", "km"]
    for score in record["scores"]:
        assert score["sentences"] == 4 and 0 <= score["spbleu"] <= 100
        assert score["spbleu_low"] <= score["spbleu_high"]
        assert "tok:spm-sha256-" in score["spbleu_signature"] and score["cap"] >= 32
        assert set(score["errors"]) >= {"source_copy", "oscillation", "off_target", "empty"}
        assert set(score["found"]) <= set(languages.codes()) and sum(score["found"].values()) <= 4
    assert record["training"]["examples"] == 24 and len(record["training"]["losses"]) == 1
    assert record["seconds"] > 0 and record["versions"]["torch"] and record["hardware"]
    hypotheses = store.hypotheses(record["identity"])
    assert hypotheses["target_language"].tolist() == ["ro"] * 4 + ["km"] * 4


def test_records_without_the_languages_found_are_read(record):
    """Older ones have none."""
    older = record | {"scores": [dict(score) for score in record["scores"]]}
    del older["scores"][1]["found"]
    found = experiments.scores([record, older])["found"]
    assert found.isna().tolist() == [False, False, False, True] and found[0] == found[2]


def test_a_run_is_computed_once(record, store, small, monkeypatch):
    monkeypatch.setattr(runner, "_compute", lambda *_: pytest.fail("computed again"))
    assert experiments.run(small, store) == record


def test_the_same_run_gives_the_same_scores(record, small, tmp_path):
    again = experiments.run(small, Store(tmp_path), progress=False)
    for one, other in zip(record["scores"], again["scores"], strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }
    assert record["training"]["losses"] == again["training"]["losses"]


def test_an_extension_s_text_counts_where_it_is_named(small):
    """And not where it is the one that older records have."""
    plain, same, other = (
        dataclasses.replace(small, extension=Extension("bpe", 9, **text))
        for text in ({}, {"text": "cldr"}, {"text": "flores200"})
    )
    assert plain.identity() == same.identity() != other.identity()
    for spec in (plain, other):
        assert experiments.spec_of({"spec": dataclasses.asdict(spec)}) == spec


def test_identity_covers_every_field_and_the_base(small, base, tmp_path):
    changed = {
        "languages": ("fr",), "targets": ("ro",), "strategy": "full", "size": 25, "test_size": 5,
        "learning_rate": 1e-3, "epochs": 2, "batch_size": 8, "layers": (0,), "seed": 1,
        "beam_size": 4, "base": str(tmp_path), "shorten": "one token", "cap": 50,
        "extension": Extension("bpe", 9), "corpus": ("wikimatrix", "ted"),
        "test": ("flores200", "devtest"), "schedule": "paper", "revision": "main",
        "spare_rows": 3, "pairs": Pairs("none.tsv", sha256="a"),
        "test_pairs": Pairs("none.tsv", sha256="a"), "language": Language("qx", "X", "Latn"),
        "into_english": True, "panel": ("en",), "replay": 2, "ciphers": ("hu",),
    }  # fmt: skip
    assert set(changed) == {f.name for f in dataclasses.fields(Spec)}
    small = dataclasses.replace(small, panel=("ro",))  # without which nothing is replayed
    keys = {small.identity()}
    keys |= {dataclasses.replace(small, **{k: v}).identity() for k, v in changed.items()}
    assert len(keys) == len(changed) + 1
    assert dataclasses.replace(small).identity() == small.identity()
    one = shutil.copytree(base, tmp_path / "one")
    other = shutil.copytree(base, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + " ", "utf8")
    digests = [modeling.digest(str(folder)) for folder in (one, other)]
    assert digests[0] != digests[1] and digests[0] == modeling.digest(str(base))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"languages": ("rp",)}, "unknown language 'rp'"),
        ({"languages": ("ro", "ro")}, "more than once"),
        ({"ciphers": ("hu",), "test": ("flores200", "devtest")}, "only phrases of CLDR"),
        ({"targets": ()}, "no targets"),
        ({"strategy": "embd"}, "unknown strategy 'embd'. Did you mean embed"),
        ({"size": 0}, "size must be 1 or more"),
        ({"test_size": 0}, "test_size must be 1 or more"),
        ({"languages": ("ro", "fr"), "size": 1}, "fewer than 2 languages"),
        ({"cap": 0}, "cap must be 1 or more"),
        ({"languages": ("km",), "shorten": "one tokn"}, "unknown way to shorten 'one tokn'"),
        ({"shorten": "one token"}, "shorten needs languages"),
        ({"languages": ("km",), "corpus": ("ted",)}, "unknown language of ted 'km'"),
        ({"languages": ("km",), "corpus": ("wikimatrix", "ted")}, "of wikimatrix.ted 'km'"),
        ({"targets": ("luo",), "test": ("ntrex", "test")}, "unknown language of ntrex 'luo'"),
        (
            {"test": ("flores200", "test")},
            "unknown split of flores200 'test'. Did you mean devtest",
        ),
        ({"test": ("flores", "dev")}, "unknown corpus 'flores'"),
        ({"corpus": ("ted", "flores")}, "unknown corpus 'flores'"),
        ({"corpus": ("flores200",), "languages": ("ro",)}, "unknown split of flores200 'train'"),
        (
            {"languages": ("en",), "corpus": ("ted",)},
            "unknown source of English instructions 'ted'",
        ),
        (
            {"languages": ("umb",), "corpus": ("lego_mt",), "extension": Extension("bpe", 9)},
            "unknown language of cldr 'umb'",
        ),
        ({"schedule": "papers"}, "unknown schedule 'papers'. Did you mean paper"),
    ],
)
def test_wrong_specifications_are_refused_at_once(given, message):
    with pytest.raises(ValueError, match=message):
        Spec(**given)


def test_a_loss_that_is_no_number_is_recorded_as_failed(small, tmp_path, monkeypatch):
    def diverges(*_, **__):
        raise FloatingPointError("the loss is nan at step 3")

    monkeypatch.setattr(runner.training, "fine_tune", diverges)
    record = experiments.run(small, Store(tmp_path), progress=False)
    assert record["status"] == "failed" and "step 3" in record["error"] and "scores" not in record
    assert Store(tmp_path).get(small.identity()) == record


def test_scores_in_tidy_form(record):
    frame = experiments.scores([record])
    assert frame["tuned_on"].tolist() == ["ro", "ro"] and frame["target"].tolist() == ["ro", "km"]
    assert {"spbleu", "chrf", "source_copy", "cap_hit_rate", "seed"} <= set(frame.columns)


def test_a_run_with_shortened_sequences_and_a_fixed_cap(base, tmp_path):
    spec = Spec(("km",), ("km",), "full", 16, 3, epochs=1, beam_size=2, base=str(base))
    store = Store(tmp_path)
    runs = [spec, dataclasses.replace(spec, shorten="one token")]
    plain, short = (experiments.run(one, store, progress=False) for one in runs)
    assert short["scores"][0]["cap"] < 0.9 * plain["scores"][0]["cap"]  # scaled to fewer tokens
    capped = experiments.run(dataclasses.replace(runs[1], cap=3), store, progress=False)
    assert capped["scores"][0]["cap"] == 3 and capped["scores"][0]["cap_hit_rate"] == 1
    frame = experiments.scores([plain, short, capped])
    assert frame["shorten"].fillna("").tolist() == ["", "one token", "one token"]
    assert frame["cap"].isna().tolist() == [True, True, False]


@pytest.fixture
def real(data, monkeypatch, tmp_path):
    """FLORES-200, a few TED talks with one sentence of its devtest, and a flores101 model."""
    folder = tmp_path / "data"
    (folder / "ted_talks").mkdir(parents=True)
    (folder / "flores200_dataset").symlink_to(data / "flores200_dataset")
    leaked = corpora.load("flores200", "ro", "devtest").iloc[0]
    rows = [("en", "ro"), tuple(leaked), *((f"Talk {n} .", f"Vorba {n} .") for n in range(20))]
    text = "".join(f"a_talk\t{source}\t{target}\n" for source, target in rows)
    text = text.replace("a_talk\ten\tro", "talk_name\ten\tro", 1)
    (folder / "ted_talks/all_talks_train.tsv").write_text(text, "utf8")
    monkeypatch.setenv("MLQ_DATA", str(folder))
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    path = scoring.flores101_path()
    path.parent.mkdir()
    path.write_bytes(scoring.cldr_spm().backend.serialized_model_proto())
    return path


def test_a_run_on_released_corpora(real, base, tmp_path):
    spec = Spec(("ro",), ("ro", "km"), "embed", 16, 2, epochs=1, beam_size=2, base=str(base),
                corpus=("ted",), test=("flores200", "devtest"), schedule="paper")  # fmt: skip
    store = Store(tmp_path / "store")
    record = experiments.run(spec, store, progress=False)
    assert record["training"]["drawn"] == {
        "pairs": {"ro": 16},
        "left_out": {"ro": {"repeated": 0, "in_evaluation": 1}},
    }
    assert all("tok:flores101" in score["spbleu_signature"] for score in record["scores"])
    devtest = corpora.load("flores200", "ro", "devtest")
    asked = store.hypotheses(record["identity"]).query("target_language == 'ro'")
    assert asked["source"].tolist() == devtest["source"].tolist()[:2]
    row = experiments.scores([record]).iloc[0]
    assert (row["corpus"], row["test"]) == ("ted", "flores200 devtest")


def test_what_cannot_be_scored_is_not_tuned(real, base, tmp_path, monkeypatch):
    real.unlink()
    monkeypatch.setattr(runner.training, "fine_tune", lambda *_, **__: pytest.fail("tuned"))
    spec = Spec(("ro",), ("ro",), base=str(base), corpus=("ted",), test=("flores200", "devtest"))
    with pytest.raises(FileNotFoundError, match="flores101"):
        experiments.run(spec, Store(tmp_path / "store"), progress=False)


@pytest.fixture
def fresh_state():
    """Let accelerate look at the machine anew, in a test and after it."""

    def forget():
        distributed.state.cache_clear()
        PartialState._reset_state()

    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("gpu", "bf16", "expected"),
    [
        (False, False, ("cpu", torch.float32)),
        (True, True, ("cuda", torch.bfloat16)),
        (True, False, ("cuda", torch.float32)),
    ],
)
def test_a_gpu_is_used_where_there_is_one(gpu, bf16, expected, fresh_state, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(size))  # as if the card computed
    device, dtype = modeling.placement()
    assert (device.type, dtype) == expected


def test_the_schedule_is_the_one_named():
    assert Spec(schedule="paper", batch_size=128).steps() == training.Schedule.paper(
        "embed", seed=0
    )
    assert Spec(learning_rate=1e-3).steps() == training.Schedule.mini("embed", learning_rate=1e-3)


def test_tuning_data_is_shared_equally():
    spec = Spec(languages=("ro", "fr", "de"), size=10)
    counts = drawing.tuning_data(spec)["language"].value_counts()
    assert counts.to_dict() == {"ro": 4, "fr": 3, "de": 3}
    assert set(drawing.tuning_data(Spec(languages=("en",), size=7))["language"]) == {"en"}


def test_the_report_has_scores_and_examples(base, tmp_path):
    few = {"size": 16, "test_size": 2, "epochs": 1, "beam_size": 1}
    spec = Spec(languages=("ro",), targets=("ro", "ka"), base=str(base), **few)
    text = runner.report(spec, Store(tmp_path / "store"), progress=False)
    assert "spbleu" in text and "ka  source" in text and "ro  source" in text


def test_without_a_packaged_base_the_command_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr("mlq_utils.modeling.bases.MINI", tmp_path / "none")
    monkeypatch.setattr(Spec, "identity", lambda _: "a")
    with pytest.raises(FileNotFoundError, match="mlq pretrain --folder FOLDER"):
        runner.report(Spec(), Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("strategy", "adapter"), [("embed", True), ("full", False), ("lora", True), ("layers", False)]
)
def test_a_tuned_model_is_exported_and_loaded(small, tmp_path, strategy, adapter):
    layers = (1,) if strategy == "layers" else None
    spec = dataclasses.replace(small, strategy=strategy, layers=layers, cap=12, epochs=3)
    folder, runs = tmp_path / "tuned", Store(tmp_path / "runs")
    record = experiments.run(spec, runs, progress=False, export=folder, adapter=adapter)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert adapter == (size < 0.3 * (Path(spec.base) / "model.safetensors").stat().st_size)
    loaded = modeling.load(folder)
    direct, _ = runner._tune(spec, progress=False)
    assert not isinstance(loaded.model, peft.PeftModel)
    found = loaded.model.state_dict()
    assert list(found) == list(direct.model.state_dict())
    for name, value in direct.model.state_dict().items():
        torch.testing.assert_close(found[name], value)
    untuned = dataclasses.replace(small, languages=(), base=str(folder), cap=12)
    again = experiments.run(untuned, runs, progress=False)
    assert [s["spbleu"] for s in again["scores"]] == [s["spbleu"] for s in record["scores"]]
    tuned_twice = dataclasses.replace(small, base=str(folder), targets=("ro",), cap=4)
    assert experiments.run(tuned_twice, runs, progress=False)["training"]


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_refused(small, tmp_path, file):
    spec, folder = dataclasses.replace(small, targets=("ro",), cap=4), tmp_path / "tuned"
    experiments.run(spec, Store(tmp_path / "runs"), progress=False, export=folder, adapter=True)
    (folder / file).write_bytes((folder / file).read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged"):
        modeling.load(folder)


def test_a_tuned_model_from_the_command_line(tmp_path, capsys):
    few = ["run", "--store", str(tmp_path / "runs"), "--targets", "ro", "--test-size", "3"]
    tune = ["--languages", "ro", "--size", "24", "--export", str(tmp_path / "tuned")]
    use = ["--base", str(tmp_path / "tuned")]
    tables = []
    for arguments in (tune, use):
        assert cli.main([*few, *arguments]) == 0
        tables.append(capsys.readouterr().out)
    first, second = (table.splitlines()[1].split()[:2] for table in tables)
    assert first == second


class Stop(Exception):
    pass


def stop_at(call, function):
    """Return the function, which raises at its nth call."""
    calls = []

    def stopping(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            raise Stop
        return function(*arguments, **options)

    return stopping


def test_a_killed_run_goes_on_after_the_targets_it_had(small, record, tmp_path, monkeypatch):
    """Tuned and translated once: what was kept is neither trained nor decoded again."""
    store = Store(tmp_path / "runs")
    monkeypatch.setattr(runner, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(runner, "PART_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_score", stop_at(2, runner._score))
        with pytest.raises(Stop):
            experiments.run(small, store, progress=False)
    part = f"{small.identity()}-ro"
    assert list(store.keys()) == [part] and store.get(small.identity()) is None
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(training._Trainer, "step", lambda *_, **__: pytest.fail("trained again"))
        patch.setattr(runner, "_score", stop_at(2, runner._score))
        again = experiments.run(small, store, progress=False)
    assert not checkpoint.exists() and list(store.keys()) == [small.identity()]
    for one, other in zip(record["scores"], again["scores"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert again["training"]["losses"] == record["training"]["losses"]
    found = store.hypotheses(small.identity())
    assert found["target_language"].tolist() == ["ro"] * 4 + ["km"] * 4


def test_a_run_killed_before_its_record_is_only_put_together(small, tmp_path, monkeypatch):
    store = Store(tmp_path / "runs")
    monkeypatch.setattr(runner, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(runner, "PART_SECONDS", 0)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_keep", stop_at(1, runner._keep))
        with pytest.raises(Stop):
            experiments.run(small, store, progress=False)
    monkeypatch.setattr(modeling, "load", lambda *_, **__: pytest.fail("loaded again"))
    again = experiments.run(small, store, progress=False)
    assert again["status"] == "done" and again["training"]["examples"] == 24


def test_a_damaged_part_is_computed_again(small, record, tmp_path, monkeypatch):
    store = Store(tmp_path / "runs")
    monkeypatch.setattr(runner, "CHECKPOINTS", tmp_path / "checkpoints")
    part = f"{small.identity()}-ro"
    store.put(part, {"training": None, "row": {"target": "ro", "spbleu": 99.0}})
    file = tmp_path / "runs" / f"{part}.json"
    file.write_text(file.read_text("utf8").replace("99.0", "98.0"), "utf8")
    with pytest.warns(UserWarning, match="edited or cut short"):
        again = experiments.run(small, store, progress=False)
    assert again["scores"][0]["spbleu"] == record["scores"][0]["spbleu"]


@pytest.mark.parametrize("revision", [None, "main", "4782ad27"])
def test_a_base_on_the_hub_is_pinned(revision):
    with pytest.raises(ValueError, match="its revision must be a commit, 40 hex"):
        Spec(("ro",), ("ro",), base="huggyllama/llama-7b", revision=revision)
    Spec(("ro",), ("ro",), base="huggyllama/llama-7b", revision="4" * 40)


def test_the_command_in_two_processes(small, tmp_path, monkeypatch):
    """By accelerate's launcher: one table, one record, one exported model, as of one process."""
    spec = dataclasses.replace(small, size=27, strategy="full", cap=8)
    alone = experiments.run(spec, Store(tmp_path / "alone"), progress=False)
    store, folder = tmp_path / "store", tmp_path / "kept"
    (script := tmp_path / "run.py").write_text(
        "from pathlib import Path\n"
        "from mlq_utils import experiments\n"
        "from mlq_utils.experiments import Spec\n"
        "from mlq_utils.experiments.store import Store\n"
        f"experiments.run({spec!r}, Store({str(store)!r}), export=Path({str(folder)!r}))\n"
    )
    # The module, since the program `accelerate` would import all of its other commands, too.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    options = ["--num_processes", "2", "--main_process_port", "0"]
    done = subprocess.run(
        [*launcher, *options, script],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = Store(store).get(spec.identity())
    assert record["training"]["processes"] == 2
    assert record["training"]["losses"] == pytest.approx(alone["training"]["losses"], rel=0.02)
    assert [row["sentences"] for row in record["scores"]] == [4, 4]
    assert {*Store(store).keys()} == {spec.identity(), spec.untuned().identity()}
    assert modeling.load(folder).tokenizer


def test_a_store_that_takes_nothing_is_told_before_work(small, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    store = Store(tmp_path / "store")
    monkeypatch.setattr(store, "_create", refuse)
    monkeypatch.setattr(modeling, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(OSError, match=r"the store .* cannot be used: read-only"):
        experiments.run(small, store)


def test_memory_that_ends_in_loading_is_no_damaged_model(small, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"^out of memory loading the model: use a dev"
    ):
        experiments.run(small, Store(tmp_path))

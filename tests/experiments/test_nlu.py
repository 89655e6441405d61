"""NLU by lm-evaluation-harness: its prompts and scores, files as they are released."""

import contextlib
import importlib.util
import json
import math
import re
import sqlite3
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mlq_utils import modeling, paper, tokenization
from mlq_utils.corpora import loading as corpora
from mlq_utils.experiments import nlu, runner
from mlq_utils.experiments.nlu import Evaluation

lm_eval = pytest.importorskip("lm_eval", reason='needs the extra "nlu"')
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

CONNECTORS = {"cause": "sest", "effect": "seetõttu"}  # the harness's for Estonian
FILES = {
    ("xcopa", "et"): "xcopa/data/et/test.et.jsonl",
    ("xstorycloze", "es"): "XStoryCloze/spring2016.val.es.tsv.split_20_80_eval.tsv",
    ("pawsx", "de"): "x-final/de/test_2k.tsv",
    ("xnli", "th"): "XNLI-1.0/xnli.test.tsv",
}
"""What each release calls the file of a language."""
QUOTED = '"Quoted", and not closed: "'


@pytest.fixture(scope="module")
def phrases():
    frame = corpora.load("cldr", "et", "test", size=400)
    return [*frame["source"], *frame["target"]]


@pytest.fixture(scope="module")
def releases(tmp_path_factory, phrases):
    """A data folder with a file of four releases, in their formats, as long as the real ones."""
    folder = tmp_path_factory.mktemp("data")

    def text(n):
        return phrases[n % len(phrases)] + "."

    def write(name, lines):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf8")

    def table(name, header, rows):
        write(name, ["\t".join(row) for row in [header, *rows]])

    examples = [
        {
            "premise": text(3 * n), "choice1": text(3 * n + 1), "choice2": text(3 * n + 2),
            "question": ("cause", "effect")[n % 2], "label": n // 2 % 2, "idx": n, "changed": False,
        }
        for n in range(500)
    ]  # fmt: skip
    write(FILES["xcopa", "et"], [json.dumps(row, ensure_ascii=False) for row in examples])

    header = "InputStoryid InputSentence1 InputSentence2 InputSentence3 InputSentence4 "
    header += "RandomFifthSentenceQuiz1 RandomFifthSentenceQuiz2 AnswerRightEnding"
    rows = [[f"id-{n}", *(text(6 * n + k) for k in range(6)), str(n % 2 + 1)] for n in range(1511)]
    table(FILES["xstorycloze", "es"], header.split(), rows)

    rows = [[str(n), text(n), text(n + 1), str(n % 2)] for n in range(2000)]
    rows[0][1], rows[1][2] = QUOTED, ""
    table(FILES["pawsx", "de"], ["id", "sentence1", "sentence2", "label"], rows)

    header = "language gold_label sentence1_binary_parse sentence2_binary_parse sentence1_parse "
    header += "sentence2_parse sentence1 sentence2 promptID pairID genre label1 label2 label3 "
    header += "label4 label5 sentence1_tokenized sentence2_tokenized match"
    rows = []
    for n in range(2 * 5010):
        label, texts = ("neutral", "contradiction", "entailment")[n % 3], [text(n), text(n + 1)]
        numbers = [str(n), str(n), "facetoface"]
        code = ("en", "th")[n // 5010]
        rows.append([code, label, *4 * [""], *texts, *numbers, *5 * [label], *texts, "True"])
    table(FILES["xnli", "th"], header.split(), rows)
    return folder


@pytest.fixture(autouse=True)
def answers(tmp_path, monkeypatch):
    """The folder in which answers of models are kept."""
    monkeypatch.setattr(runner, "CHECKPOINTS", tmp_path / "answers")
    return tmp_path / "answers"


@pytest.fixture
def released(releases, monkeypatch):
    monkeypatch.setenv("MLQ_DATA", str(releases))


@pytest.fixture(scope="module")
def mini():
    """The packaged base."""
    return modeling.load("mini")


@pytest.fixture
def kept(mini, monkeypatch):
    """Load the packaged base once for all tests."""
    monkeypatch.setattr(modeling, "load", lambda *_, **__: mini)


@pytest.fixture
def no_model(monkeypatch):
    """Fail if a model is loaded."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(modeling, "load", refuse)


def harness(base="mini", batch_size=4):
    """A model as the harness takes it."""
    return nlu._load(Evaluation(base, batch_size=batch_size)).lm


def loglikelihood(base, context, text):
    """The plain way: one text at a time, no cache, no padding."""
    before = [base.bos, *base.tokenizer.encode(context)] if context else [base.bos]
    ids = [base.bos, *base.tokenizer.encode(context + text)]
    with torch.no_grad():
        logits = base.model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    return sum(logits[n - 1, ids[n]].item() for n in range(len(before), len(ids)))


def share(right):
    return 100 * sum(right) / len(right)


def test_tasks_and_languages_are_those_of_the_harness():
    folder = Path(lm_eval.__file__).parent / "tasks"
    for task in nlu.TASKS.values():
        manager = TaskManager(include_path=folder / task["definitions"], include_defaults=False)
        names = {task["harness"].format(language=code) for code in task["languages"]}
        start = task["harness"].format(language="")
        assert names == {name for name in manager.all_subtasks if name.startswith(start)}


def test_ids_of_ordinary_text_are_those_of_sentencepiece(mini, kept):
    base, model = mini, harness()
    for code in ("en", "ro", "km", "te", "ar", "zh"):
        texts = corpora.load("cldr", code, "test", size=50)["target"].tolist()
        for text, ids in zip(texts, base.tokenizer.encode(texts), strict=True):
            assert model.tok_encode(text) == [base.bos, *ids]
            assert model.tok_encode(text, add_special_tokens=False) == ids
            context, rest = model._encode_pair(text, f" {text}")
            assert context + rest == [base.bos, *base.tokenizer.encode(f"{text} {text}")]
        ids, mask = model.tok_batch_encode(texts[:2])
        assert ids[0][mask[0] == 1].tolist() == [base.bos, *base.tokenizer.encode(texts[0])]


def test_ids_of_llama_are_those_of_sentencepiece(data):
    words = tokenization.load("llama")
    base = modeling.Model(None, words, "llama", 1, 2, 0)
    found = nlu._transformers_tokenizer(base)
    texts = [
        t for code in ("en", "hi", "my") for t in corpora.load("flores200", code, "dev")["target"]
    ]
    plain = [text for text in texts if text == " ".join(text.split())]
    assert len(plain) > 2900
    encoded = found(plain, add_special_tokens=False)["input_ids"]
    assert encoded == words.encode(plain)


def test_a_sentencepiece_model_that_transformers_cannot_apply_is_refused(monkeypatch, mini):
    class Other(transformers.LlamaTokenizer):
        def encode(self, *args, **kwargs):
            return [7]

    # By name, since a library may have loaded transformers anew after this file did.
    monkeypatch.setattr("transformers.LlamaTokenizer", Other)
    with pytest.raises(ValueError, match="cannot apply the SentencePiece model of mini"):
        nlu._transformers_tokenizer(mini)


def test_a_tokenizer_that_opens_no_text_opens_none_here(tokenizers_by_name, monkeypatch):
    words = tokenizers_by_name["byte-level"]
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, eos_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    monkeypatch.setattr(
        modeling, "load", lambda *_, **__: modeling.Model(model, words, "x", None, 0, 0)
    )
    tested = harness("x", 2)
    assert tested.tok_encode("Romania") == words.encode("Romania")
    assert tested.tok_decode(0, skip_special_tokens=False) == "<|endoftext|>"


def test_probabilities_of_a_bf16_model_are_summed_in_fp32(monkeypatch):
    monkeypatch.setattr(modeling, "placement", lambda: (torch.device("cpu"), torch.bfloat16))
    model = harness("mini", 1)
    assert model.model.dtype == torch.bfloat16
    ids = model.tok_encode("Thursday, January 9, 2003, and Romania " * 4, add_special_tokens=False)
    ((value, _),) = model._loglikelihood_tokens([(("", ""), [1], ids)])
    assert value != torch.tensor(value).bfloat16().item()


@pytest.mark.parametrize("strategy", ["embed", "full"])
def test_a_tuned_model_is_scored_in_bf16(base, strategy, tmp_path, monkeypatch):
    """All of it, though it is kept in fp32."""
    if strategy == "embed":
        tuned(base, tmp_path / "tuned")
    else:
        modeling.export(modeling.load(base), tmp_path / "tuned")
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(modeling, "placement", lambda d=dtype: (torch.device("cpu"), d))
        model = harness(str(tmp_path / "tuned"), 1)
        assert {p.dtype for p in model.model.parameters()} == {dtype}
        requests = [Instance("loglikelihood", {}, ("January and", " Romania"), 0)]
        found.append(model.loglikelihood(requests, disable_tqdm=True)[0][0])
    assert found[1] == pytest.approx(found[0], rel=0.01)


def test_xcopa_is_the_choice_of_the_higher_probability(mini, kept, released):
    right = []
    for row in nlu.read("xcopa", "et")[:24]:
        context = f"{row['premise'][:-1]} {CONNECTORS[row['question']]}"
        choices = [row["choice1"], row["choice2"]]
        found = [loglikelihood(mini, context, f" {c[0].lower()}{c[1:]}") for c in choices]
        right.append(found.index(max(found)) == row["label"])
    (row,) = Evaluation(tasks=["xcopa"], languages=["et"], limit=24).scores().itertuples()
    assert row.score == pytest.approx(share(right)) and 0 < row.score < 100
    assert (row.samples, row.metric) == (24, "acc,none")
    spread = row.score / 100 * (1 - row.score / 100) / 23
    assert row.stderr == pytest.approx(100 * math.sqrt(spread))


def test_xnli_is_the_text_of_the_highest_probability_on_the_test_set(mini, kept, released):
    right = []
    for row in nlu.read("xnli", "en")[:24]:
        texts = [
            f"{row['premise']}, right? {w}, {row['hypothesis']}" for w in ("Yes", "Also", "No")
        ]
        found = [loglikelihood(mini, "", text) for text in texts]
        right.append(found.index(max(found)) == row["label"])
    found = Evaluation(tasks=["xnli"], languages=["en"], limit=24).scores()
    assert found["score"].tolist() == [pytest.approx(share(right))]


def test_the_other_two_are_scored_from_their_files(kept, released):
    found = [
        Evaluation(tasks=[name], languages=[code], limit=8).scores()
        for name, code in (("xstorycloze", "es"), ("pawsx", "de"))
    ]
    assert [int(f["samples"][0]) for f in found] == [8, 8]
    pairs = nlu.read("pawsx", "de")
    assert pairs[0]["sentence1"] == QUOTED and pairs[1]["sentence2"] == ""


def test_mgsm_on_the_released_files(kept, data, monkeypatch, caplog):
    if not (data / "mgsm").is_dir():
        pytest.skip("no MGSM in the data folder")
    monkeypatch.setenv("MLQ_DATA", str(data))
    for code in ("en", "es", "sw", "te", "th"):
        answers = [row["answer_number"] for row in nlu.read("mgsm", code)]
        assert (len(answers), answers[:4], max(answers)) == (250, [18, 3, 70000, 540], 276000)
    found = Evaluation(tasks=["mgsm"], languages=["es", "th"], limit=1).scores()
    assert found["samples"].tolist() == [1, 1] and found["score"].between(0, 100).all()
    assert found["stderr"].isna().all()
    assert "truncation applied" in caplog.text  # Thai falls to bytes


def mgsm(folder, answers):
    (folder / "mgsm").mkdir(parents=True, exist_ok=True)
    lines = [f"¿Cuánto gana {n}?\t{answers(n)}\n" for n in range(250)]
    (folder / "mgsm/mgsm_es.tsv").write_text("".join(lines), encoding="utf8")
    return folder


def test_mgsm_is_scored_by_the_last_number(kept, tmp_path, monkeypatch):
    said = [" 1,250", "Gana 3 y luego 1250.", "1250 menos 3", "nada"]
    asked = []
    monkeypatch.setattr(
        HFLM, "generate_until", lambda self, requests, **_: asked.extend(requests) or said
    )
    monkeypatch.setenv("MLQ_DATA", str(mgsm(tmp_path, lambda n: "1,250")))
    found = Evaluation(tasks=["mgsm"], languages=["es"], limit=4).scores()
    assert found["score"].tolist() == [50]
    assert asked[0].args[0] == "Pregunta: ¿Cuánto gana 0?\nRespuesta:"


def test_generation_is_greedy_and_stops_where_the_harness_says(monkeypatch):
    base = modeling.load("mini")
    prompts = ["The capital is Romania, and", "January, February, Mar"]
    kwargs = {"until": ["\n"], "do_sample": False, "max_gen_toks": 20}
    requests = [
        Instance("generate_until", {}, (prompt, kwargs), n) for n, prompt in enumerate(prompts)
    ]
    plain = modeling.beam_search(
        base.model, [[base.bos, *base.tokenizer.encode(p)] for p in prompts],
        beam_size=1, max_new_tokens=20, eos_id=base.eos,
    )  # fmt: skip
    texts = [
        base.tokenizer.decode([i for i in out.ids if i != base.eos]).split("\n")[0] for out in plain
    ]
    # Some configurations of LLaMA name another EOS than their tokenizers have.
    base.model.generation_config.eos_token_id = plain[0].ids[0]
    monkeypatch.setattr(modeling, "load", lambda *_, **__: base)
    found = harness().generate_until(requests)
    assert [text.strip() for text in found] == [text.strip() for text in texts] and all(texts)


def tuned(base, folder):
    """A model as Embed FT leaves it."""
    weights = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    trained = {"model.embed_tokens.weight": weights.flip(0).contiguous()}
    modeling.export_adapter(trained, folder, "embed", str(base))
    return trained


def test_a_tuned_model_is_scored_as_it_was_saved(base, released, answers, tmp_path):
    trained = tuned(base, tmp_path / "tuned")
    head = load_file(base / "model.safetensors")["lm_head.weight"]
    model = harness(tmp_path / "tuned").model
    assert torch.equal(model.lm_head.weight, head)
    assert torch.equal(model.model.embed_tokens.weight, trained["model.embed_tokens.weight"])
    for name in (base, tmp_path / "tuned"):
        assert len(Evaluation(name, ["xcopa"], ["et"], limit=2).scores()) == 1
    assert len(list(answers.glob("*.db"))) == 2


def test_an_untied_head_is_not_tied_again(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=3072, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes((modeling.MINI / "tokenizer.model").read_bytes())
    with pytest.warns(UserWarning, match="tied"):
        loaded = harness(tmp_path).model
    with torch.no_grad():
        loaded.get_input_embeddings().weight.zero_()
    assert loaded.lm_head.weight.abs().sum() > 0


@pytest.fixture
def asked(monkeypatch):
    """The requests that a model has computed."""
    whole, found = HFLM._loglikelihood_tokens, []

    def computed(self, requests, *rest, **options):
        found.extend(requests)
        return whole(self, requests, *rest, **options)

    monkeypatch.setattr(HFLM, "_loglikelihood_tokens", computed)
    return found


def test_what_is_done_is_not_computed_again(kept, released, asked, answers):
    ask = {"tasks": ["xcopa"], "languages": ["et"]}
    found = Evaluation(**ask, limit=3).scores()
    assert len(asked) == 2 * 3
    assert Evaluation(**ask, limit=3, batch_size=1).scores().equals(found)
    assert len(asked) == 2 * 3
    (path,) = answers.glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as file:
        values = [json.loads(value) for (value,) in file.execute("SELECT value FROM unnamed")]
    assert len(values) == 2 * 3  # as JSON, not pickled
    Evaluation(**ask, limit=4).scores()
    assert len(asked) == 2 * 4


def test_an_interrupted_evaluation_goes_on_where_it_was(kept, released, asked, monkeypatch):
    whole, calls = HFLM._model_call, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(HFLM, "_model_call", interrupted)
    ask = Evaluation(tasks=["xcopa"], languages=["et"], limit=3, batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        ask.scores()
    assert len(asked) == 2 * 3
    assert ask.scores()["samples"].tolist() == [3]
    assert len(asked) == 2 * 3 + 2 * 3 - 2  # two answers were kept


def test_out_of_memory_takes_smaller_batches(kept, released, monkeypatch):
    whole, sizes = lm_eval.evaluate, []

    def evaluate(model, *rest, **options):
        sizes.append(model.batch_size)
        if model.batch_size > 2:
            raise torch.AcceleratorError("CUDA error: out of memory")
        return whole(model, *rest, **options)

    monkeypatch.setattr(lm_eval, "evaluate", evaluate)
    ask = Evaluation(tasks=["xcopa"], languages=["et"], limit=2, batch_size=8)
    with pytest.warns(UserWarning, match="out of memory with . requests at once"):
        found = ask.scores()
    assert sizes == [8, 4, 2] and found["samples"].tolist() == [2]
    monkeypatch.setattr(
        lm_eval, "evaluate", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError)
    )
    one = pytest.raises(torch.OutOfMemoryError, match="scoring by one request at a time: ")
    with one, pytest.warns(UserWarning, match="out of memory"):
        ask.scores()


def test_without_data_it_says_what_to_place_where(tmp_path, answers, no_model, monkeypatch):
    for name, task in nlu.TASKS.items():
        for data, place in ((str(tmp_path), str(tmp_path)), ("", "MLQ_DATA")):
            monkeypatch.setenv("MLQ_DATA", data)
            with pytest.raises(FileNotFoundError) as error:
                Evaluation(tasks=[name]).scores()
            for part in (task["origin"], task["folder"], place):
                assert part in str(error.value)
    assert not answers.exists()


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"tasks": ["xcop"]}, "unknown task 'xcop'. Did you mean xcopa"),
        ({"tasks": ["xcopa"], "languages": ["es"]}, "unknown language of xcopa 'es'"),
        ({"tasks": ["mgsm", "xcopa"], "languages": ["es"]}, "xcopa has none of the languages es"),
        ({"limit": 0}, "limit must be 1 or more, not 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
    ],
)
def test_what_there_is_not_is_refused(ask, message, no_model):
    with pytest.raises(ValueError, match=message):
        Evaluation(**ask).scores()


def test_each_task_is_scored_in_the_languages_that_it_has():
    assert Evaluation("mini", ["mgsm", "xcopa"], ["th", "es"])._jobs() == [
        ("mgsm", "es"), ("mgsm", "th"), ("xcopa", "th"),
    ]  # fmt: skip
    assert len(Evaluation()._jobs()) == 11 + 11 + 11 + 7 + 15


DAMAGES = {
    "cut between lines": (lambda raw: raw[: raw.rstrip(b"\n").rindex(b"\n") + 1], "examples"),
    "cut within the last line": (lambda raw: raw[:-9], ""),
    "cut within the first line": (lambda raw: raw[:10], ""),
    "empty": (lambda raw: b"", "has 0 examples"),
    "not UTF-8": (lambda raw: raw[:5000] + b"\xff" + raw[5000:], "line .*not UTF-8"),
    "NUL": (lambda raw: raw[:5000] + b"\0" + raw[5000:], "line .*NUL"),
    "no such label": (lambda raw: re.sub(rb'\t1\n|l": 1|\tentailment', b'\t"x"\n', raw), "line "),
    "a web page": (lambda raw: b"<html>\n<body>404</body>\n</html>\n", "line [12]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("job", FILES, ids=lambda job: job[0])
def test_a_damaged_file_is_refused_by_name(job, damage, releases, tmp_path, monkeypatch):
    change, message = DAMAGES[damage]
    path = tmp_path / FILES[job]
    path.parent.mkdir(parents=True)
    raw = (releases / FILES[job]).read_bytes()
    path.write_bytes(change(raw))
    monkeypatch.setenv("MLQ_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{path}.*{message}"):
        nlu.read(*job)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("¿Cuánto?\tmucho", "'mucho'"),
        ("\t4", "an empty text"),
        ("¿Cuánto? 4", "1 columns instead of 2"),
    ],
)
def test_a_damaged_line_of_mgsm_is_refused(line, message, tmp_path, monkeypatch):
    path = mgsm(tmp_path, str) / "mgsm/mgsm_es.tsv"
    lines = path.read_text("utf8").split("\n")
    lines[6] = line
    path.write_text("\n".join(lines), "utf8")
    monkeypatch.setenv("MLQ_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"line 7: not an example of mgsm .*{message}"):
        nlu.read("mgsm", "es")


def test_half_an_answer_is_not_taken_for_one(tmp_path, monkeypatch):
    path = mgsm(tmp_path, lambda n: "276000") / "mgsm/mgsm_es.tsv"
    path.write_bytes(path.read_bytes()[:-3])
    monkeypatch.setenv("MLQ_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{path}.*truncated"):
        nlu.read("mgsm", "es")


def test_a_file_missing_from_a_release_is_an_error(released, answers, no_model):
    with pytest.raises(FileNotFoundError, match=r"test.th.jsonl is missing.*cambridgeltl"):
        Evaluation(tasks=["xcopa"], languages=["et", "th"]).scores()
    assert not answers.exists()


def test_averages_are_over_languages_and_then_over_tasks():
    """The printed row of LLaMA-7B is the harness's own, English left out of two tasks."""
    found = paper.harness_scores()
    assert found.groupby("task")["language"].agg(set).to_dict() == {
        name: set(nlu.TASKS[name]["languages"]) for name in nlu.TASKS if name != "mgsm"
    }
    means = nlu.compare(found).iloc[0]
    assert means.drop(["training_data", "strategy"]).astype(float).round(1).to_dict() == {
        "XCOPA": 53.9, "XStoryCloze": 55.5, "PAW-X": 54.4, "XNLI": 38.0, "AVG": 50.5,
    }  # fmt: skip
    assert means["AVG"] == pytest.approx(means.iloc[2:-1].mean())
    without = found[(found["language"] != "en") | (found["task"] == "xstorycloze")]
    beside = nlu.compare(without)
    here = beside.query("training_data == 'scored here'").iloc[0]
    untuned = beside.query("training_data == 'none'").iloc[0]
    assert (here.iloc[2:-1] - untuned.iloc[2:-1]).abs().max() < 0.05


def test_what_is_compared_is_printed():
    found = paper.harness_scores().query("task in ('xcopa', 'xnli')")
    beside = nlu.compare(found)
    assert list(beside) == ["training_data", "strategy", "XCOPA", "XNLI", "AVG"]
    printed = paper.table(16).query("model == 'LLaMA-7B' and task in ('XCOPA', 'XNLI')")
    models = beside.set_index(["training_data", "strategy"])
    for model, rows in printed.groupby(["training_data", "strategy"]):
        row = models.loc[model]
        cells = rows.set_index("task")["score"]
        assert [row["XCOPA"], row["XNLI"]] == [cells["XCOPA"], cells["XNLI"]]
        assert row["AVG"] == pytest.approx((cells["XCOPA"] + cells["XNLI"]) / 2)
    assert len(beside) == 1 + len(printed.groupby(["training_data", "strategy"]))


def test_the_report_has_scores_and_averages(base, released):
    text = nlu.report(Evaluation(str(base), ["xcopa"], ["et"], limit=2))
    assert "xcopa       et acc,none" in text and "AVG" in text and "53.9" in text


@pytest.mark.parametrize(
    ("changes", "data", "error", "message"),
    [
        ({"tasks": ["xcop"]}, None, ValueError, "unknown task"),
        ({"limit": -1}, None, ValueError, "limit must be 1 or more, not -1"),
        ({}, "nowhere", FileNotFoundError, "data folder 'nowhere' does not exist"),
        ({"base": "nowhere"}, None, FileNotFoundError, "no model 'nowhere'"),
    ],
)
def test_the_report_refuses_what_there_is_not(changes, data, error, message, released, monkeypatch):
    if data:
        monkeypatch.setenv("MLQ_DATA", data)
    with pytest.raises(error, match=message):
        nlu.report(Evaluation(**({"tasks": ["xcopa"], "languages": ["et"]} | changes)))


def test_without_the_harness_it_says_how_to_install_it(monkeypatch, no_model):
    monkeypatch.setattr(nlu, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "mlq_utils\[nlu\]"'):
        Evaluation(tasks=["xcopa"]).scores()


def test_the_package_imports_without_the_harness(monkeypatch):
    for name in ("lm_eval", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    copy = importlib.util.module_from_spec(nlu.__spec__)
    nlu.__spec__.loader.exec_module(copy)
    assert copy.TASKS == nlu.TASKS

"""What the package does with the architectures of other models than LLaMA, tiny and random."""

import copy
import dataclasses
import json
import re

import pytest
import tokenizers
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mlq_utils import experiments, modeling, tokenization
from mlq_utils.corpora import loading as corpora
from mlq_utils.experiments import Spec
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import batches, prompts, training, translation
from mlq_utils.modeling.batches import IGNORED

VOCABULARY, CONTEXT = 400, 512
COMMON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MPT = {"n_layers": 2, "n_heads": 4, "d_model": 32, "max_seq_len": CONTEXT, "expansion_ratio": 2}
BLOOM = {"n_layer": 2, "n_head": 4, "hidden_size": 32, "seq_length": CONTEXT}
FAMILIES = {
    "llama": COMMON | GROUPED | {"rope_parameters": LLAMA_3},
    "mistral": COMMON | GROUPED | {"sliding_window": 400},
    "qwen2": COMMON | {"num_key_value_heads": 2},
    "qwen3": COMMON | GROUPED,
    "gemma": COMMON | GROUPED | {"tie_word_embeddings": True},
    "gemma2": COMMON | GROUPED | {"sliding_window": 400, "tie_word_embeddings": True},
    "gemma3_text": COMMON | GROUPED | {"sliding_window": 400, "tie_word_embeddings": True},
    "phi3": COMMON | {"num_key_value_heads": 2},
    "olmo2": COMMON,
    "granite": COMMON | {"logits_scaling": 8.0},
    "cohere": COMMON | {"tie_word_embeddings": True},
    "gpt_neox": COMMON,
    "mpt": MPT,
    "bloom": BLOOM,
}
PLACES_COUNTED = ("mpt", "bloom")  # by ALiBi


@pytest.fixture(scope="module")
def frame():
    return prompts.mixture({"ro": 24})


@pytest.fixture(scope="module")
def words():
    """A byte-level BPE tokenizer, as the Hub's models have, which puts nothing before a text."""
    pairs = corpora.load("cldr", "ro", "train", size=600)
    words = tokenizers.Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator([*pairs["source"], *pairs["target"]], trainer)
    return words


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory, words):
    """The folder of a random model of each family; BOS named, and EOS as pad."""
    folder = tmp_path_factory.mktemp(request.param)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    options = FAMILIES[request.param] | ids | {"initializer_range": 0.2}
    config = AutoConfig.for_model(request.param, vocab_size=VOCABULARY, **options)
    if "tie_word_embeddings" not in options:
        config.tie_word_embeddings = False
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def loaded(family):
    """The model, loaded once for all tests."""
    if json.loads((family / "config.json").read_text())["tie_word_embeddings"]:
        with pytest.warns(UserWarning, match="here it is a copy"):
            return modeling.load(family)
    return modeling.load(family)


@pytest.fixture
def base(loaded):
    """A copy of it, which a test may tune."""
    return dataclasses.replace(loaded, model=copy.deepcopy(loaded.model))


@pytest.fixture(scope="module")
def theirs(family):
    return AutoModelForCausalLM.from_pretrained(family).eval()


@pytest.mark.parametrize("at_once", [batches.LOGITS, 11 * VOCABULARY])
def test_the_model_computes_what_transformers_computes(base, theirs, monkeypatch, at_once):
    """Untied or not, with whatever its head does beyond a matrix, and at few labels at once."""
    monkeypatch.setattr(batches, "LOGITS", at_once)
    torch.manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (3, 20))
    labels = ids.clone()
    labels[:, :7] = IGNORED
    loss = training.label_loss(base.model, ids, labels)
    torch.testing.assert_close(loss, theirs(ids, labels=labels).loss)
    layer = next(name for name, _ in theirs.named_parameters() if ".0." in name)
    gradients = []
    for model, found in ((base.model, loss), (theirs, theirs(ids, labels=labels).loss)):
        (gradient,) = torch.autograd.grad(found, [model.get_parameter(layer)])
        gradients.append(gradient)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
    assert base.model.get_decoder() in base.model.children()  # it is put back


def test_examples_that_share_a_row_are_kept_apart_or_not_put_there(base, theirs):
    torch.manual_seed(0)
    first, second = torch.randint(3, VOCABULARY, (2, 9)).tolist()
    packs = batches.keeps_apart(base.model, first, second)
    assert packs == (base.model.config.model_type not in PLACES_COUNTED)
    data = batches.Examples([first, second], [4, 2], 0)
    rows = [[0, 1]] if packs else [[0], [1]]
    ids, labels, positions = batches.collate(data, rows, base.pad)
    found = batches.label_loss(base.model, ids, labels, positions if packs else None)
    ids, labels, _ = batches.collate(data, [[0], [1]], base.pad)
    torch.testing.assert_close(found, theirs(ids, labels=labels).loss)


def test_no_opening_token_but_the_tokenizer_s(base):
    assert (base.bos, base.eos, base.pad) == (None, 2, 0)


@pytest.mark.parametrize("strategy", ["embed", "full", "lora", "layers"])
def test_each_strategy_trains_what_it_says(base, frame, strategy):
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    layers = [1] if strategy == "layers" else None
    schedule = training.Schedule.mini(strategy, epochs=4, batch_size=8, learning_rate=3e-3)
    result = training.fine_tune(
        base, frame, strategy, schedule, layers=layers, precision="fp32", progress=False
    )
    assert sum(result.losses[-3:]) < sum(result.losses[:3])  # the last epoch, and the first
    after = result.model.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    embeddings = {
        name
        for name, value in base.model.named_parameters()
        if value is base.model.get_input_embeddings().weight
    }
    match strategy:
        case "embed":
            assert changed == embeddings
        case "full":
            assert changed >= {n for n, _ in base.model.named_parameters() if "bias" not in n}
        case "layers":
            assert changed and all(".1." in name for name in changed)
        case "lora":
            known = ("q_proj", "v_proj", "qkv_proj", "query_key_value", "Wqkv")
            assert changed and all(name.split(".")[-2] in known for name in changed)


def test_translations_are_those_of_generate(base, theirs):
    """The search of the package where it can, and transformers' own where it cannot."""
    texts = [
        prompts.translation("ro", text)
        for text in corpora.load("cldr", "ro", "test", size=6)["source"]
    ]
    ids = [list(i) for i in base.tokenizer.encode(texts)]
    cap = 12
    expected = []
    for prompt in ids:
        (found,) = theirs.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=4,
            do_sample=False,
            early_stopping=False,
            length_penalty=1.0,
            max_new_tokens=cap,
            eos_token_id=2,
            pad_token_id=0,
        ).tolist()
        new = found[len(prompt) :]
        expected.append(new[: new.index(2)] if 2 in new else new)
    search = {"beam_size": 4, "max_new_tokens": cap, "eos_id": 2}
    found = translation.beam_search(base.model, ids, engine="generate", **search)
    assert [o.ids for o in found] == expected
    frame = translation.translate(
        base.model, base.tokenizer, texts, cap=cap, bos_id=base.bos, eos_id=base.eos
    )
    assert frame["hypothesis"].tolist() == [base.tokenizer.decode(i).strip() for i in expected]
    if base.model.config.model_type in PLACES_COUNTED:
        assert frame.attrs["engine"].endswith("generate")
        with pytest.raises(ValueError, match="takes no positions"):
            translation.beam_search(base.model, ids, **search)
    else:
        assert frame.attrs["engine"] == translation.ENGINE
        found = translation.beam_search(base.model, ids, **search)
        assert [o.ids for o in found] == expected


@pytest.mark.filterwarnings("ignore:.*here it is a copy")
@pytest.mark.parametrize("strategy", ["embed", "lora"])
def test_what_is_taken_home_computes_the_same(base, frame, family, tmp_path, strategy):
    """As a whole and as an adapter, opened by others' libraries alone."""
    tied = json.loads((family / "config.json").read_text())["tie_word_embeddings"]
    schedule = training.Schedule.mini(strategy, epochs=2, batch_size=8)
    tuned = training.fine_tune(base, frame, strategy, schedule, precision="fp32", progress=False)
    ids = torch.tensor([[5, 6, 7, 200, 9]])
    expected = tuned.model.model(ids).logits
    modeling.export(tuned.model, tmp_path / "whole", family)
    folders = [tmp_path / "whole"]
    opened = [AutoModelForCausalLM.from_pretrained(tmp_path / "whole")]
    assert not opened[0].config.tie_word_embeddings and opened[0].config.architectures
    adapter = [tuned.trained, tmp_path / "adapter", strategy, str(family)]
    if tied and strategy == "embed":
        with pytest.raises(ValueError, match="whose head is its own"):
            modeling.export_adapter(*adapter)
    else:
        folders.append(tmp_path / "adapter")
        modeling.export_adapter(*adapter)
        theirs = AutoModelForCausalLM.from_pretrained(family)
        opened.append(PeftModel.from_pretrained(theirs, tmp_path / "adapter"))
    if strategy == "lora":  # as vLLM documents that it reads adapters
        config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
        assert config["peft_type"] == "LORA" and config["r"] == 8 and config["target_modules"]
        assert config["bias"] == "none" and not config["modules_to_save"]
        assert config["base_model_name_or_path"] == str(family)
        names = load_file(tmp_path / "adapter/adapter_model.safetensors")
        assert all(re.fullmatch(r"base_model\.model\..+\.lora_[AB]\.weight", n) for n in names)
    text = ["Give the longest item.", "doi km și Țara"]
    for folder, model in zip(folders, opened, strict=True):
        torch.testing.assert_close(model.eval()(ids).logits, expected, rtol=0, atol=1e-5)
        assert (AutoTokenizer.from_pretrained(folder)(text)["input_ids"]) == base.tokenizer.encode(
            text
        )
        assert not [*folder.glob("*.bin"), *folder.glob("*.pt")]
        logits = modeling.load(folder).model(ids).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*here it is a copy")
def test_a_run_on_another_architecture(base, family, tmp_path):
    """From a folder to a record, as a user's own model goes."""
    spec = Spec(("ro",), ("ro", "fr"), size=16, test_size=4, epochs=1, base=str(family), cap=8)
    record = experiments.run(spec, Store(tmp_path / "store"), progress=False)
    assert record["status"] == "done"
    assert [row["target"] for row in record["scores"]] == ["ro", "fr"]
    own = base.model.config.model_type not in PLACES_COUNTED
    assert (record["scores"][0]["engine"] == translation.ENGINE) == own


def test_a_tokenizer_that_opens_texts(words):
    """As LLaMA 3's does, by its post-processor."""
    opening = tokenizers.Tokenizer.from_str(words.to_str())
    opening.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    ending = tokenizers.Tokenizer.from_str(words.to_str())
    ending.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    found = [tokenization.wrap(t).opening for t in (words, opening, ending)]
    assert found == [None, 1, None]


@pytest.mark.parametrize("family", ["qwen2"], indirect=True)
def test_a_generation_configuration_is_left_out_and_left_alone(base):
    """Penalties that a model brings along are no part of the search."""
    options = {"max_new_tokens": 12, "eos_id": 2, "engine": "generate"}
    plain = translation.beam_search(base.model, [[5, 6, 7]], **options)
    base.model.generation_config.repetition_penalty = 5.0
    base.model.generation_config.suppress_tokens = list(range(3, 200))
    again = translation.beam_search(base.model, [[5, 6, 7]], **options)
    assert again == plain
    assert base.model.generation_config.repetition_penalty == 5.0


def test_lora_on_unknown_projections():
    config = AutoConfig.for_model(
        "mamba", vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4
    )
    config.tie_word_embeddings = False
    with pytest.raises(ValueError, match="mamba has no query and value projections"):
        modeling.prepare(AutoModelForCausalLM.from_config(config), "lora")

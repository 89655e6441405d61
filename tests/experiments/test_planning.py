"""Plans: operations and parameters against torch and transformers, sums, what records change."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mlq_utils import experiments, modeling, tokenization
from mlq_utils.experiments import Spec, planning, sizes
from mlq_utils.experiments.planning import by_group, plan, totals
from mlq_utils.experiments.sizes import size
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import batches, precision, prompts

LLAMA = "huggyllama/llama-7b"
TWELVE = ("af", "et", "ha", "he", "km", "luo", "mi", "ro", "ta", "th", "tr", "zh")
PAPER = {
    "base": LLAMA, "revision": "0" * 40, "corpus": ("ted",), "test": ("flores200", "devtest"),
    "schedule": "paper", "size": 10_000, "test_size": 1012, "batch_size": 128,
}  # fmt: skip
STRATEGIES = [("embed", None), ("full", None), ("lora", None), ("layers", (0,)), ("layers", (2, 3))]
COMMON = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ODD = {
    "mpt": {"n_layers": 2, "n_heads": 4, "d_model": 32},
    "bloom": {"n_layer": 2, "n_head": 4, "hidden_size": 32},
}


def config_folder(folder, family, **options):
    """Write a configuration alone: no weights are needed."""
    config = AutoConfig.for_model(family, **{**COMMON, **ODD.get(family, {}), **options})
    config.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("strategy", "layers"), STRATEGIES)
def test_operations_are_those_of_a_real_step(strategy, layers, tmp_path):
    """A random LLaMA with weights is taken forward and backward with the loss of training."""
    base = config_folder(tmp_path, "llama", tie_word_embeddings=False)
    config = LlamaConfig.from_pretrained(base)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model = modeling.prepare(model, strategy, layers=layers).train()
    ids = torch.randint(3, 400, (2, sizes.TOKENS))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    assert size(base, strategy, layers).step_flops * ids.numel() == counter.get_total_flops()


def test_operations_of_llama_7b():
    """6.61e9 parameters in products: 6 operations each in full FT, 4 in Embed FT and LoRA.

    Attention's own products add 4 operations per layer, unit of width and token before it, forward,
    and twice as many backward (Chowdhery et al. 2022, Appendix B).
    """
    full, embed = size(LLAMA, "full"), size(LLAMA, "embed")
    attention = 4 * 32 * 4096 * sizes.TOKENS
    assert full.matrices == pytest.approx(6.61e9, rel=1e-3)
    assert full.forward_flops == 2 * full.matrices + attention
    assert full.step_flops == 6 * full.matrices + 3 * attention
    assert embed.step_flops == 4 * full.matrices + 3 * attention
    lora = size(LLAMA, "lora").step_flops
    assert lora == pytest.approx(4 * full.matrices + 3 * attention, rel=0.01)
    per_layer = [size(LLAMA, "layers", (n,)).step_flops for n in (0, 15, 31)]
    assert per_layer == sorted(per_layer, reverse=True)  # no gradient goes below the layer
    assert full.trained == 6_738_415_616  # as its weights' index has it
    assert embed.trained == 32_000 * 4096
    assert size(LLAMA, "lora").trained == 32 * 2 * 8 * (4096 + 4096)
    assert 2 * full.cache == 524_288  # bytes a token in bf16


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mistral", {"num_key_value_heads": 2}),
        ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
        ("gemma", {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True}),
        ("gpt_neox", {}),
        ("mpt", {}),
        ("bloom", {}),
    ],
)
def test_parameters_are_those_of_the_model(family, options, tmp_path):
    """As it is tuned: with a head of its own."""
    base = config_folder(tmp_path, family, **options)
    config = AutoConfig.from_pretrained(base)
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config)
    found = {name: size(base, name) for name in ("embed", "full", "lora")}
    assert found["full"].trained == model.num_parameters()
    assert found["embed"].trained == model.get_input_embeddings().weight.numel()
    assert found["full"].step_flops == 3 * found["full"].forward_flops
    assert 2 < found["embed"].step_flops / found["embed"].forward_flops < 3
    assert found["embed"].matrices == found["full"].matrices == found["lora"].matrices
    assert found["embed"].forward_flops > 2 * found["embed"].matrices  # and attention's own
    tuned = modeling.prepare(model, "lora")
    assert found["lora"].trained == tuned.num_parameters(only_trainable=True)


def test_memory_is_known_arithmetic():
    """16 bytes for what is trained, 2 for what is not; within the cards that the paper's need."""
    full, embed = size(LLAMA, "full"), size(LLAMA, "embed")
    tokens = 4096 * sizes.AT_ONCE
    states = 16 * full.trained + 2 * full.matrices
    assert full.memory == states + round(45.6 * 32 * tokens)
    untrained = full.trained - 131_072_000
    assert embed.memory == 2 * untrained + 16 * 131_072_000 + round(32.2 * 32 * tokens)
    above = {layers: size(LLAMA, "layers", layers) for layers in ((20,), (20, 31))}
    one, two = (found.memory - 16 * found.trained for found in above.values())
    layer = above[20,].trained
    matrices = 4 * 4096**2 + 3 * 4096 * 11008
    assert two - one == pytest.approx(2 * matrices - 2 * layer + 13.4 * tokens)
    assert one == pytest.approx(2 * (full.trained - layer + matrices) + (32.2 * 12 + 13.4) * tokens)
    assert full.memory / 2**30 < 139
    assert embed.memory / 2**30 < 40


@pytest.mark.parametrize(
    "strategy, layers",
    [("embed", None), ("full", None), ("lora", None), ("layers", (2,)), ("layers", (1, 3))],
)
def test_what_layers_keep_for_the_backward_pass(strategy, layers):
    """Against what torch keeps, in a LLaMA of 4 layers; embeddings and head keep a little more."""
    config = LlamaConfig(
        vocab_size=50, hidden_size=192, intermediate_size=516, num_hidden_layers=4,
        num_attention_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    tuned = modeling.prepare(model, strategy, layers=layers)
    ids = torch.randint(0, 50, (8, 64))
    kept = {}  # the tensors too, lest another takes the place of one that is freed

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with precision.computing_in(model, torch.bfloat16):
        model.set_attn_implementation("sdpa")  # which keeps no scores, as on a GPU
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = batches.label_loss(tuned, ids, ids.where(ids < 2, batches.IGNORED))
        for weight in tuned.parameters():
            kept.pop(weight.data_ptr(), None)
    assert loss.requires_grad
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    passed, own = (4 - layers[0], len(layers)) if layers else (4, 4)
    expected = sizes.KEPT * passed + sizes.KEPT_FOR_WEIGHTS[strategy] * own
    assert 0 < found / (ids.numel() * 192) - expected < 7


def test_the_price_of_llama_7b():
    """Tuning at the target's speed; scoring twelve languages about four times that."""
    given = {"card": "H200", "price": 3}
    (row,) = plan([Spec(languages=("ro",), targets=TWELVE, **PAPER)], **given).to_dict("records")
    flops = row["training_tokens"] * size(LLAMA, "embed").step_flops
    assert row["tuning_hours"] * 3600 == pytest.approx(flops / (0.55 * 989.4e12))
    assert 3 < row["translation_hours"] / row["tuning_hours"] < 5
    hours = row["tuning_hours"] + row["translation_hours"] + row["other_hours"]
    assert row["hours"] == pytest.approx(hours) and row["money"] == pytest.approx(3 * hours)
    assert row["hours_low"] < row["hours"] < row["hours_high"]
    assert row["saved_gb"] == 4 * 131_072_000 / 1e9  # half a GB: the embedding matrix alone
    assert row["checkpoint_gb"] == 3 * row["saved_gb"]
    assert "tuning at 0.55 of 989.4 TFLOP/s, assumed" in row["basis"]
    full = plan([Spec(languages=("ro",), targets=TWELVE, strategy="full", **PAPER)], **given)
    assert full["tuning_hours"][0] / row["tuning_hours"] == pytest.approx(
        6 / 4 * 0.55 / 0.5, rel=0.01
    )
    assert full["checkpoint_gb"][0] == pytest.approx(12 * 6.738, rel=1e-3)


def test_examples_are_as_long_as_the_tokenizer_makes_them(llama, flores):
    """An example of the paper's, from the recorded fertility, against the tokenizer itself."""
    sources, targets = flores("en"), flores("th")
    pairs = zip(sources, targets, strict=True)
    texts = [prompts.translation("th", source) + target for source, target in pairs]
    mean = sum(map(len, llama.encode(texts))) / len(texts) + 2
    spec = Spec(languages=("th",), **PAPER)
    planned = plan([spec])["training_tokens"][0] / (spec.epochs * spec.size)
    assert planned == pytest.approx(mean, rel=0.05)


def test_what_grows_and_what_does_not():
    spec = Spec(languages=("ro",), targets=("ro", "af"), **PAPER)
    twice = dataclasses.replace(spec, size=20_000)
    more = dataclasses.replace(spec, targets=TWELVE)
    untuned = dataclasses.replace(spec, languages=())
    rows = plan([spec, twice, more, untuned]).to_dict("records")
    assert rows[1]["tuning_hours"] == pytest.approx(2 * rows[0]["tuning_hours"])
    assert rows[1]["translation_hours"] == rows[0]["translation_hours"]
    assert rows[2]["tuning_hours"] == rows[0]["tuning_hours"]
    assert rows[2]["record_gb"] > 5 * rows[0]["record_gb"]
    assert rows[3]["tuning_hours"] == rows[3]["saved_gb"] == rows[3]["checkpoint_gb"] == 0
    h100, h200 = (plan([spec], card=c)["hours"][0] for c in ("H100", "H200"))
    assert h100 > h200  # more bandwidth


def test_sums_over_groups_are_those_of_runs():
    specs = [
        Spec(languages=(code,), targets=(code, "af"), strategy=strategy, **PAPER)
        for code in ("ro", "tr", "ro")
        for strategy in ("embed", "full")
    ]
    frame = plan(specs)
    groups, whole = by_group(frame), totals(frame)
    assert len(frame) == 4 and groups["runs"].tolist() == [2, 2] and whole["runs"] == 4
    for name in ("hours", "money", "training_tokens", "record_gb"):
        assert groups[name].sum() == pytest.approx(frame[name].sum())
        assert whole[name] == pytest.approx(frame[name].sum())
    assert whole["memory_gib"] == frame["memory_gib"].max()
    assert whole["checkpoint_gb"] == frame["checkpoint_gb"].max()


def test_what_the_store_has_costs_nothing(tmp_path):
    """A failed run costs what it does anew."""
    done, failed, open_ = (
        Spec(languages=("ro",), targets=("ro",), seed=seed, **PAPER) for seed in range(3)
    )
    store = Store(tmp_path)
    store.put(done.identity(), {"spec": dataclasses.asdict(done), "status": "done"})
    again = {"spec": dataclasses.asdict(failed), "status": "failed", "error": "?", "again": True}
    store.put(failed.identity(), again)
    frame = plan([done, failed, open_], store)
    first, second, third = frame.to_dict("records")
    assert first["done"] and first["hours"] == first["money"] == first["record_gb"] == 0
    assert not second["done"] and second["hours"] == third["hours"] > 0
    assert third["hours"] == plan([open_])["hours"][0]
    assert totals(frame)["done"] == 1 and totals(frame)["hours"] == 2 * third["hours"]


def test_the_mini_world_took_what_is_planned():
    """The shipped records of all runs that tuned, against their plan."""
    shipped = experiments.default_store().shipped_records.values()
    records = [record for record in shipped if record.get("training")]
    frame = plan([experiments.spec_of(record) for record in records], card="cpu")
    spent = sum(record["seconds"] for record in records) / 3600
    assert len(frame) == len(records) > 900
    assert frame["hours"].sum() == pytest.approx(spent, rel=0.15)
    assert frame["hours_low"].sum() < spent < frame["hours_high"].sum()


def test_wrong_arguments_are_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="list of runs is empty"):
        plan([])
    with pytest.raises(ValueError, match="unknown card 'H20'"):
        plan([Spec()], card="H20")
    with pytest.raises(ValueError, match="price must be"):
        plan([Spec()], price=-1)
    with pytest.raises(FileNotFoundError, match="no model 'nothing'"):
        size("nothing", "embed")
    with pytest.raises(ConnectionError, match=r"the Hub cannot be reached"):
        size("nobody/nothing", "embed")


def test_mixtures_of_experts_compute_with_some_of_their_experts(tmp_path):
    """All are kept in memory, and two compute a token, as in Mixtral."""
    counts = (4, 8)
    found = [
        size(
            config_folder(
                tmp_path / str(n), "mixtral", num_key_value_heads=2, num_local_experts=n,
                num_experts_per_tok=2, tie_word_embeddings=False,
            ),
            "full",
        )
        for n in counts
    ]  # fmt: skip
    few, many = found
    expert = 3 * 32 * 48  # three matrices
    assert many.trained - few.trained == 4 * 4 * (expert + 32)  # and the router's rows
    attention = 4 * (32 * 32 * 2 + 32 * 16 * 2)
    active = 4 * (2 * expert + 32 * 8) + attention + 32 * 400
    assert many.forward_flops == 2 * active + 4 * 4 * 32 * sizes.TOKENS
    assert many.forward_flops - few.forward_flops == 2 * 4 * 32 * 4
    assert many.step_flops == 3 * many.forward_flops


@pytest.mark.parametrize("family", ["gpt2", "qwen2_moe", "gpt_oss", "mamba"])
def test_any_architecture_is_counted(family, tmp_path):
    options = {"n_embd": 32, "n_head": 4} if family == "gpt2" else {"num_key_value_heads": 2}
    found = size(config_folder(tmp_path, family, **options), "full")
    assert found.step_flops > 2 * found.forward_flops > 0


def test_phrases_are_measured_with_the_base_that_is_there():
    """CLDR phrases are not as long as FLORES sentences."""
    lengths = planning._lengths("mini")
    template = prompts.translation("ro", "")
    (words,) = tokenization.load(modeling.MINI).encode([template])
    prompt = lengths.loc["ro", "prompt"]  # with BOS; what is new has EOS
    assert prompt == pytest.approx(1 + len(words) + lengths.loc["en", "new"] - 1)
    assert lengths.loc["ro", "new"] < planning._lengths(None).loc["ro", "new"] / 2

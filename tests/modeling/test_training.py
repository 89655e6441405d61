"""Fine-tuning: the loss is transformers', a run is repeatable, and a killed one goes on."""

import copy
import dataclasses
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch.optim import AdamW
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    get_cosine_schedule_with_warmup,
)

from mlq_utils import modeling, tokenization
from mlq_utils.corpora import loading as corpora
from mlq_utils.modeling import batches, memory, precision, prompts, training
from mlq_utils.modeling import checkpoint as checkpoints

SCHEDULE = modeling.Schedule(3e-3, epochs=2, batch_size=8, warmup_steps=2)


@pytest.fixture(scope="module")
def frame():
    return prompts.mixture({"ro": 30, "fr": 10})


@pytest.fixture(scope="module")
def folder(tmp_path_factory, frame):
    folder = tmp_path_factory.mktemp("base")
    pairs = corpora.load("cldr", "ro", "train", size=600)
    words = tokenization.train([*pairs["source"], *pairs["target"], *frame["prompt"]], 450)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=450,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(words.backend.serialized_model_proto())
    return folder


@pytest.fixture
def base(folder):
    return modeling.load(folder)


def tune(folder, frame, strategy="embed", schedule=SCHEDULE, **options):
    options = {"precision": "fp32", "progress": False} | options
    return training.fine_tune(modeling.load(folder), frame, strategy, schedule, **options)


def same(first, second):
    weights = second.model.model.state_dict()
    return all(torch.equal(p, weights[n]) for n, p in first.model.model.state_dict().items())


def test_examples_are_what_inference_will_see(base, frame):
    data = batches.examples(frame, base)
    assert data.skipped == 0 and len(data.ids) == len(frame)
    for ids, prompt, row in zip(data.ids, data.prompts, frame.itertuples(), strict=True):
        assert ids[:prompt] == [base.bos, *base.tokenizer.encode(row.prompt)]
        assert ids[prompt:] == [*base.tokenizer.encode(row.target), base.eos]
        assert base.tokenizer.decode(ids[prompt:-1]) == row.target


def test_only_prompts_and_padding_are_masked(base, frame):
    """Also where padding is EOS."""
    data = batches.examples(frame, base)
    ids, labels, _ = batches.collate(data, [[3], [5], [1]], pad=base.eos)
    assert ids.shape == labels.shape == (3, max(len(data.ids[i]) for i in (3, 5, 1)))
    for row, i in enumerate((3, 5, 1)):
        size, prompt = len(data.ids[i]), data.prompts[i]
        assert ids[row].tolist() == data.ids[i] + [base.eos] * (ids.shape[1] - size)
        assert labels[row, prompt:size].tolist() == data.ids[i][prompt:]
        assert labels[row, size - 1] == base.eos
        assert (labels[row, :prompt] == -100).all() and (labels[row, size:] == -100).all()


def test_long_pairs_are_skipped_and_counted(base, folder, frame):
    lengths = [len(ids) for ids in batches.examples(frame, base).ids]
    block = sorted(lengths)[len(lengths) // 2]
    data = batches.examples(frame, base, block)
    assert data.skipped == sum(n > block for n in lengths) > 0
    assert max(map(len, data.ids)) == block
    with pytest.raises(ValueError, match="all 40 pairs are longer than 5"):
        batches.examples(frame, base, 5)
    longer = pd.concat([frame, frame[:1].assign(target="a " * 300)])  # than the model's context
    result = tune(folder, longer, schedule=dataclasses.replace(SCHEDULE, epochs=1))
    assert (result.skipped, result.examples, len(result.losses)) == (1, 40, 5)


@pytest.mark.parametrize("bad", [None, float("nan"), 3])
def test_a_pair_without_text_is_named(base, frame, bad):
    frame = frame.astype(object)
    frame.loc[17, "target"] = bad
    with pytest.raises(ValueError, match=r"row 17 .* no text in 'target'"):
        batches.examples(frame, base)


def test_no_pairs(base, frame):
    with pytest.raises(ValueError, match="the frame is empty"):
        training.fine_tune(base, frame[:0])


def test_batches_are_drawn_at_random_and_hold_each_example_once():
    found = batches.batches(500, 8, seed=0)
    assert sorted(i for batch in found for i in batch) == list(range(500))
    assert found == batches.batches(500, 8, seed=0)
    assert found != batches.batches(500, 8, seed=1) != batches.batches(500, 8, 0, 1)
    assert [len(batch) for batch in found] == [8] * 62 + [4]
    # The means of batches spread as those of random draws do: by 1/√8 of the numbers themselves.
    spread = pd.Series(found[:-1]).map(lambda batch: sum(batch) / 8).std()
    assert spread == pytest.approx(500 / math.sqrt(12 * 8), rel=0.25)


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(0, 200))
def test_rows_hold_each_example_once_and_no_more_than_fits(lengths, length):
    rows = batches.pack(lengths, length)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in row) for row in rows]
    assert all(n <= length or len(row) == 1 for n, row in zip(filled, rows, strict=True))
    # The first example of a row has found no room in the rows before it.
    for n, row in enumerate(rows):
        before = [sum(lengths[i] for i in r if lengths[i] >= lengths[row[0]]) for r in rows[:n]]
        assert all(sum_ + lengths[row[0]] > length for sum_ in before)


def test_a_row_trains_what_its_examples_train_alone(base, frame):
    """The same loss and gradients, and positions from 0; padding trains nothing."""
    data = batches.examples(frame, base)
    lengths = [len(ids) for ids in data.ids[:12]]
    rows = batches.pack(lengths, 2 * max(lengths))
    assert len(rows) < 9
    packed = batches.collate(data, rows, base.pad, (len(rows) + 1, 2 * max(lengths) + 5))
    assert packed[0].shape == (len(rows) + 1, 2 * max(lengths) + 5)
    for n, row in enumerate(rows):
        start = 0
        for i in row:
            here = slice(start, start := start + lengths[i])
            assert packed[0][n, here].tolist() == data.ids[i]
            assert packed[2][n, here].tolist() == list(range(lengths[i]))
    alone = batches.collate(data, [[i] for i in range(12)], base.pad)[:2]
    found = []
    for tensors in (packed, alone):
        base.model.zero_grad()
        loss = batches.label_loss(base.model, *tensors)
        loss.backward()
        found.append((loss.item(), [p.grad for p in base.model.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for one, other in zip(*(gradients for _, gradients in found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_models_that_mix_examples_are_given_one_a_row(base, folder, frame, monkeypatch):
    ids = batches.examples(frame, base).ids
    assert batches.keeps_apart(base.model, ids[0], ids[1])
    monkeypatch.setattr(training, "ROW", 400)
    whole, real = tune(folder, frame), LlamaModel.forward

    def mixes(self, *, input_ids, position_ids=None, **options):
        return real(self, input_ids=input_ids, **options)

    monkeypatch.setattr(LlamaModel, "forward", mixes)
    assert not batches.keeps_apart(base.model, ids[0], ids[1])
    alone = tune(folder, frame)
    assert alone.losses == pytest.approx(whole.losses, rel=1e-4)
    assert whole.micro_batch_tokens != alone.micro_batch_tokens
    assert alone.micro_batch_tokens == SCHEDULE.batch_size * max(map(len, ids))


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_the_loss_is_that_of_transformers(base, frame, strategy):
    """With its gradients, and with the mask that this package does without."""
    data = batches.examples(frame, base)
    ids, labels, _ = batches.collate(data, [[i] for i in range(12)], base.pad)
    mask = torch.tensor(
        [[i < len(data.ids[row]) for i in range(ids.shape[1])] for row in range(12)]
    )
    model = modeling.prepare(base.model, strategy)
    losses, gradients = [], []
    for loss in (
        training.label_loss(model, ids, labels),
        model(ids, attention_mask=mask.long(), labels=labels).loss,
    ):
        model.zero_grad()
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-6)


def test_a_batch_without_labels_is_no_nan(base):
    model = modeling.prepare(base.model, "full")
    ids = torch.arange(12).view(2, 6)
    loss = training.label_loss(model, ids, torch.full_like(ids, -100))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_memory_of_logits_is_bounded(monkeypatch):
    """Those of a large vocabulary are computed at few labels at once, and the loss is the same."""
    config = LlamaConfig(
        vocab_size=50_000, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, 50_000, (10, 101))
    found = {}
    for at_once in (2**22, 2**27):
        monkeypatch.setattr(batches, "LOGITS", at_once)
        model.zero_grad()
        kept, computed = [], []
        hook = model.lm_head.register_forward_hook(lambda *seen, to=computed: to.append(seen[2]))
        pack = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, to=kept: to.append(tensor.numel()) or tensor, lambda tensor: tensor
        )
        with pack, hook:
            loss = training.label_loss(model, ids, ids)
        loss.backward()
        largest = max(logits.numel() for logits in computed)
        found[at_once] = loss, model.lm_head.weight.grad, largest, sum(kept)
    few, whole = found.values()
    torch.testing.assert_close(few[:2], whole[:2], rtol=1e-4, atol=1e-7)
    assert few[2] <= 2**22 < 50e6 <= whole[2]
    assert few[3] < 2e6 < 50e6 < whole[3]  # what is kept for the backward pass


@pytest.mark.parametrize("warmup", [0, 3, 0.1])
def test_the_rate_is_that_of_transformers(warmup):
    schedule = modeling.Schedule(1.0, warmup_steps=warmup)
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = math.ceil(warmup * 37) if warmup == 0.1 else warmup
    reference = get_cosine_schedule_with_warmup(optimizer, steps, 37)
    for step in range(37):
        assert schedule.rate(step, 37) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()


def test_schedules():
    assert modeling.Schedule.mini("embed", epochs=1) == modeling.Schedule(3e-3, epochs=1)
    assert modeling.Schedule.mini("lora").learning_rate == 1e-2
    paper = modeling.Schedule.paper("full")
    assert (paper.learning_rate, paper.batch_size, paper.seed) == (2e-5, 128, 42)
    assert modeling.Schedule.paper("lora").learning_rate == 1e-4
    for wrong in ({"epochs": 0}, {"learning_rate": math.nan}, {"batch_size": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be above 0"):
            modeling.Schedule.mini("full", **wrong)
    with pytest.raises(ValueError, match="Did you mean"):
        modeling.Schedule.mini("emebd")


@pytest.mark.parametrize(
    "strategy, options", [("embed", {}), ("full", {}), ("lora", {}), ("layers", {"layers": [1]})]
)
def test_a_run_learns_and_is_repeatable(folder, frame, strategy, options):
    schedule = modeling.Schedule(1e-2, epochs=4, batch_size=8, warmup_steps=2)
    result = tune(folder, frame, strategy, schedule, **options)
    assert len(result.losses) == 20
    assert sum(result.losses[-5:]) < sum(result.losses[:5]) - 0.2
    assert same(result, tune(folder, frame, strategy, schedule, **options))
    other = dataclasses.replace(schedule, seed=1)
    assert not same(result, tune(folder, frame, strategy, other, **options))
    assert type(result.model.model) is LlamaForCausalLM and not result.model.model.training
    assert result.label_tokens_per_second > 0 < result.seconds
    assert result.peak_bytes is None or result.peak_bytes > 2**20


def test_only_the_strategy_s_weights_change(folder, frame):
    before = modeling.load(folder).model.state_dict()
    for strategy, changed in (("embed", {"model.embed_tokens.weight"}), ("lora", None)):
        after = tune(folder, frame, strategy).model.model.state_dict()
        found = {n for n, p in before.items() if not torch.equal(p, after[n])}
        if changed is None:  # merged
            parts = [f"model.layers.{i}.self_attn.{p}_proj.weight" for i in (0, 1) for p in "qv"]
            changed = set(parts)
        assert found == changed and set(after) == set(before)


def test_randomness_outside_is_left_alone(folder, frame):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tune(folder, frame, "lora")
    assert torch.equal(torch.rand(3), expected)


def test_bf16_comes_close_and_keeps_fp32_masters(folder, frame):
    exact, narrow = (tune(folder, frame, "full", precision=p) for p in ("fp32", "bf16"))
    assert (exact.precision, narrow.precision) == ("fp32", "bf16")
    assert narrow.losses == pytest.approx(exact.losses, rel=0.02)
    assert narrow.losses != exact.losses
    assert {p.dtype for p in narrow.model.model.parameters()} == {torch.float32}
    assert narrow.model.model.config._attn_implementation == "sdpa"  # given back


def test_precision_follows_the_machine_and_the_weights(folder, frame, monkeypatch):
    for fast, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "fast_bf16", lambda device, fast=fast: fast)
        assert tune(folder, frame[:8], precision="auto").precision == expected
    base = modeling.load(folder, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="needs fp32 weights"):
        training.fine_tune(base, frame, "embed", precision="fp32")
    assert training.fine_tune(base, frame[:8], "embed", progress=False).precision == "bf16"
    with pytest.raises(ValueError, match="unknown precision"):
        training.fine_tune(base, frame, precision="bf61")


@pytest.mark.parametrize("step", [0, 3, 9])
def test_nan_stops_the_run(folder, frame, monkeypatch, step):
    calls, real = [], training.label_loss

    def broken(*arguments, **options):
        calls.append(None)
        return real(*arguments, **options) * (
            math.nan if len(calls) == step + 2 else 1
        )  # one of no step

    monkeypatch.setattr(training, "label_loss", broken)
    base = modeling.load(folder)
    with pytest.raises(FloatingPointError, match=f"step {step} of 10, learning rate .*nan"):
        training.fine_tune(base, frame, "full", SCHEDULE, progress=False)
    assert all(torch.isfinite(p).all() for p in base.model.parameters())


def test_out_of_memory_takes_smaller_parts_of_the_same_batches(folder, frame, monkeypatch):
    """A device that holds 250 tokens at once: other parts, the same gradients."""
    whole, real, sizes = tune(folder, frame, "full"), training.label_loss, []

    def small(model, ids, labels, *more):
        sizes.append(ids.numel())
        if ids.numel() > 250:
            raise torch.OutOfMemoryError("no room")
        return real(model, ids, labels, *more)

    monkeypatch.setattr(training, "label_loss", small)
    with pytest.warns(UserWarning, match=r"out of memory with \d+ tokens at once") as warned:
        parts = tune(folder, frame, "full")
    whole_size = whole.micro_batch_tokens
    assert 500 < whole_size < 1000 and sizes[0] == whole_size
    said = [int(str(w.message).split(" from here on")[0].split()[-1]) for w in warned]
    assert said == [whole_size // 2, whole_size // 4]
    assert parts.micro_batch_tokens == whole_size // 4
    assert sum(size > 250 for size in sizes) == 2  # and it does not try again
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    weights = whole.model.model.state_dict()
    for name, weight in parts.model.model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("strategy", ["embed", "full", "lora"])
def test_activations_are_computed_twice_where_one_row_does_not_fit(
    folder, frame, monkeypatch, strategy
):
    """Which changes no gradient, whatever is frozen."""
    whole, real = tune(folder, frame, strategy), training.label_loss
    longest = []

    def small(model, ids, labels, *more):
        layer = next(m for n, m in model.named_modules() if n.endswith("layers.0"))
        if not layer.gradient_checkpointing:
            longest.append(ids.shape)
            raise torch.OutOfMemoryError("no room")
        return real(model, ids, labels, *more)

    monkeypatch.setattr(training, "label_loss", small)
    with pytest.warns(UserWarning, match="with one row: activations are computed twice"):
        parts = tune(folder, frame, strategy)
    assert len(longest[-1]) == 2 and longest[-1][0] == 1 and len(longest) < 6
    assert parts.micro_batch_tokens == whole.micro_batch_tokens
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)


def test_a_smaller_micro_batch_changes_no_result(folder, frame):
    whole, parts = tune(folder, frame), tune(folder, frame, micro_batch_tokens=100)
    assert (parts.micro_batch_tokens, len(parts.losses)) == (100, len(whole.losses))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    with pytest.raises(ValueError, match="micro_batch_tokens must be 1 or more, not 0"):
        tune(folder, frame, micro_batch_tokens=0)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_whatever_kind_of_error_says_it_less_is_tried(error):
    tried = []

    def compute(size):
        tried.append(size)
        if size > 2:
            raise error
        return size

    with pytest.warns(UserWarning, match="out of memory with . things"):
        assert memory.halving(compute, 8, "things") == (2, 2)
    assert tried == [8, 4, 2]
    with (
        pytest.raises(torch.OutOfMemoryError, match="reading a book: close it"),
        memory.phase("reading a book", "close it"),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [torch.AcceleratorError("CUDA error: an illegal memory access"), ValueError("no")]
)
def test_other_errors_are_not_tried_again(error):
    def compute(size):
        tried.append(size)
        raise error

    tried = []
    with pytest.raises(type(error)), memory.phase("reading a book", "close it"):
        memory.halving(compute, 8, "things")
    assert tried == [8]


@pytest.mark.parametrize("fitting", [0, 3])
def test_attempts_that_failed_count_neither_as_time_nor_as_memory(
    folder, frame, monkeypatch, fitting
):
    """In the dry run, and in a later step where all has fitted before."""
    real, calls, clock = training.label_loss, [], time.perf_counter
    waited = [0]

    def small(model, ids, labels, *more):
        calls.append(None)
        if ids.numel() > 250 and len(calls) > fitting:
            held = torch.ones(100 * 2**20)  # 400 MB
            waited[0] += 1000
            raise torch.OutOfMemoryError(f"no room beside {held.shape}")
        return real(model, ids, labels, *more)

    whole = tune(folder, frame, "full")
    monkeypatch.setattr(training, "label_loss", small)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + waited[0])
    with pytest.warns(UserWarning, match="out of memory"):
        parts = tune(folder, frame, "full")
    assert waited == [2000] and parts.micro_batch_tokens <= 250
    assert parts.seconds < 1000 and parts.estimated_seconds < 1000
    if whole.peak_bytes is not None:
        for peak in (parts.peak_bytes, parts.estimated_peak_bytes):
            assert abs(peak - whole.peak_bytes) < 200e6


def test_an_example_that_does_not_fit_is_an_error(folder, frame, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(training, "label_loss", full)
    message = "out of memory in the dry run of training: .*micro_batch_tokens.*block"
    with pytest.warns(UserWarning), pytest.raises(torch.OutOfMemoryError, match=message):
        tune(folder, frame)


def test_the_optimizer_runs_out_of_memory_before_anything_is_computed(folder, frame, monkeypatch):
    def full(*_, **__):
        raise torch.AcceleratorError("CUDA error: out of memory")

    base = modeling.load(folder)
    before = copy.deepcopy(base.model.state_dict())
    monkeypatch.setattr(training, "label_loss", lambda *_, **__: pytest.fail("computed"))
    monkeypatch.setattr(AdamW, "step", full)
    with pytest.raises(torch.OutOfMemoryError, match="allocating the optimizer's state: "):
        training.fine_tune(base, frame, "full", SCHEDULE, precision="fp32", progress=False)
    assert all(torch.equal(p, before[n]) for n, p in base.model.state_dict().items())


def test_the_optimizer_s_state_is_what_its_first_step_would_make(folder, frame, monkeypatch):
    """And the step that allocates it changes no weight."""
    whole = tune(folder, frame, "full")
    monkeypatch.setattr(training, "allocate", lambda weights, optimizer: None)
    assert same(whole, tune(folder, frame, "full"))


def test_a_step_that_was_half_taken_is_taken_again_from_the_checkpoint(
    folder, frame, tmp_path, monkeypatch
):
    path, real, steps = tmp_path / "checkpoint", AdamW.step, []

    def half(self, *arguments):
        steps.append(None)
        if len(steps) == 6:  # the first one allocates
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1)
            raise torch.AcceleratorError("CUDA error: out of memory")
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(AdamW, "step", half)
        with pytest.raises(torch.OutOfMemoryError, match="at step 4 of training: "):
            tune(folder, frame, "full", checkpoint=path, checkpoint_seconds=0)
    resumed = tune(folder, frame, "full", checkpoint=path)
    assert resumed.resumed_at == 4 and same(resumed, tune(folder, frame, "full"))


def test_a_parameter_without_gradient_stops_the_run(folder, frame, monkeypatch):
    real = training.label_loss
    monkeypatch.setattr(
        training,
        "label_loss",
        lambda m, *batch, **options: real(m, *batch, **options) + 0 * m.lm_head.bias.sum(),
    )
    base = modeling.load(folder)
    base.model.lm_head.bias = torch.nn.Parameter(torch.zeros(450))
    monkeypatch.setattr(base.model.lm_head, "forward", lambda x: x @ base.model.lm_head.weight.T)
    with pytest.raises(RuntimeError, match=r"1 trained .* lm_head\.bias"):
        training.fine_tune(base, frame, "full", SCHEDULE, precision="fp32", progress=False)


class Stop(Exception):
    pass


def stopped(folder, frame, strategy, at, path, monkeypatch, **options):
    """Run with a checkpoint after every step, and break off after one of them."""
    real, saved = checkpoints.save, []

    def save(*arguments):
        real(*arguments)
        saved.append(None)
        if len(saved) == at:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save)
        with pytest.raises(Stop):
            tune(folder, frame, strategy, checkpoint=path, checkpoint_seconds=0, **options)


@pytest.mark.parametrize("strategy", ["embed", "full", "lora"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    folder, frame, strategy, tmp_path, monkeypatch
):
    path = tmp_path / "runs" / "checkpoint.safetensors"
    stopped(folder, frame, strategy, 4, path, monkeypatch)
    whole, resumed = tune(folder, frame, strategy), tune(folder, frame, strategy, checkpoint=path)
    assert (whole.resumed_at, resumed.resumed_at) == (0, 4)
    assert whole.losses == resumed.losses and same(whole, resumed)
    done = tune(folder, frame, strategy, checkpoint=path)  # the last checkpoint is the result
    assert done.resumed_at == len(done.losses) == 10 and same(whole, done)
    assert (done.losses, done.seconds) == (resumed.losses, resumed.seconds)
    assert os.listdir(path.parent) == [path.name]


def test_dropout_is_resumed_too(folder, frame, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    real = modeling.load

    def load(folder):
        base = real(folder)
        for layer in base.model.model.layers:
            layer.self_attn.attention_dropout = 0.2
        return base

    monkeypatch.setattr(modeling, "load", load)
    stopped(folder, frame, "full", 3, path, monkeypatch)
    whole, resumed = tune(folder, frame, "full"), tune(folder, frame, "full", checkpoint=path)
    assert same(whole, resumed) and whole.losses == resumed.losses
    monkeypatch.setattr(modeling, "load", real)
    assert tune(folder, frame, "full").losses != whole.losses


def test_a_killed_process_s_run_goes_on(folder, frame, tmp_path):
    """Killed at any moment after its fifth checkpoint."""
    path = tmp_path / "checkpoint.safetensors"
    schedule = dataclasses.replace(SCHEDULE, epochs=60)
    context = multiprocessing.get_context("fork")  # which need not import torch again
    saved = context.Semaphore(0)

    def work():
        real = checkpoints.save
        checkpoints.save = lambda *arguments: (real(*arguments), saved.release())
        tune(folder, frame, schedule=schedule, checkpoint=path, checkpoint_seconds=0)

    process = context.Process(target=work)
    process.start()
    try:
        assert all(saved.acquire(timeout=300) for _ in range(5))
    finally:
        process.kill()
        process.join()
    resumed = tune(folder, frame, schedule=schedule, checkpoint=path)
    whole = tune(folder, frame, schedule=schedule)
    assert 5 <= resumed.resumed_at < len(whole.losses) == 300
    assert same(whole, resumed) and whole.losses == resumed.losses


def step_of(path):
    with safe_open(path, "pt") as file:
        return len(json.loads(file.metadata()["progress"])["losses"])


def test_another_run_s_checkpoint_is_refused(folder, frame, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    stopped(folder, frame, "embed", 4, path, monkeypatch)
    before = path.read_bytes()
    base = modeling.load(folder)
    other = {"schedule": dataclasses.replace(SCHEDULE, seed=1)}
    for changed in (other, {"strategy": "full"}, {"frame": frame[1:]}, {"precision": "bf16"}):
        options = {"frame": frame, "checkpoint": path} | changed
        with pytest.raises(ValueError, match="checkpoint of another run"):
            tune(folder, **options)
    training.fine_tune(base, frame, "embed", SCHEDULE, precision="fp32", progress=False)
    with pytest.raises(ValueError, match="anew if it was tuned meanwhile"):
        training.fine_tune(
            base, frame, "embed", SCHEDULE, precision="fp32", progress=False, checkpoint=path
        )
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda _: b"", lambda _: b"\x80" * 99])
def test_a_damaged_checkpoint_costs_time_only(folder, frame, tmp_path, monkeypatch, damage):
    path = tmp_path / "checkpoint"
    stopped(folder, frame, "embed", 4, path, monkeypatch)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged .* starts anew"):
        result = tune(folder, frame, checkpoint=path)
    assert result.resumed_at == 0 and same(result, tune(folder, frame))


def test_a_failed_write_leaves_the_old_checkpoint(folder, frame, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint"
    stopped(folder, frame, "embed", 4, path, monkeypatch)

    def full(tensors, aside, metadata):
        aside.write_bytes(b"half of")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        with pytest.raises(OSError, match="No space"):
            tune(folder, frame, checkpoint=path, checkpoint_seconds=0)
    assert os.listdir(tmp_path) == [path.name] and step_of(path) == 4


def test_a_disk_too_small_is_told_before_anything_is_computed(folder, frame, tmp_path, monkeypatch):
    """It takes two checkpoints, since the new one is written beside the last one."""
    path, disk = tmp_path / "new" / "checkpoint", SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    with monkeypatch.context() as patch:
        patch.setattr(training, "label_loss", lambda *_, **__: pytest.fail("computed"))
        with pytest.raises(
            OSError, match=r"has 1,000 bytes free: set MLQ_CH.* checkpoint=None"
        ) as e:
            tune(folder, frame, checkpoint=path)
    assert not list(path.parent.iterdir())
    needed = int(re.search(r"need ([\d,]+) bytes", str(e.value))[1].replace(",", ""))
    assert needed == pytest.approx(2 * 3 * 4 * 450 * 32, rel=0.01)
    disk.free = needed
    stopped(folder, frame, "embed", 4, path, monkeypatch)
    assert 0.45 * needed < path.stat().st_size < 0.55 * needed  # moments included
    disk.free = needed - path.stat().st_size
    assert tune(folder, frame, checkpoint=path).resumed_at == 4


def test_a_slow_disk_gets_fewer_checkpoints(folder, frame, tmp_path, monkeypatch):
    """The next one comes after twenty times what the last one took."""
    real, saved = checkpoints.save, []

    def save(path, run, progress, *rest):
        saved.append(len(progress["losses"]))
        time.sleep(1)
        real(path, run, progress, *rest)

    monkeypatch.setattr(checkpoints, "save", save)
    tune(folder, frame, checkpoint=tmp_path / "checkpoint", checkpoint_seconds=1e-9)
    assert saved == [1, 10]


def test_memory_and_time_are_foretold():
    """Of a model that is larger than what torch itself keeps, in a process of its own.

    tqdm reads TQDM_DISABLE when it is imported: it counts where nobody asks for a bar.
    """
    script = """
import dataclasses, torch
from transformers import LlamaConfig, LlamaForCausalLM
from mlq_utils import modeling
from mlq_utils.modeling import training
base = modeling.load("mini")
config = LlamaConfig(
    vocab_size=len(base.tokenizer), hidden_size=768, intermediate_size=2048,
    num_hidden_layers=4, num_attention_heads=12, tie_word_embeddings=False,
)
base = dataclasses.replace(base, model=LlamaForCausalLM(config))
result = modeling.fine_tune(
    base, modeling.mixture({"ro": 24}), "full",
    modeling.Schedule.mini("full", epochs=1, batch_size=8), precision="fp32", progress=True,
)
assert list(training._bar(range(3), "not asked for", None)) == [0, 1, 2]
print(result.peak_bytes / result.estimated_peak_bytes, result.seconds / result.estimated_seconds)
"""
    environment = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    said = done.stderr.replace("\r", "\n")
    expecting, took = (said.index(f"full: {word} 00:") for word in ("expecting", "took"))
    assert expecting < said.index(" 3/3 ") < took
    assert said.count("GiB at the peak") == 2 and "not asked for" not in said
    peak, seconds = map(float, done.stdout.split())
    assert 0.85 < peak < 1.15
    assert 0.3 < seconds < 3  # tests that run beside it take the processor


def test_the_batch_that_is_tried_first_changes_nothing(folder, frame, monkeypatch):
    base, calls = modeling.load(folder), []
    real = training._Trainer.dry_run
    monkeypatch.setattr(training._Trainer, "dry_run", lambda self: calls.append(None) or real(self))
    tried = training.fine_tune(base, frame, "full", SCHEDULE, precision="fp32", progress=False)
    monkeypatch.setattr(training._Trainer, "dry_run", lambda self: (1.0, 8))
    monkeypatch.setattr(training, "allocate", lambda weights, optimizer: None)
    plain = tune(folder, frame, "full", precision="fp32", progress=False)
    assert calls and tried.losses == plain.losses
    assert same(tried, plain)


def test_progress(folder, frame, capfd, monkeypatch):
    for progress, notebook, shown in (
        (None, False, not os.environ.get("TQDM_DISABLE")),
        (None, True, False),
        (True, True, True),
        (False, False, False),
    ):
        with monkeypatch.context() as patch:
            if notebook:
                patch.setitem(sys.modules, "ipykernel", object())
            else:
                patch.delitem(sys.modules, "ipykernel", raising=False)
            tune(folder, frame, progress=progress)
        said = capfd.readouterr()
        assert ("10/10" in said.err) == shown and not said.out

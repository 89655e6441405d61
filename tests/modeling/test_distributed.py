"""A run in several processes is the run in one: FSDP on processors stands in for that on GPUs."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import debug_launcher
from accelerate.utils import gather_object

from mlq_utils import experiments, modeling
from mlq_utils.experiments.spec import spec_of
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import batches, distributed, prompts, training

STRATEGIES = ["embed", "full", "lora", "layers"]
NARROW = ["full", "lora"]
"""Strategies that are tried in bf16 too: all weights are masters, and few beside frozen ones."""
TEXTS = ["May 3", "France", "10 euros", "x", "Peru"]


def tune(folder, strategy, **options):
    """Tune and translate; return what can be compared, as JSON holds it."""
    base = modeling.load(folder)
    options = {"precision": "fp32", "progress": False, "micro_batch_tokens": 150} | options
    result = training.fine_tune(
        base, prompts.mixture({"ro": 27}), strategy,
        training.Schedule(1e-2, epochs=2, batch_size=8, warmup_steps=2),
        layers=[1] if strategy == "layers" else None, checkpoint_seconds=0, **options,
    )  # fmt: skip
    frame = modeling.translate(
        result.model.model.float(), base.tokenizer,
        [prompts.translation("ro", text) for text in TEXTS],
        cap=9, bos_id=base.bos, eos_id=base.eos,
    )  # fmt: skip
    return {
        "losses": result.losses,
        "hypotheses": frame["hypothesis"].tolist(),
        "resumed": result.resumed_at,
        "sum": {n: w.double().abs().sum().item() for n, w in result.model.model.named_parameters()},
        "trained": sorted(result.trained),
    }


def everything(folder, out, checkpoint, record):
    """Do all that is compared, in each of two processes."""
    state = distributed.state()
    found = {strategy: tune(folder, strategy, progress=True) for strategy in STRATEGIES}
    found["bf16"] = {s: tune(folder, s, precision="bf16", progress=True) for s in NARROW}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "LOGITS", 5_000)
        found["few logits at once"] = tune(folder, "full")
    found["rank"], found["of"] = state.process_index, state.num_processes
    # The other process sees no file, or the one that the main process finds damaged.
    checkpoint, damaged = Path(checkpoint), Path(out) / f"damaged {state.process_index}"
    damaged.write_bytes(checkpoint.read_bytes()[: -9 if state.is_main_process else None])
    seen = checkpoint if state.is_main_process else Path(out) / "nothing"
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        save, cpu = training.checkpoints.save, torch.Tensor.cpu

        def counting(*arguments):
            with patch.context() as inner:
                inner.setattr(torch.Tensor, "cpu", lambda t: kept.append(t.shape) or cpu(t))
                save(*arguments)

        patch.setattr(training.checkpoints, "save", counting)
        found["resumed"] = tune(folder, "full", checkpoint=seen, progress=True)
    found["kept"] = len(kept)
    found["anew"] = tune(folder, "full", checkpoint=damaged, progress=True)
    group = torch.distributed.distributed_c10d._get_default_group()
    found["patience"] = group._get_backend(state.device).options._timeout.total_seconds()
    found["from main"] = distributed.broadcast_from_main(lambda: state.process_index)
    (Path(out) / f"{state.process_index}.json").write_text(json.dumps(found))
    spec = spec_of(json.loads(record))
    experiments.run(spec, Store(Path(out, "store")), progress=False)


@pytest.fixture(scope="module")
def one(base):
    return {strategy: tune(base, strategy) for strategy in STRATEGIES}


@pytest.fixture(scope="module")
def checkpoint(base, tmp_path_factory):
    """The checkpoint of a run in one process that stopped in the middle."""
    path, real = tmp_path_factory.mktemp("stopped") / "checkpoint", training._Trainer.is_due

    class Stop(Exception):
        pass

    def is_due(self, step, *arguments):
        if step == 3:
            raise Stop
        return real(self, step, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Trainer, "is_due", is_due)
        with pytest.raises(Stop):
            tune(base, "full", checkpoint=path)
    return path


def launch(out, base, checkpoint, record):
    """Start two processes for `everything`, as a notebook does.

    By accelerate's function launcher, that of `notebook_launcher` for processors. The launching
    process has its own state already, as a notebook that has tuned a model.
    """
    modeling.placement()
    debug_launcher(everything, (base, out, checkpoint, record), num_processes=2)


@pytest.fixture(scope="module")
def launched(base, small, checkpoint, tmp_path_factory):
    """The folder with what is found; one interpreter launches all that runs in two processes."""
    out = tmp_path_factory.mktemp("two")
    record = json.dumps({"spec": dataclasses.asdict(small)})
    done = subprocess.run(
        [sys.executable, *map(str, (__file__, out, base, checkpoint, record))],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("expecting") == len(STRATEGIES + NARROW) + 2  # one process speaks
    return out


@pytest.fixture(scope="module")
def two(launched):
    """What each of two processes found."""
    return [json.loads((launched / f"{rank}.json").read_text()) for rank in range(2)]


def assert_same(found, expected, **tolerance):
    assert found["losses"] == pytest.approx(expected["losses"], **tolerance)
    assert found["trained"] == expected["trained"]
    assert found["hypotheses"] == expected["hypotheses"]
    assert found["sum"] == pytest.approx(expected["sum"], **tolerance)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_compute_what_one_does(one, two, strategy):
    """Losses, weights and translations; batches of an odd number, too."""
    places = [(found["rank"], found["of"], found["from main"]) for found in two]
    assert places == [(0, 2, 0), (1, 2, 0)]
    for found in two:
        assert_same(found[strategy], one[strategy], rel=1e-4)
        assert_same(found["few logits at once"], one["full"], rel=1e-4)


def test_bf16_with_fp32_masters(base, one, two):
    """The first step's model is the same for all strategies, and in any number of processes.

    Its losses differ in what sums of other parts of the batch round to. Later, rounding adds up.
    """
    alone = {strategy: tune(base, strategy, precision="bf16") for strategy in NARROW}
    for found in (alone, *(each["bf16"] for each in two)):
        for strategy in NARROW:
            losses = found[strategy]["losses"]
            assert losses[0] == pytest.approx(alone["full"]["losses"][0], rel=1e-3)
            assert losses == pytest.approx(alone[strategy]["losses"], rel=0.01)
            assert losses == pytest.approx(one[strategy]["losses"], rel=0.02)


def test_a_checkpoint_is_taken_up_by_another_number_of_processes(base, one, two, checkpoint):
    """Two processes take up that of one, and one takes up what they have written."""
    for found in two:
        assert found["resumed"]["resumed"] == 3
        assert_same(found["resumed"], one["full"], rel=1e-4)
        assert (found["kept"] > 0) == (found["rank"] == 0)  # the others drop what they gather
    again = tune(base, "full", checkpoint=checkpoint)
    assert again["resumed"] == len(one["full"]["losses"])
    assert_same(again, one["full"], rel=1e-4)


def test_processes_start_anew_together(one, two):
    """If the main process finds the checkpoint damaged, whatever the other one sees."""
    for found in two:
        assert found["anew"]["resumed"] == 0
        assert_same(found["anew"], one["full"], rel=1e-4)
        assert found["patience"] == distributed.PATIENCE.total_seconds() == 1800


def test_a_process_that_fails_keeps_no_other_waiting(tmp_path):
    """Nor does it wait itself, as NCCL would where others are in a collective."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time, torch\n"
        "from mlq_utils.modeling import distributed\n"
        "torch.distributed.destroy_process_group = lambda: time.sleep(600)\n"
        "state = distributed.state()\n"
        "print(os.environ['PYTORCH_ALLOC_CONF'], flush=True)\n"
        "torch.distributed.all_reduce(torch.ones(1))\n"
        "if state.is_main_process:\n"
        "    raise ValueError('the first error')\n"
        "torch.distributed.all_reduce(torch.ones(1))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    size = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    environment = {k: v for k, v in os.environ.items() if k != "PYTORCH_ALLOC_CONF"} | place | size
    given = [{}, {"PYTORCH_ALLOC_CONF": "backend:native"}]
    processes = [
        subprocess.Popen(
            [sys.executable, script],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | given[rank],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        (first, said), (second, _) = (process.communicate(timeout=200) for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 1]
    assert "ValueError: the first error" in said
    # Torch's allocator is set up, unless the user has done so.
    assert (first.strip(), second.strip()) == ("expandable_segments:True", "backend:native")


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: no kernel image is available\nCompile with …"),
        AssertionError("Torch not compiled with CUDA enabled"),
    ],
)
def test_a_gpu_that_cannot_compute_is_told_before_anything_is_loaded(
    small, tmp_path, monkeypatch, error
):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(torch, "ones", broken)
    monkeypatch.setattr(modeling, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(RuntimeError, match=r"^the GPU cannot compute .*install .* CUDA_VISIBLE_DE"):
        experiments.run(small, Store(tmp_path))


def test_one_process_needs_no_group():
    state = distributed.state()
    assert (state.num_processes, state.process_index, state.is_main_process) == (1, 0, True)
    assert gather_object(distributed.share("abc")) == ["a", "b", "c"]
    assert not torch.distributed.is_initialized()


def test_shares_are_put_together_in_order(monkeypatch):
    things, parts = list("abcdefg"), []
    for rank in range(3):
        state = SimpleNamespace(process_index=rank, num_processes=3)
        monkeypatch.setattr(distributed, "state", lambda state=state: state)
        parts.append(distributed.share(things))
    assert [thing for part in parts for thing in part] == things
    assert list(map(len, parts)) == [3, 3, 1]


def test_a_run_from_a_notebook(small, launched):
    record = Store(launched / "store").get(small.identity())
    assert record["status"] == "done" and record["training"]["processes"] == 2


if __name__ == "__main__":
    launch(*sys.argv[1:])

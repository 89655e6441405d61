"""A run in several processes is the run in one: FSDP on processors stands in for that on GPUs."""

import json
import os
import subprocess
import sys

import pytest
import torch

from mlq_utils import modeling
from mlq_utils.experiments.store import Store
from mlq_utils.modeling import parallel as _parallel
from mlq_utils.modeling import prompts, training

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from mlq_utils.modeling import parallel as _parallel; from mlq_utils import modeling; from mlq_utils.modeling import prompts; from mlq_utils.modeling import training; from mlq_utils.modeling import translation
folder, out, strategy, checkpoint = sys.argv[1:5]
base = modeling.load(folder)
result = training.fine_tune(
    base, prompts.mixture({"ro": 27}), strategy,
    training.Schedule(1e-2, epochs=2, batch_size=8, warmup_steps=2),
    layers=[1] if strategy == "layers" else None, precision=sys.argv[5], progress=True,
    micro_batch=3, checkpoint=Path(checkpoint) if checkpoint else None, checkpoint_seconds=0,
)
texts = [prompts.translation("ro", text) for text in ("May 3", "France", "10 euros", "x", "Peru")]
frame = translation.translate(
    result.model.model.float(), base.tokenizer, texts, cap=9, bos_id=base.bos, eos_id=base.eos,
)
(Path(out) / f"{_parallel.rank()}.json").write_text(json.dumps({
    "losses": result.losses, "rank": _parallel.rank(), "of": _parallel.count(),
    "hypotheses": frame["hypothesis"].tolist(), "resumed": result.resumed_at,
    "agreed": _parallel.agreed(lambda: _parallel.rank()),
    "sum": {n: w.double().abs().sum().item() for n, w in result.model.model.named_parameters()},
    "trained": sorted(result.trained),
}))
"""


def launched(base, out, strategy, *, processes=2, checkpoint="", precision="fp32", launcher=None):
    """Run the script, and return what each process found."""
    out.mkdir(exist_ok=True)
    script = out / "script.py"
    script.write_text(SCRIPT)
    command = launcher or [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        f"--nproc-per-node={processes}",
    ]
    if processes == 1:
        command = [sys.executable]
    arguments = [script, base, out, strategy, checkpoint, precision]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("expecting") == 1  # one process speaks
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]


def assert_same(found, expected, **tolerance):
    assert found["losses"] == pytest.approx(expected["losses"], **tolerance)
    assert found["trained"] == expected["trained"]
    assert found["hypotheses"] == expected["hypotheses"]
    assert found["sum"] == pytest.approx(expected["sum"], **tolerance)


@pytest.mark.parametrize("strategy", ["embed", "full", "lora", "layers"])
def test_two_processes_compute_what_one_does(base, tmp_path, strategy):
    """Losses, weights and translations; batches of an odd number, too."""
    (one,) = launched(base, tmp_path / "one", strategy, processes=1)
    two = launched(base, tmp_path / "two", strategy)
    assert [(found["rank"], found["of"], found["agreed"]) for found in two] == [
        (0, 2, 0),
        (1, 2, 0),
    ]
    for found in two:
        assert_same(found, one, rel=1e-4)


def test_bf16_with_fp32_masters(base, tmp_path):
    (one,) = launched(base, tmp_path / "one", "full", processes=1, precision="bf16")
    for found in launched(base, tmp_path / "two", "full", precision="bf16"):
        assert found["losses"] == pytest.approx(one["losses"], rel=0.02)


def test_a_checkpoint_is_taken_up_by_another_number_of_processes(base, tmp_path):
    """Here one that stopped in the middle, of one process."""
    path = tmp_path / "checkpoint.safetensors"
    (one,) = launched(base, tmp_path / "one", "full", processes=1)
    schedule = training.Schedule(1e-2, epochs=2, batch_size=8, warmup_steps=2)
    real = training._due
    frame = prompts.mixture({"ro": 27})

    class Stop(Exception):
        pass

    def due(state, *arguments):
        if state["step"] == 4:
            raise Stop
        return real(state, *arguments)

    training._due = due
    try:
        with pytest.raises(Stop):
            training.fine_tune(
                modeling.load(base), frame, "full", schedule,
                precision="fp32", checkpoint=path, checkpoint_seconds=0, progress=False,
            )  # fmt: skip
    finally:
        training._due = real
    two = launched(base, tmp_path / "two", "full", checkpoint=path)
    for found in two:
        assert found["resumed"] == 3
        assert_same(found, one, rel=1e-4)
    (again,) = launched(base, tmp_path / "again", "full", processes=1, checkpoint=path)
    assert again["resumed"] == len(one["losses"])  # what two have written, one takes up
    assert_same(again, one, rel=1e-4)


def test_one_process_needs_no_group():
    assert (_parallel.count(), _parallel.rank(), _parallel.only()) == (1, 0, True)
    assert _parallel.gathered(_parallel.mine("abc"), 3) == ["a", "b", "c"]
    assert not torch.distributed.is_initialized()


def test_shares_are_put_together_in_order(monkeypatch):
    things = list("abcdefg")
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setattr(_parallel, "rank", lambda rank=rank: rank)
        parts.append(_parallel.mine(things))
    monkeypatch.setattr(_parallel, "state", lambda: None)
    monkeypatch.setattr(_parallel, "gather_object", lambda own: parts)
    assert _parallel.gathered(parts[0], 7) == things


def test_a_run_from_a_notebook(small, tmp_path):
    """By accelerate's function launcher, that of `notebook_launcher` for processors."""
    script = tmp_path / "cell.py"
    script.write_text(
        "from accelerate import debug_launcher\n"
        "from mlq_utils import experiments\n"
        "from mlq_utils.experiments import Spec\n"
        "from mlq_utils.experiments.store import Store\n"
        f"spec, store = {small!r}, Store({str(tmp_path / 'store')!r})\n"
        "if __name__ == '__main__':\n"
        "    debug_launcher(experiments.run, (spec, store), num_processes=2)\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = Store(tmp_path / "store").get(small.identity())
    assert record["status"] == "done" and record["training"]["processes"] == 2

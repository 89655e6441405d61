"""The first look at a GPU: what works there, what is equal to the CPU, and how fast it is.

    python -m benchmarks.gpu                       # every step, at the size of LLaMA-7B
    python -m benchmarks.gpu tuning decoding       # some steps
    python -m benchmarks.gpu --record              # also fills the rows of the performance page

The steps are ordered by what they are worth and take 15 minutes at most. Each runs in a process of
its own, so that an error or a hang costs that step alone, and its figures are written to
`_build/gpu.jsonl` when it ends. A second call goes on with the steps that are missing there. On a
machine without a GPU the steps run on the CPU with a tiny shape, which only shows that they work.
"""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import pandas as pd
import torch
import tyro
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import bench
from benchmarks import bench_at_size as at
from mlq_utils import corpora, modeling
from mlq_utils.modeling import checkpoint, prompts
from mlq_utils.modeling.distributed import hardware, placement

OUTPUT = Path("_build/gpu.jsonl")
PACKAGES = ("torch", "transformers", "accelerate", "peft", "safetensors", "sentencepiece")
PAIRS = 400
"""Pairs on which the mini base is tuned on a GPU. On a CPU a twenty-fifth of them will do."""
TOLERANCE = 1e-3
"""Largest difference of a loss in fp32 between a GPU and the CPU that is not a fault."""
POSITION = 300
"""Position at which rotary angles in bf16 are wrong beyond doubt if their frequencies are rounded:
by 0.37 radians for heads of width 128."""


def on_gpu() -> bool:
    """Return whether the steps run on a GPU."""
    return placement()[0].type == "cuda"


def pairs() -> pd.DataFrame:
    """Return prompts and targets from English to Romanian."""
    return prompts.mixture({"ro": PAIRS if on_gpu() else PAIRS // 25})


def environment(shape: str) -> dict[str, Any]:
    """Return what the machine is, and the speed of its matrix products and of its memory."""
    device = placement()[0]
    found: dict[str, Any] = {
        "hardware": hardware(),
        "versions": {name: version(name) for name in PACKAGES} | {"python": sys.version.split()[0]},
        "matrix_teraflops": at.matrix_rate() / 1e12,
        "disk_free_gigabytes": shutil.disk_usage(".").free / 1e9,
        "allocator": os.environ.get(
            "PYTORCH_ALLOC_CONF", os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
        ),
    }
    if on_gpu():
        card = torch.cuda.get_device_properties(device)
        one = torch.empty(2**30, dtype=torch.uint8, device=device)
        seconds = timed(lambda: one.clone())
        found |= {
            "memory_gigabytes": card.total_memory / 1e9,
            "capability": f"{card.major}.{card.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "memory_gigabytes_per_second": 2 * one.numel() / seconds / 1e9,
        }
    return found


def mini(shape: str) -> dict[str, Any]:
    """Compare tuning and translation of the mini base with the CPU, and with themselves."""
    found: dict[str, Any] = {}
    device, cpu = placement()[0], torch.device("cpu")
    frame = pairs()
    for strategy in (s for s in modeling.STRATEGIES if s != "rows"):
        here, again = (tuned(strategy, frame, device, "fp32").losses for _ in range(2))
        there = tuned(strategy, frame, cpu, "fp32").losses if on_gpu() else again
        narrow = tuned(strategy, frame, device, "auto").losses
        found[strategy] = {
            "difference_to_cpu": difference(here, there),
            "difference_of_two_runs": difference(here, again),
            "difference_of_bf16": difference(here, narrow),
            "equal_to_cpu": difference(here, there) <= TOLERANCE,
        }
    whole = tuned("embed", frame, device, "fp32")
    found["difference_after_resuming"] = difference(whole.losses, resumed(frame, device))
    found["translation"] = same_translations(whole.model)
    return found


def tuned(
    strategy: str,
    frame: pd.DataFrame,
    device: torch.device,
    precision: str,
    schedule: modeling.Schedule | None = None,
    **options: Any,
) -> modeling.Result:
    """Tune the mini base on a device, for one epoch if there is no schedule."""
    base = modeling.load("mini")
    base.model.to(device)
    schedule = schedule or modeling.Schedule.mini(strategy, epochs=1, batch_size=4)
    layers = (0,) if strategy == "layers" else None
    return modeling.fine_tune(
        base, frame, strategy, schedule, layers=layers, precision=precision, progress=False,
        **options,
    )  # fmt: skip


def resumed(frame: pd.DataFrame, device: torch.device) -> list[float]:
    """Return the losses of a run that was interrupted at its third checkpoint and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.safetensors")
        options = {"checkpoint": path, "checkpoint_seconds": 0}
        save, calls = checkpoint.save, []

        def interrupted(*args: Any) -> None:
            save(*args)
            calls.append(args)
            if len(calls) == 3:
                raise KeyboardInterrupt

        try:
            with mock.patch.object(checkpoint, "save", interrupted):
                tuned("embed", frame, device, "fp32", **options)
        except KeyboardInterrupt:
            pass
        return tuned("embed", frame, device, "fp32", **options).losses


def same_translations(base: modeling.Model) -> dict[str, float]:
    """Return the share of sentences that are translated as on the CPU, and as by `generate`."""
    test = corpora.load("cldr", "ro", "test", size=40 if on_gpu() else 2)
    asked = [prompts.translation("ro", source) for source in test["source"]]
    ids = [[base.bos, *row] for row in base.tokenizer.encode(asked)]

    def found(**options: Any) -> list[list[int]]:
        out = modeling.beam_search(base.model, ids, max_new_tokens=48, eos_id=base.eos, **options)
        return [output.ids for output in out]

    here, generate = found(), found(engine="generate")
    base.model.cpu()
    there = found()
    return {"as_on_cpu": agreement(here, there), "as_generate": agreement(here, generate)}


def precision(shape: str) -> dict[str, Any]:
    """Look at rotary angles in bf16, at a tuned folder that is translated with, and at leaks."""
    base = at.random_base("tiny")
    base.model.float()
    fast = modeling.for_translation(base).model
    device = placement()[0]
    exact = type(base.model.model.rotary_emb)(base.model.config).to(device)
    values = torch.zeros(1, device=device)
    place = torch.tensor([[POSITION]], device=device)
    found = {
        "largest_error_of_cos_and_sin": max(
            (a - b).abs().max().item()
            for a, b in zip(fast.model.rotary_emb(values, place), exact(values, place), strict=True)
        )
    }
    frame = pairs()
    for strategy in ("embed", "full"):
        result = tuned(strategy, frame, device, "auto")
        with tempfile.TemporaryDirectory() as folder:
            modeling.export(result.model, Path(folder))
            loaded = modeling.load(folder, dtype=placement()[1])
            loaded.model.to(device)
            fast = modeling.for_translation(loaded)
            ids = fast.model(torch.tensor([[1, 2, 3]], device=device)).logits
            found[f"{strategy}_folder_computes_in"] = str(ids.dtype).removeprefix("torch.")
    if on_gpu():
        del result, loaded, fast, ids
        gc.collect()
        before = torch.cuda.memory_allocated()
        for _ in range(2):
            try:
                wild = modeling.Schedule.mini("full", learning_rate=1e30)
                tuned("full", frame, device, "auto", wild)
            except FloatingPointError:
                continue
        gc.collect()
        found["bytes_that_failed_runs_keep"] = torch.cuda.memory_allocated() - before
    return found


def tuning(shape: str) -> dict[str, Any]:
    """Measure Embed FT and full FT at the paper's batch, and what memory they take."""
    found: dict[str, Any] = {"rows": {}}
    size = (8, 128) if on_gpu() else (2, 4)
    for strategy in at.FLOPS:
        with observed() as seen:
            found["rows"] |= at.tuning(shape, *size, strategies=(strategy,))
        found[strategy] = seen
    return found


def decoding(shape: str) -> dict[str, Any]:
    """Measure beam search against `generate` at its default batch and at an equal one."""
    size = (256, 96) if on_gpu() else (4, 6)
    # The rows come last, since they load the kernels without which a search is cold.
    return searches(shape, *size) | {"rows": at.decoding(shape, *size)}


def searches(shape: str, count: int, cap: int) -> dict[str, Any]:
    """Time searches cold and warm, by batch and by cap, and `generate` at an equal batch."""
    found: dict[str, Any] = {}
    base = at.random_base(shape)
    fast = modeling.for_translation(base)
    asked = [[1, *ids] for ids in base.tokenizer.encode(list(at.sentences(count)["prompt"]))]

    def search(**options: Any) -> float:
        return timed(
            lambda: modeling.beam_search(
                fast.model, asked, eos_id=base.eos, **({"max_new_tokens": cap} | options)
            )
        )

    with observed() as seen:
        found["cold_seconds"], found["warm_seconds"] = search(), search()
        for batch in (128, 256):
            found[f"seconds_batch_{batch}"] = search(batch_size=batch)
        found["generate_seconds_batch_128"] = search(engine="generate", batch_size=128)
        found["ratio_at_equal_batch"] = (
            found["generate_seconds_batch_128"] / found["seconds_batch_128"]
        )
        asked = asked[: count // 2]
        found["seconds_cap_600"] = search(max_new_tokens=600 if on_gpu() else 12)
    return found | seen


def recipe(shape: str) -> dict[str, Any]:
    """Measure Embed FT against the paper's released recipe."""
    return {"rows": at.against_recipe(shape, 128 if on_gpu() else 2)}


def attention(shape: str) -> dict[str, Any]:
    """Time each attention kernel, and the first call at lengths that it has not seen yet."""
    device, dtype = placement()
    heads = at.SHAPES[shape]["hidden_size"] // at.HEAD_WIDTH[shape]

    def attend(length: int, rows: int = 16, **options: Any) -> None:
        size = rows, heads, length, at.HEAD_WIDTH[shape]
        query = torch.randn(size, device=device, dtype=dtype, requires_grad=True)
        scaled_dot_product_attention(query, query, query, is_causal=True).sum().backward()

    found: dict[str, Any] = {}
    kernels = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
    for name in kernels:
        try:
            with warnings.catch_warnings(), sdpa_kernel(getattr(SDPBackend, name)):
                warnings.simplefilter("ignore")  # each reason that a kernel cannot be used
                attend(128)
                found[name] = timed(lambda: attend(128))
        except RuntimeError as error:
            found[name] = f"cannot be used: {str(error).splitlines()[0]}"
    usual = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        for enabled, start in ((True, 65), (False, 66)):  # odd, then even lengths: all are new
            torch.backends.cuda.enable_cudnn_sdp(enabled)
            attend(64)
            seconds = [timed(lambda n=n: attend(n)) for n in range(start, start + 40, 2)]
            what = "with" if enabled else "without"
            found[f"milliseconds_new_length_{what}_cudnn"] = 1e3 * sum(seconds) / len(seconds)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(usual)
    return found


def memory(shape: str) -> dict[str, Any]:
    """Tune and translate a smaller model in a tenth of the memory."""
    small = "llama-1b" if on_gpu() else "tiny"
    if on_gpu():
        torch.cuda.set_per_process_memory_fraction(0.1)
    found: dict[str, Any] = {"shape": small}
    frame = at.sentences(256 if on_gpu() else 4)
    for strategy in ("embed", "lora"):  # the masters of full FT alone would not fit
        base = at.random_base(small)
        schedule = modeling.Schedule.paper(strategy, epochs=1)
        with observed() as seen:
            done = modeling.fine_tune(base, frame, strategy, schedule, progress=False)
        found[strategy] = seen | {
            "micro_batch_tokens": done.micro_batch_tokens,
            "peak_vs_estimate": ratio(done.peak_bytes, done.estimated_peak_bytes),
            "time_vs_estimate": ratio(done.seconds, done.estimated_seconds),
        }
        del base, done
        gc.collect()
    base = modeling.for_translation(at.random_base(small))
    asked = [[1, *ids] for ids in base.tokenizer.encode(list(frame["prompt"]))]
    with observed() as seen:
        modeling.beam_search(
            base.model, asked, max_new_tokens=256 if on_gpu() else 4, eos_id=base.eos,
            batch_size=256,
        )  # fmt: skip
    return found | {"beam_search": seen}


def saving(shape: str) -> dict[str, Any]:
    """Time what Embed FT writes: the tuned embeddings, and a checkpoint."""
    base = at.random_base(shape)
    model = modeling.prepare(base.model, "embed")
    weights = modeling.trainable(model)
    optimizer = torch.optim.AdamW(weights.values(), 1e-5, fused=True)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    with tempfile.TemporaryDirectory(dir=".") as folder:  # on the disk that runs are kept on
        path = Path(folder)
        trained = {name: weight.detach() for name, weight in weights.items()}
        save = timed(lambda: save_file(trained, path / "trained.safetensors"))
        state = path / "checkpoint.safetensors"
        point = timed(lambda: checkpoint.save(state, "run", {}, weights, optimizer.state))
        return {
            "seconds_to_save": save,
            "gigabytes": (path / "trained.safetensors").stat().st_size / 1e9,
            "seconds_for_a_checkpoint": point,
            "gigabytes_of_a_checkpoint": state.stat().st_size / 1e9,
        }


def profile(shape: str) -> dict[str, Any]:
    """Return the operations that take the most time in two steps of full FT and of Embed FT."""
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU, activity.CUDA][: 1 + on_gpu()]
    order = "self_device_time_total" if on_gpu() else "self_cpu_time_total"
    found = {}
    for strategy in at.FLOPS:
        base = at.random_base(shape)
        size = 128 if on_gpu() else 2
        schedule = modeling.Schedule.paper(strategy, epochs=1, batch_size=size)
        frame = at.sentences(2 * size)
        with torch.profiler.profile(activities=kinds) as profiler:
            modeling.fine_tune(base, frame, strategy, schedule, progress=False)
        events = sorted(profiler.key_averages(), key=lambda e: -getattr(e, order))
        whole = sum(getattr(e, order) for e in events)
        found[strategy] = {e.key[:80]: round(getattr(e, order) / whole, 3) for e in events[:12]}
        del base, profiler, events
        gc.collect()
    return found


def tests(shape: str) -> dict[str, Any]:
    """Run the package's tests of training and translation."""
    if not on_gpu():
        return {"result": "on a machine without a GPU, make test runs them"}
    files = [f"tests/modeling/test_{n}.py" for n in ("training", "translation", "modeling")]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "4", "--tb=short", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"result": lines[-1] if lines else "no output", "failed": failed[:40]}


STEPS: dict[str, tuple[Callable[[str], dict[str, Any]], int]] = {
    "environment": (environment, 60),
    "mini": (mini, 150),
    "precision": (precision, 90),
    "tuning": (tuning, 200),
    "decoding": (decoding, 240),
    "recipe": (recipe, 120),
    "attention": (attention, 60),
    "memory": (memory, 150),
    "saving": (saving, 60),
    "profile": (profile, 90),
    "tests": (tests, 240),
}
"""The steps, the most worth first, and the seconds after which each is stopped."""


def difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest difference of two lists of losses."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def agreement(one: Sequence, other: Sequence) -> float:
    """Return the share of equal elements."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def ratio(measured: float | None, estimated: float | None) -> float | None:
    """Return measured over estimated, or None if either is unknown."""
    return measured / estimated if measured and estimated else None


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that a function takes, with all that it started on the GPU."""
    device = placement()[0]
    at.wait(device)
    start = time.perf_counter()
    function()
    at.wait(device)
    return time.perf_counter() - start


@contextmanager
def observed() -> Iterator[dict[str, Any]]:
    """Collect warnings, and on a GPU what torch allocated, reserved and tried again."""
    seen: dict[str, Any] = {}
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
        tries = torch.cuda.memory_stats()["num_alloc_retries"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield seen
    seen["warnings"] = [str(w.message)[:200] for w in caught if w.category is UserWarning]
    if on_gpu():
        stats = torch.cuda.memory_stats()
        seen |= {
            "allocated_gigabytes": stats["allocated_bytes.all.peak"] / 1e9,
            "reserved_gigabytes": stats["reserved_bytes.all.peak"] / 1e9,
            "allocation_retries": stats["num_alloc_retries"] - tries,
        }


def alone(name: str, shape: str, path: str) -> None:
    """Run a step in this process, and write its figures or its error to a file."""
    start = time.perf_counter()
    try:
        found = {"figures": STEPS[name][0](shape)}
    except Exception as error:
        lines = traceback.format_exc().splitlines()[-12:]
        found = {"error": f"{type(error).__name__}: {error}", "traceback": lines}
    found |= {"seconds": round(time.perf_counter() - start, 1)}
    Path(path).write_text(json.dumps(found), "utf8")


def apart(name: str, shape: str, limit: float) -> dict[str, Any]:
    """Run a step in a process of its own for at most `limit` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        script = f"from benchmarks.gpu import alone; alone({name!r}, {shape!r}, {str(path)!r})"
        # A session of its own, so that a step is stopped with the processes that it has started.
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=sys.stderr,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"error": f"stopped after {limit:.0f} seconds", "seconds": limit}
        if path.exists():
            return json.loads(path.read_text("utf8"))
        return {"error": f"the process ended with status {process.returncode}"}


def known(path: Path) -> dict[str, dict[str, Any]]:
    """Return the last line of each step in a file of results. A line that was cut off is left."""
    found = {}
    for line in path.read_text("utf8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["step"]] = entry
    return found


def main(
    names: tuple[Literal[*STEPS], ...] = (),
    /,
    *,
    shape: Literal[*at.SHAPES] | None = None,
    minutes: float = 15,
    output: Path = OUTPUT,
    record: bool = False,
) -> None:
    """Take the steps that are not in the file of results yet, and print what they found.

    Args:
        names: Steps to take, even if the file has them. Defaults to all that it lacks.
        shape: Shape of the large model. Defaults to "llama-7b" on a GPU and "tiny" elsewhere.
        minutes: Time for all steps together. Steps for which none is left are named.
        output: File of results, one JSON object per line and step.
        record: Whether to write the rows of the performance page into the package.
    """
    began = time.perf_counter()
    shape = shape or ("llama-7b" if on_gpu() else "tiny")
    output.parent.mkdir(parents=True, exist_ok=True)
    done = {name for name, entry in known(output).items() if "figures" in entry}
    for name in names or [name for name in STEPS if name not in done]:
        left = 60 * minutes - (time.perf_counter() - began)
        if left <= 0:
            print(f"{name}: no time left", flush=True)
            continue
        entry = {"step": name, "shape": shape} | apart(name, shape, min(left, STEPS[name][1]))
        with output.open("a", encoding="utf8") as file:
            file.write(json.dumps(entry) + "\n")
        print(json.dumps(entry, indent=1), flush=True)
    rows = {
        f"{entry['shape']} {key}": row
        for entry in known(output).values()
        for key, row in entry.get("figures", {}).get("rows", {}).items()
    }
    bench.keep(rows, record=record)
    measured = pd.DataFrame.from_dict(rows, orient="index").assign(hardware=hardware())
    print(at.targets(measured, [shape]).to_string(index=False))


if __name__ == "__main__":
    tyro.cli(main)

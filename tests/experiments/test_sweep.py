"""The command that plans the paper's runs and makes them."""

import dataclasses
import signal
import subprocess
import sys
import time

import pytest

from mlq_utils import cli, experiments
from mlq_utils.experiments import Spec, planning, scales, sweep
from mlq_utils.experiments.scales import MINI, PAPER
from mlq_utils.experiments.store import Store


@pytest.fixture
def listed(small, monkeypatch):
    """Two runs, in the place of all the paper's."""
    asked = []

    def specs(tables, scale):
        if tables and tables[0] not in ("2", "12", "figure 2"):
            raise ValueError(f"unknown table {tables[0]}")
        asked.append((tables, scale))
        return [
            dataclasses.replace(
                small, seed=n, base=scale.untuned.base, revision=scale.untuned.revision
            )
            for n in range(2)
        ]

    monkeypatch.setattr(experiments.tables, "specs", specs)
    monkeypatch.setitem(
        scales.SCALES, "mini", dataclasses.replace(MINI, untuned=Spec(base=small.base))
    )
    return asked


def test_tables_and_scales_are_asked_for(listed, small, capsys):
    assert cli.main(["sweep", "plan"]) == 0
    assert "huggyllama/llama-7b" in capsys.readouterr().out
    chosen = ["--tables", "2", "figure 2", "--base", small.base]
    assert cli.main(["sweep", "plan", *chosen]) == 0
    assert [tables for tables, _ in listed] == [None, ("2", "figure 2")]
    assert [scale.untuned.base for _, scale in listed] == [PAPER.untuned.base, small.base]
    assert cli.main(["sweep", "plan", "--scale", "huge"]) == 2
    assert "unknown scale 'huge'" in capsys.readouterr().err


def test_what_every_run_would_fail_by_is_told_before_any(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "run_all", lambda *_, **__: pytest.fail("run"))
    assert cli.main(["sweep", "run", "--tables", "12", "--store", str(tmp_path / "store")]) == 2
    assert "the Hub cannot be reached" in capsys.readouterr().err


def test_a_plan_is_shown_and_nothing_run(listed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiments, "run", lambda *_, **__: pytest.fail("it ran"))
    store = tmp_path / "store"
    assert cli.main(["sweep", "plan", "--store", str(store), "--card", "H200", "--price", "4"]) == 0
    shown = capsys.readouterr().out
    frame = planning.plan(experiments.tables.specs(None, PAPER), card="H200", price=4)
    whole = planning.totals(frame)
    assert (
        f"2 runs, of which 0 are done; the others take {whole['hours']:.1f} hours of one H200"
        in (shown)
    )
    assert f"Money at 4 an hour: {whole['money']:,.0f}" in shown
    assert "embed: tuning at 0.55 of 989.4 TFLOP/s, assumed" in shown
    assert max(map(len, shown.splitlines()[:3])) < 140 and not store.exists()


def test_a_card_that_is_too_small_is_told():
    spec = dataclasses.replace(
        PAPER.untuned, languages=("ro",), strategy="full", corpus=("lego_mt",)
    )
    shown = [sweep.described(planning.plan([spec], card=card)) for card in ("H100", "H200")]
    assert "MORE than the 75 GiB" in shown[0] and "MORE" not in shown[1]


def test_runs_are_made_and_found_again(listed, tmp_path, capsys):
    arguments = ["sweep", "run", "--scale", "mini", "--workers", "1", "--store", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "All 2 runs are done." in capsys.readouterr().out
    made = experiments.tables.specs(None, scales.SCALES["mini"])
    assert [Store(tmp_path).get(spec.identity())["status"] for spec in made] == ["done"] * 2
    assert cli.main(arguments) == 0
    assert "2 runs, of which 2 are done; the others take 0.0 hours" in capsys.readouterr().out


def test_failures_are_told_and_seen_by_the_shell(listed, small, tmp_path, capsys, monkeypatch):
    bad = dataclasses.replace(small, corpus=("ted",), test=("flores200", "devtest"), seed=5)
    monkeypatch.setattr(experiments.tables, "specs", lambda *_: [bad])
    monkeypatch.setenv("MLQ_DATA", str(tmp_path))
    monkeypatch.setenv("SACREBLEU", str(tmp_path))
    arguments = [
        "sweep",
        "run",
        "--scale",
        "mini",
        "--workers",
        "1",
        "--store",
        str(tmp_path / "s"),
    ]
    with pytest.raises(SystemExit) as caught:  # Python prints the text and exits with status 1
        cli.main(arguments)
    assert "1 of 1 runs failed:\n  1 × " in caught.value.code and "(as ro, embed)" in str(caught)


def test_failures_are_counted_by_what_failed():
    def record(status, error=None):
        return {"status": status, "error": error, "spec": {"languages": [], "strategy": "full"}}

    shown = sweep.failures([record("failed", "a"), record("failed", "b"), record("failed", "a")])
    assert shown.splitlines()[0] == "3 of 3 runs failed:"
    assert "2 × a (as untuned, full)" in shown and "1 × b" in shown
    assert sweep.failures([record("done")]) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--tables", "99"], "unknown table 99"),
        (["plan", "--scale", "huge"], "unknown scale 'huge'"),
        (["plan", "--card", "H20"], "unknown card 'H20'"),
        (["plan", "--base", "nobody/nothing"], "the Hub cannot be reached"),
    ],
)
def test_bad_input_is_one_line(arguments, message, listed, capsys, tmp_path):
    assert cli.main(["sweep", *arguments, "--store", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_ctrl_c_ends_it_in_a_line(small, tmp_path):
    """Whatever it is at, and what is done stays."""
    script = tmp_path / "start.py"
    script.write_text(
        "import dataclasses, sys\n"
        "from mlq_utils import cli\n"
        "from mlq_utils.experiments import Spec, tables\n"
        "if __name__ == '__main__':\n"
        f"    spec = Spec(**{dataclasses.asdict(small)!r})\n"
        "    specs = [dataclasses.replace(spec, seed=n) for n in range(500)]\n"
        "    tables.specs = lambda *_: specs\n"
        "    import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    sys.exit(cli.main(['sweep', 'run', '--scale', 'mini', '--workers', '1', '--store',"
        f" {str(tmp_path / 'store')!r}]))\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=-1, stderr=-1, text=True)
    store = Store(tmp_path / "store")
    while len(list(store.keys())) < 1 and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Finished work is kept" in said and "Traceback" not in said
    # Keys with a hyphen are targets of the run in flight, which took long.
    whole = [key for key in store.keys() if "-" not in key]  # noqa: SIM118
    assert all(store.get(key)["status"] == "done" for key in whole)

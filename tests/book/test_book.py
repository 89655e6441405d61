"""The pipeline on a book of one notebook: what it reuses, what it refuses, what it leaves."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import nbformat
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlq_utils import languages, paper
from mlq_utils.book import execution, pages, preflight
from mlq_utils.book import pipeline as book
from mlq_utils.cli import main

DECLARED = """from typing import Optional

threshold: Optional[float] = None  # Threshold in spBLEU points.
languages: list[str] = ["af"]  # Languages to tune on."""
CHECK = "from mlq_utils.book import pages\n\npages.check_parameters(globals())"


def notebook(*cells, kernel="python3"):
    made = new_notebook(
        metadata={"kernelspec": {"name": kernel, "display_name": "a kernel", "language": "python"}}
    )
    made.cells = [
        new_markdown_cell("# A chapter\n\n$$ y = x^2 $$"),
        new_code_cell(DECLARED, metadata={"tags": ["parameters"]}),
        new_code_cell(CHECK),
        *map(new_code_cell, cells),
    ]
    return made


@pytest.fixture
def toy(tmp_path, root):
    """A repository whose book has a page, a chapter and references."""
    for page, text in {
        "intro": "# Intro\n\nFrom {glue:text}`../notebooks/chapter.ipynb::share:.1f` {cite}`a`.\n",
        "references": "# References\n\n```{bibliography}\n```\n",
    }.items():
        path = tmp_path / f"book/{page}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf8")
    (tmp_path / "book/references.bib").write_text(
        "@misc{a, title = {T}, author = {B, C}, year = {2020}}", "utf8"
    )
    (tmp_path / "book/_static").mkdir()
    shutil.copy(root / "_config.yml", tmp_path)
    toc = {"format": "jb-book", "root": "book/intro"}
    toc["chapters"] = [{"file": "notebooks/chapter"}, {"file": "book/references"}]
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc), "utf8")
    (tmp_path / "notebooks/params/smoke").mkdir(parents=True)
    write(tmp_path, notebook("from myst_nb import glue", "glue('share', 2.25, display=False)"))
    parameters(tmp_path, threshold=3)
    return tmp_path


def write(root, made):
    nbformat.write(made, root / "notebooks/chapter.ipynb")


def parameters(root, **values):
    path = root / "notebooks/params/smoke/chapter.yaml"
    path.write_text(yaml.safe_dump(values), "utf8")


def run(root):
    """Execute the chapter if it is out of date, and return the executed notebook."""
    listed = book.chapters(root, "smoke")
    execution.execute([chapter for chapter in listed if chapter.is_outdated("")], "")
    return listed[0].executed


def runs(root):
    return [path.name for path in (root / "_build").rglob("chapter*")]


@pytest.fixture
def command(toy, monkeypatch, capsys):
    """Run `mlq book` in the toy repository; return its status, output and messages."""
    monkeypatch.chdir(toy)

    def call(**environment):
        with mock.patch.dict(os.environ, environment):  # the command sets variables, too
            status = main(["book", "--profile", "smoke"])
        return status, *capsys.readouterr()

    return call


def test_the_command_makes_a_site_and_reuses_its_runs(toy, command, machine_paths):
    status, shown, said = command()
    assert status == 0, said
    assert shown.strip() == str(toy / "_build/html/index.html")
    assert "From 2.2" in (toy / "_build/html/book/intro.html").read_text("utf8").replace(
        '<span class="pasted-text">', ""
    )
    page = (toy / "_build/html/notebooks/chapter.html").read_text("utf8")
    assert "threshold" in page
    for absent in ("colab", "mybinder", "Open issue", "executablebooks/jupyter-book"):
        assert absent not in page
    assert not machine_paths.search(page) and str(toy) not in page
    assert said.splitlines()[0] == "notebooks/chapter.ipynb: running"
    assert not list((toy / "_build").glob("site-*"))

    _, _, again = command()
    assert again.splitlines()[0] == "notebooks/chapter.ipynb: unchanged"


def test_ctrl_c_ends_it_in_one_line_and_runs_go_to_one_store(toy):
    waits = """
from pathlib import Path
import time
from mlq_utils import experiments

Path("store").write_text(str(experiments.STORE))
Path("started").touch()
time.sleep(600)
"""
    write(toy, notebook(waits))
    process = subprocess.Popen(
        [sys.executable, "-m", "mlq_utils", "book", "--profile", "smoke"],
        cwd=toy,
        env={name: value for name, value in os.environ.items() if name != "MLQ_STORE"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background inherit that SIGINT is ignored; a terminal's do not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    started = toy / "_build/scratch/started"
    while not started.exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all that runs in it
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    expected = "mlq: interrupted. Finished work is kept. Start again to go on."
    assert said.splitlines()[-1] == expected
    assert "Traceback" not in said
    assert (toy / "_build/scratch/store").read_text() == str(toy.resolve() / "_build/store")


def test_the_address_brings_the_buttons_and_installs_on_colab(toy, monkeypatch):
    config = yaml.safe_load((toy / "_config.yml").read_text("utf8"))
    config["repository"]["url"] = "https://github.com/someone/somewhere"
    (toy / "_config.yml").write_text(yaml.safe_dump(config), "utf8")
    committed = (toy / "notebooks/chapter.ipynb").read_bytes()
    site = book.make(toy, "smoke").parent
    page = (site / "notebooks/chapter.html").read_text("utf8")
    assert "A chapter" in page.split("</title>")[0]
    staged = nbformat.read(toy / "_build/source/smoke/notebooks/chapter.ipynb", as_version=4)
    install = next(cell.source for cell in staged.cells if cell.cell_type == "code")
    assert 'if "google.colab" in sys.modules:' in install
    assert "git+https://github.com/someone/somewhere" in install
    shell = InteractiveShell.instance()
    ran = []
    shell.register_magic_function(ran.append, magic_name="pip")
    assert shell.run_cell(install).success and ran == []
    monkeypatch.setitem(sys.modules, "google.colab", None)
    assert shell.run_cell(install).success
    assert ran == ['install "mlq_utils[book] @ git+https://github.com/someone/somewhere"']
    assert (toy / "notebooks/chapter.ipynb").read_bytes() == committed
    for address in (
        "https://github.com/someone/somewhere/issues/new",
        "https://github.com/someone/somewhere/edit/main/notebooks/chapter.ipynb",
        "https://colab.research.google.com/",
        "https://mybinder.org/",
    ):
        assert address in page


def test_a_run_is_reused_until_something_changes(toy):
    damaged = toy / "_build/runs/smoke/notebooks/chapter.ipynb"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{", "utf8")
    first = run(toy)
    written = first.stat().st_mtime_ns
    assert run(toy).stat().st_mtime_ns == written
    parameters(toy, threshold=4)
    assert run(toy).stat().st_mtime_ns > written
    executed = nbformat.read(first, as_version=4)
    assert "threshold = 4" in executed.cells[2].source
    assert "remove-cell" in executed.cells[2].metadata.tags
    assert "papermill" not in executed.metadata


def test_inputs_key_sees_pins_and_data(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("MLQ_DATA", str(data))
    keys = {execution.inputs_key(tmp_path)}
    (tmp_path / "constraints.txt").write_text("babel==2.18.0", "utf8")
    keys.add(execution.inputs_key(tmp_path))
    (data / "file").write_text("one", "utf8")
    keys.add(execution.inputs_key(tmp_path))
    assert len(keys) == 3
    assert execution.inputs_key(tmp_path) in keys


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thresh": 3}, r"unknown parameter 'thresh'. Did you mean threshold\?"),
        ({"threshold": "3"}, r"'threshold' must be .*float.*, not str"),
        ({"threshold": True}, r"'threshold' must be .*float.*, not bool"),
        ({"languages": "af"}, r"'languages' must be list\[str\], not str"),
        ({"languages": ["af", 1]}, r"'languages' must be list\[str\], not list"),
    ],
)
def test_bad_parameters_stop_before_anything_runs(toy, given, message):
    parameters(toy, **given)
    with pytest.raises(ValueError, match=message):
        book.make(toy, "smoke")
    assert not (toy / "_build").exists()


def test_bad_input_is_one_line_and_status_2(toy, command):
    parameters(toy, bogus=1)
    status, _, said = command()
    assert status == 2
    (line,) = said.splitlines()
    assert line.startswith("mlq: error: notebooks/chapter.ipynb") and "bogus" in line
    parameters(toy)
    status, _, said = command(MLQ_DATA="no/such/folder")
    assert status == 2 and "does not exist" in said
    assert not (toy / "_build").exists()


def damaged(folder):
    """A FLORES-200 of which one file ends in the middle."""
    for language in languages.table()["flores"]:
        path = folder / "flores200_dataset/devtest" / f"{language}.devtest"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("sentence\n" * (700 if language == "khm_Khmr" else 1012), "utf8")
    return "khm_Khmr.devtest.*700.*1012"


def lacking(folder):
    message = damaged(folder)
    (folder / "flores200_dataset/devtest/khm_Khmr.devtest").unlink()
    return message.split(".*")[0]


@pytest.mark.parametrize("damage", [damaged, lacking])
def test_damaged_data_stops_before_anything_runs(toy, tmp_path, monkeypatch, damage):
    message = damage(tmp_path / "data")
    monkeypatch.setenv("MLQ_DATA", str(tmp_path / "data"))
    with pytest.raises(book.BookError, match=message):
        book.make(toy, "smoke")
    assert not (toy / "_build").exists()


def test_an_edited_table_stops_before_anything_runs(toy, tmp_path, monkeypatch):
    tables = shutil.copytree(paper.FOLDER, tmp_path / "paper")
    monkeypatch.setattr(paper, "FOLDER", tables)
    path = tables / "table_14.csv"
    text = path.read_text("utf8")
    first_average = next(line for line in text.splitlines() if ",AVG," in line)
    path.write_text(text.replace(first_average, first_average.rsplit(",", 1)[0] + ",99.9"), "utf8")
    with pytest.raises(book.BookError, match=r"table_14.csv"):
        book.make(toy, "smoke")
    assert not (toy / "_build").exists()


def test_all_that_the_paper_profile_lacks_is_named_before_anything_runs(
    root, toy, command, monkeypatch
):
    monkeypatch.setenv("MLQ_DATA", str(toy))
    monkeypatch.setenv("XDG_CACHE_HOME", str(toy / "cache"))
    monkeypatch.setenv("SACREBLEU", str(toy))
    monkeypatch.setattr(preflight, "_online", lambda address: False)
    monkeypatch.delenv("MLQ_CLUSTER", raising=False)
    folder = root / "notebooks/params/paper"
    given = [
        yaml.safe_load((folder / f"{name}.yaml").read_text("utf8"))
        for name in ("altruistic", "tables", "tables")
    ]
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    lacking = preflight.missing(given)
    assert len(lacking) == len(set(lacking))
    for wanted in (
        "the weights of huggyllama/llama-7b",
        "mgsm/mgsm_bn.tsv is missing from",
        "no tokenizer 'huggyllama/llama-7b'",
        "the corpus lego_mt, which cannot be downloaded",
        "the corpus ted, which cannot be downloaded without",
        "the corpus mc4, which cannot be downloaded without",
        "the corpus flores200, which cannot",
        "flores101 model",
        "a GPU, for runs of huggyllama/llama-7b",
        "lm-eval",
    ):
        assert sum(wanted in line for line in lacking) == 1, wanted

    monkeypatch.setattr(preflight, "missing", lambda chapters: ["the weights", "the corpus"])
    status, shown, said = command()
    assert (status, shown) == (1, "")
    first, *others = said.splitlines()
    assert first == "error: the profile 'smoke' lacks what it needs on this machine:"
    assert others == ["  * the weights", "  * the corpus"]
    assert not (toy / "_build").exists()


def test_a_network_or_local_files_are_enough(tmp_path, monkeypatch):
    monkeypatch.setattr("mlq_utils.experiments.tables.specs", lambda scale: [])  # none is left
    assert preflight.missing([{"scale": "paper", "runs_at_most": None}]) == []
    (tmp_path / "model.safetensors").touch()
    assert list(preflight._weights(str(tmp_path), None)) == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(preflight, "_online", lambda address: True)
    assert list(preflight._weights("owner/name", "main")) == []
    assert list(preflight._corpus("ted")) == []
    assert preflight.missing([{"tokenizer": None, "corpus": "cldr", "scale": "mini"}]) == []


def test_what_is_missing_is_named(toy):
    with pytest.raises(ValueError, match=r"unknown profile 'mini'.*smoke"):
        book.chapters(toy, "mini")
    write(toy, notebook(kernel="no-such-kernel"))
    with pytest.raises(book.BookError, match="No such kernel named no-such-kernel"):
        run(toy)
    write(toy, notebook())
    (toy / "notebooks/params/smoke/chapter.yaml").unlink()
    with pytest.raises(ValueError, match=r"chapter.yaml does not exist"):
        book.chapters(toy, "smoke")
    (toy / "notebooks/params/smoke/chapter.yaml").write_text("[a, list]", "utf8")
    with pytest.raises(ValueError, match=r"chapter\.yaml: "):
        book.chapters(toy, "smoke")
    (toy / "notebooks/chapter.ipynb").write_text("{", "utf8")
    with pytest.raises(ValueError, match=r"chapter\.ipynb, .*JSON"):
        book.chapters(toy, "smoke")
    (toy / "notebooks/chapter.ipynb").unlink()
    with pytest.raises(ValueError, match=r"_toc.yml lists 'notebooks/chapter'"):
        book.chapters(toy, "smoke")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1 / 0", r"chapter.ipynb, In \[4\]: ZeroDivisionError: division by zero"),
        ("import os\nos._exit(1)", "chapter.ipynb: .*[Kk]ernel died"),
    ],
)
def test_a_run_that_fails_leaves_no_page(toy, cell, message):
    write(toy, notebook(cell))
    with pytest.raises(book.BookError, match=message):
        book.make(toy, "smoke")
    assert runs(toy) == []
    assert not (toy / "_build/html").exists()


def test_a_site_that_does_not_build_leaves_the_former(toy):
    former = toy / "_build/html/index.html"
    former.parent.mkdir(parents=True)
    former.write_text("former", "utf8")
    (toy / "book/intro.md").write_text("# Intro\n\n{doc}`nowhere`\n", "utf8")
    with pytest.raises(book.BookError, match="nowhere"):
        book.make(toy, "smoke")
    assert former.read_text("utf8") == "former"
    assert not list((toy / "_build").glob("site-*"))


def test_papermill_alone_refuses_an_unknown_parameter(toy):
    papermill = Path(sys.executable).with_name("papermill")
    done = subprocess.run(
        [papermill, "notebooks/chapter.ipynb", "out.ipynb", "-p", "thresholdx", "1"],
        cwd=toy,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "unknown parameter 'thresholdx'. Did you mean threshold?" in done.stderr


def test_check_parameters_can_be_run_again():
    injected = "# Parameters\nthreshold = 3\n"
    namespace = {"In": ["", DECLARED, injected, CHECK], "threshold": 3, "languages": ["af"]}
    pages.check_parameters(namespace)
    # what later cells define is none of its business, in whatever order cells are run
    namespace |= {"frame": [1], "scale": 2, "In": [*namespace["In"], "scale = 2", CHECK]}
    pages.check_parameters(namespace)
    with pytest.raises(TypeError, match="'threshold' must be"):
        pages.check_parameters(namespace | {"threshold": "3"})
    namespace["In"] += ["# Parameters\nlanguage = 'ro'\n"]
    with pytest.raises(ValueError, match=r"unknown parameter 'language'. Did you mean languages"):
        pages.check_parameters(namespace | {"language": "ro"})


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [1, -1], [True, 1.0, "1", None]),
        ("float", [1, 1.5], [True, "1", None]),
        ("bool", [True], [1, "yes"]),
        ("str | None", ["a", None], [1]),
        ("Optional[float]", [1, 1.5, None], [True, "1"]),
        ("list[str]", [[], ["a"]], ["a", [1], ("a",)]),
        ("dict[str, int]", [{}, {"a": 1}], [{"a": "b"}, {1: 1}]),
        ("list[int] | None", [None, [1]], [[None], [True]]),
    ],
)
def test_types(annotation, good, bad):
    declared = pages.declarations(f"x: {annotation} = None")
    for value in good:
        pages.validate({"x": value}, declared)
    for value in bad:
        with pytest.raises(TypeError):
            pages.validate({"x": value}, declared)


def test_an_annotation_must_be_built_in():
    with pytest.raises(ValueError, match="built-in types and Optional, not Path"):
        pages.declarations("folder: Path = '.'")


def cells(made):
    """Return the rows of a table, each a list of texts, with the headings first."""
    soup = BeautifulSoup(made.data, "html.parser")
    return [[c.text for c in row.find_all(["th", "td"])] for row in soup.find_all("tr")]


def test_a_table_reads_as_words():
    frame = pd.DataFrame(
        {
            "tuned_on": ["cy", "af+ro", ""], "spbleu": [12.34, None, -0.5],
            "size": [1e4, 2e4, None],
            "byte_token_share": [0.123, 0.5, 1], "holds": [True, False, True],
            "learning_rate": [5e-4, 3e-3, None], "some_notes": [["a", "b"], [], "<b>"],
            "strategy": ["embed", "lora", "new"],
        },
        index=[4, 2, 9],
    )  # fmt: skip
    made = pages.table(frame, "A <caption>", {"tuned_on": ["a.html", "b.html", "c.html"]})
    assert cells(made) == [
        ["Tuned on", "spBLEU", "Training pairs", "Single-byte tokens (%)", "Holds",
         "Learning rate", "Some notes", "Strategy"],
        ["Welsh (cy)", "12.3", "10,000", "12.3", "yes", "0.0005", "a, b", "Embed FT"],
        ["Afrikaans (af) + Romanian (ro)", "–", "20,000", "50.0", "no", "0.0030", "–", "LoRA"],
        ["–", "−0.5", "–", "100.0", "yes", "–", "<b>", "new"],
    ]  # fmt: skip
    soup = BeautifulSoup(made.data, "html.parser")
    assert soup.caption.text == "A <caption>"
    assert {cell["scope"] for cell in soup.thead("th")} == {"col"}
    rows = soup.tbody("th")
    assert {cell["scope"] for cell in rows} == {"row"} and [r.a["href"][0] for r in rows] == [
        *"abc"
    ]


def test_a_table_shows_an_index_that_has_words():
    frame = pd.DataFrame({"target": ["ro", "ro", "af"], "seed": [0, 1, 0], "spbleu": [1, 2, 3.5]})
    means = frame.groupby(["target", "seed"], sort=False)[["spbleu"]].mean()
    assert cells(pages.table(means, "means"))[:2] == [
        ["Target", "Seed", "spBLEU"], ["Romanian (ro)", "0", "1.00"],
    ]  # fmt: skip
    wide = frame.pivot(index="seed", columns="target", values="spbleu")
    assert cells(pages.table(wide, "wide"))[0] == ["Seed", "Afrikaans (af)", "Romanian (ro)"]
    turned = frame.rename(index=str).T
    assert [row[0] for row in cells(pages.table(turned, "turned"))] == [
        "",
        "Target",
        "Seed",
        "spBLEU",
    ]
    assert "sortable" not in pages.table(frame, "short").data
    assert "sortable" in pages.table(pd.concat([frame] * 5), "long").data


def test_a_csv_link_holds_the_frame():
    frame = pd.DataFrame({"language": ["no", "km"], "words": ['a, "b"', "ខ្មែរ"]}, index=[3, 4])
    for shown in (frame, frame.set_index("language")):
        link = BeautifulSoup(pages.csv_link(shown, "some").data, "html.parser").a
        assert link["download"] == "some.csv"
        text = base64.b64decode(link["href"].partition("base64,")[2]).decode()
        assert text == frame.to_csv(index=False)


def test_provenance_says_what_a_page_was_made_with(machine_paths):
    namespace = {"In": ["", DECLARED], "threshold": 1.84, "languages": ["af"]}
    stamp = pages.provenance(namespace, table_12="0" * 64).data
    for part in ("threshold = 1.84", "table 12", "0" * 64, "UTC", "numpy", "commit"):
        assert part in stamp
    assert not machine_paths.search(stamp)

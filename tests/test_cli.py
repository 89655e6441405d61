"""The command line, and every command and name that the documentation shows."""

import ast
import contextlib
import functools
import importlib
import inspect
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import tyro
import yaml
from accelerate.commands import launch
from papermill.cli import papermill
from torch.distributed import run as torchrun

from mlq_utils import claims, cli, modeling, tokenization
from mlq_utils.book import pages
from mlq_utils.experiments import Spec, scales, sweep, tables
from mlq_utils.modeling import Extension

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("book/*.md"))]
NOTEBOOKS = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/*.ipynb")])
SOURCES = [f for d in ("mlq_utils", "benchmarks", "examples") for f in ROOT.glob(f"{d}/**/*.py")]
DATA = [*ROOT.glob("mlq_utils/data/**/*.md"), *ROOT.glob("notebooks/params/*/*.yaml")]
WORKFLOWS = list(ROOT.glob(".github/workflows/*.yml"))
START = re.compile(
    r"(?:[A-Z_]+=\S+ )*"
    r"(?:(?:mlq|python -m|make|papermill|torchrun|accelerate launch|conda|pip) \S|python \S+\.py)"
)
"""What a command begins with, after settings of the environment."""
ROOMS = {path.stem for path in (ROOT / "mlq_utils").glob("[!_]*") if path.stem != "data"}


# What the documentation shows.


def texts(path):
    """Yield what readers see of a file: pages, cells, docstrings, messages and comments."""
    text = path.read_text("utf8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        yield from ("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    elif path.suffix == ".py":
        nodes = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)]
        yield from (inspect.cleandoc(value) for value in nodes if isinstance(value, str))
        yield "\n".join(re.findall(r"# (.*)$", text, re.MULTILINE))
    else:
        yield text


def blocks(text):
    """Return the code blocks of a text: after a blank line, and indented by four spaces."""
    found = re.findall(r"(?:\A|\n)[ \t]*\n((?: {4}.*\n?|[ \t]*\n)+)", f"{text}\n")
    return [inspect.cleandoc(block.replace("\\\n", " ")) for block in found]


def inline(text):
    return re.findall(r"`([^`\n]+)`", text)


def lines():
    """Yield every line that may be a command, with its file."""
    for path in [*PAGES, *NOTEBOOKS, *SOURCES, *DATA]:
        for text in texts(path):
            for line in [*itertools.chain(*map(str.splitlines, blocks(text))), *inline(text)]:
                yield path, re.split(r"\s+#|\s>\s", line)[0]
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text("utf8"))["jobs"].values():
            yield from ((path, step["run"]) for step in job["steps"] if "run" in step)
    yield ROOT / ".ci/run", re.findall(r"^exec (.*)", (ROOT / ".ci/run").read_text(), re.M)[0]
    recipes = re.findall(r"^\t@?\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text("utf8"), re.M)
    for line in recipes:
        yield ROOT / "Makefile", line.replace("$(PROFILE)", "mini").removesuffix("\\")


def commands():
    """Return every documented command, with the files that show it."""
    found = {}
    for path, line in lines():
        if START.match(line.strip()):
            found.setdefault(" ".join(line.split()), set()).add(path.relative_to(ROOT))
    return found


COMMANDS = commands()


# Parsing without running.


def recorded(function, calls):
    """Return a function with the same flags that records its arguments and does nothing."""

    @functools.wraps(function)
    def call(*args, **options):
        bound = inspect.signature(function).bind(*args, **options)
        bound.apply_defaults()
        calls.append(bound.arguments)
        return 0

    return call


def parse_mlq(args):
    """Return the arguments that a command would be called with."""
    calls = []
    if args in ([], ["COMMAND"]):  # the program is named, and not called
        return {}
    with pytest.MonkeyPatch.context() as patch:
        for name, (text, make) in list(cli.COMMANDS.items()):
            made = functools.partial(lambda make, given: recorded(make(given), calls), make)
            patch.setitem(cli.COMMANDS, name, (text, made))
        try:
            assert cli.main(args) == 0, args
        except SystemExit as end:  # help and completion
            assert not end.code, args
            return {}
    (call,) = calls
    if isinstance(call.get("spec"), Spec):
        call["spec"] = call["spec"].spec()  # refuses what the run would refuse
    if args[0] == "sweep":
        scale = scales.named(call["scale"], base=call["base"], revision=call["revision"])
        assert tables.specs(call["tables"] or None, scale)
    return call


def parse_python(args):
    if args[0] != "-m":
        compile((ROOT / args[0]).read_text("utf8"), args[0], "exec")
    elif args[1] == "mlq_utils":
        parse_mlq(args[2:])
    elif args[1].startswith(("mlq_utils", "benchmarks")):
        package = (ROOT / args[1].replace(".", "/")).is_dir()
        module = importlib.import_module(args[1] + ".__main__" * package)
        (name,) = re.findall(
            r"^if __name__ == .*\n    .*?(\w+)\(?\)+$", inspect.getsource(module), re.M
        )
        tyro.cli(recorded(getattr(module, name), []), args=args[2:])
    else:
        assert importlib.util.find_spec(args[1])


def parse_launch(parser, args):
    given = parser.parse_args(args)
    assert given.module and given.training_script == "mlq_utils"
    parse_mlq(given.training_script_args)


def parse_make(args):
    makefile = (ROOT / "Makefile").read_text("utf8")
    for word in args:
        name, _, value = word.partition("=")
        if value:
            assert re.search(rf"^{name} \?=", makefile, re.M)
            assert name != "PROFILE" or (ROOT / "notebooks/params" / value).is_dir()
        else:
            assert re.search(rf"^{name}:", makefile, re.M)


def parse_papermill(args):
    if "--help-notebook" in args:
        assert "--help-notebook" in [o for p in papermill.params for o in p.opts]
        return
    given = papermill.make_context("papermill", list(args)).params
    cells = json.loads((ROOT / given["notebook_path"]).read_text("utf8"))["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    values = {name: yaml.safe_load(value) for name, value in given["parameters"]}
    for text in given["parameters_yaml"]:
        values |= yaml.safe_load(text)
    assert values
    pages.validate(values, pages.declarations("".join(cell["source"])))


def parse_pip(args):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    (extra,) = re.fullmatch(r"install mlq_utils\[(\w+)\]", " ".join(args)).groups()
    assert extra in extras["optional-dependencies"]


def parse_conda(args):
    assert args[:3] == ["env", "create", "-f"] and (ROOT / args[3]).is_file()


PARSERS = {
    "mlq": parse_mlq,
    "python": parse_python,
    "make": parse_make,
    "papermill": parse_papermill,
    "torchrun": lambda args: parse_launch(torchrun.get_args_parser(), args),
    "accelerate": lambda args: parse_launch(launch.launch_command_parser(), args[1:]),
    "pip": parse_pip,
    "conda": parse_conda,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_understood(command, tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text("languages: [cy]\ntargets: [cy, af]\n", "utf8")
    for name in ("pairs.tsv", "test.tsv", "text.en", "text.eu"):
        (tmp_path / name).write_text("one house\tetxe bat\n", "utf8")
    (tmp_path / "pairs.csv").write_text("english,basque\none house,etxe bat\n", "utf8")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.replace("{seed}", "0"))
    settings = list(itertools.takewhile(lambda word: "=" in word, words))
    name, *args = words[len(settings) :]
    PARSERS[name](args + settings if name == "make" else args)


def test_the_commands_are_found():
    kinds = {re.sub(r"^(\S+=\S+ )*(\S+).*", r"\2", command) for command in COMMANDS}
    assert kinds >= PARSERS.keys() - {"torchrun"}
    shown = {command.split()[1] for command in COMMANDS if command.startswith("mlq ")}
    assert shown >= cli.COMMANDS.keys()
    assert {"mlq run --languages cy --targets cy fr af", "make book"} <= COMMANDS.keys()
    places = {str(path.parent) for paths in COMMANDS.values() for path in paths}
    assert {".", "book", "notebooks", "mlq_utils", "benchmarks", ".github/workflows"} <= places


NAMES = sorted(
    {
        (path.relative_to(ROOT), name)
        for path in [*PAGES, *NOTEBOOKS]
        for text in texts(path)
        for code in [*blocks(text), *inline(text)]
        for name in re.findall(
            rf"(?<![\w./-])((?:mlq_utils\.)?(?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+)", code
        )
        if not name.endswith((".py", ".md", ".ipynb", ".yaml"))
    }
)


@pytest.mark.parametrize(("path", "name"), NAMES, ids=str)
def test_a_documented_name_exists(path, name):
    room, *names = name.removeprefix("mlq_utils.").split(".")
    found = importlib.import_module(f"mlq_utils.{room}")
    for part in names:
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)


def test_documented_imports_work():
    codes = [code for path in PAGES for text in texts(path) for code in blocks(text)]
    found = [line for code in codes for line in code.splitlines() if line.startswith("from mlq")]
    assert len(found) >= 4
    for line in found:
        exec(line, {})


def flags(*command):
    """Return the flags that the help of a command shows."""
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
        cli.main([*command, "--help"])
    return set(re.findall(r"--[a-z][a-z-]*", shown.getvalue()))


def test_documented_flags_exist():
    codes = [code for path in PAGES for text in texts(path) for code in inline(text)]
    shown = {code.split()[0] for code in codes if code.startswith("--")}
    assert (
        {"--base", "--export", "--spare-rows"} <= shown <= flags("run") | flags("run", "extension")
    )


# What the commands do.


def test_every_field_has_its_flag():
    names = {field.name for field in fields(Spec)} - {"extension"}
    assert {f"--{name.replace('_', '-')}" for name in names} <= flags("run")
    names = {field.name for field in fields(Extension)}
    assert {f"--{name}" for name in names} <= flags("run", "extension")
    names = set(inspect.signature(sweep.report).parameters) - {"command"}
    assert {f"--{name}" for name in names} <= flags("sweep")


def test_flags_make_a_specification():
    spec = parse_mlq(
        [
            "run",
            "--languages",
            "km",
            "--targets",
            "km",
            "ro",
            "--layers",
            "0",
            "1",
            "--cap",
            "64",
            "--seed",
            "3",
        ]
    )
    expected = Spec(languages=("km",), targets=("km", "ro"), layers=(0, 1), cap=64, seed=3)
    assert spec["spec"] == expected
    given = [
        "run",
        "--languages",
        "km",
        "extension",
        "--method",
        "bpe",
        "--pieces",
        "100",
        "--no-ranked",
    ]
    extension = Extension(method="bpe", pieces=100, ranked=False)
    assert parse_mlq(given)["spec"] == Spec(languages=("km",), extension=extension)


def test_flags_override_a_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "languages: [km]\nsize: 64\ntest: [ntrex, test]\nlearning_rate: 1\n"
        "extension: {method: bpe, pieces: 100}\n",
        "utf8",
    )
    extension = Extension(method="bpe", pieces=100)
    shared = {"languages": ("km",), "test": ("ntrex", "test"), "extension": extension}
    assert parse_mlq(["run", "--config", str(path)])["spec"] == Spec(
        size=64, learning_rate=1.0, **shared
    )
    given = parse_mlq(["run", f"--config={path}", "--size", "32", "--learning-rate", "0.5"])
    assert given["spec"] == Spec(size=32, learning_rate=0.5, **shared)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lernrate: 3", "unknown field of a run 'lernrate'. Did you mean learning_rate"),
        ("size: many", "size: Input should be a valid integer, not 'many'"),
        ("size: '64'", "size: Input should be a valid integer, not '64'"),
        ("languages: ro", "languages: Input should be a valid"),
        ("languages: [xx]", "unknown language 'xx'"),
        ("extension: {method: bpe}", "extension.pieces: Field required"),
        ("extension: {method: bpe, pices: 3}", "of an extension 'pices'. Did you mean pieces"),
        ("extension: {method: bppe, pieces: 3}", "Did you mean bpe"),
        ("extension: bpe", "extension: Input should be"),
        (
            "language: {code: no, name: X, script: Latn}",
            "language.code: Input should be a valid st",
        ),
        ("language: {code: qx, name: X}", "language.script: Field required"),
        ("language: {code: qx, name: X, skript: Latn}", "Did you mean script"),
        ("pairs: {files: pairs.tsv}", "unknown field of `pairs` 'files'. Did you mean file"),
        ("pairs: {file: 7}", "pairs.file: Input should be a valid string"),
        ("[ro]", "expected the fields of a run"),
        ("a: [", "while parsing"),
    ],
)
def test_a_bad_file_is_one_line(text, message, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text(text, "utf8")
    assert cli.main(["run", "--config", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mlq: error: {path}: ") and message in line


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run --config none.yaml", "none.yaml"),
        ("run --languages xx", "unknown language 'xx'"),
        ("run --size 0", "size must be 1 or more"),
        ("recommend cyy", "unknown language 'cyy'. Did you mean"),
        ("recommend cy --before cy 1 ro 2", "scores before and after"),
        ("recommend cy --tokenizer /none/such", "/none/such"),
        ("studies untund", "Did you mean untuned"),
        ("book --profile huge", "unknown profile 'huge'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(command, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT if "book" in command else tmp_path)
    monkeypatch.setattr(sys, "last_value", None, raising=False)
    assert cli.main(command.split()) == 2
    if command.startswith("run"):  # whose other processes are not awaited
        assert message in " ".join(str(sys.last_value).split())
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert message in line and not out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run --lnguages cy", "--languages"),
        ("run --size many", "Error parsing --size"),
        ("run --languages km extension --method bppe --pieces 3", "Did you mean bpe"),
        ("run --batch-sise 3", "--batch-size"),
        ("recommends cy", "recommend"),
        ("sweep go", "plan"),
        ("pretrain", "--folder"),
        ("", "recommend"),
    ],
)
def test_wrong_flags_are_named_with_the_nearest(command, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(command.split())
    out, err = capsys.readouterr()
    shown = " ".join(re.sub("[│\n]", " ", err).split())  # tyro draws a box
    assert caught.value.code == 2 and message in shown and "Traceback" not in err and not out


def test_help_shows_defaults_and_units(capsys):
    with pytest.raises(SystemExit):
        cli.main(["recommend", "--help"])
    shown = " ".join(re.sub("[│\n]", " ", capsys.readouterr().out).split())
    assert "Sampling error of a score as a share of the score. (default: 0.05)" in shown
    assert "T of Equation 1, in spBLEU points" in shown


def test_advice_and_claims_are_printed(capsys, monkeypatch):
    trial = "--before cy 2.5 ro 3.6 --after cy 4.0 ro 15.1 --threshold 1.84"
    assert cli.main(["recommend", "cy", *trial.split()]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Welsh (cy): altruistic\n") and "your trial (2 targets" in shown
    assert cli.main(["recommend", "km", "--pairs", "160000"]) == 0
    assert "with 160,000 pairs Khmer from 1.1 to 13.4" in capsys.readouterr().out
    assert cli.main(["recommend", "or"]) == 0
    assert capsys.readouterr().out.startswith("Odia (or): undecided between altruistic and stag")
    first = claims.read()[:1]  # the others take seconds
    monkeypatch.setattr(claims.ledger, "read", lambda: first)
    assert cli.main(["claims"]) == 0
    assert first[0].key in capsys.readouterr().out


def test_a_tokenizer_is_measured_for_advice(capsys, monkeypatch):
    mini = tokenization.load(str(modeling.MINI))
    monkeypatch.setattr(tokenization, "load", {"my": mini}.__getitem__)
    assert cli.main(["recommend", "cy", "--tokenizer", "my"]) == 0
    assert "your tokenizer's fertility and overlap" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_all_commands_and_flags(shell, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--tyro-print-completion", shell])
    shown = capsys.readouterr().out
    assert not caught.value.code
    assert all(name in shown for name in [*cli.COMMANDS, "spare-rows", "standard-error"])


def test_an_interrupt_ends_in_a_line(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "claims", ("", lambda _: interrupted))
    assert cli.main(["claims"]) == 130
    assert "Finished work is kept" in capsys.readouterr().err


def test_help_advice_and_claims_do_not_wait_for_torch():
    script = (
        "import contextlib, sys\n"
        "from mlq_utils import cli\n"
        "for args in (['--help'], ['run', '--help'], ['recommend', 'cy'], ['claims', '--help']):\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli.main(args)\n"
        "heavy = {'torch', 'transformers', 'peft', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([sys.executable, "-m", "mlq_utils", "-h"], cwd=ROOT).returncode == 0

"""The command line: `mlq COMMAND`, or the same as `python -m mlq_utils COMMAND`.

    mlq recommend cy                              # how is Welsh best tuned?
    mlq run --help                                # all flags, with defaults and units

Flags are generated from the dataclasses and functions of the Python interface. A command imports
what it needs only when it is chosen, so that help and advice do not wait for torch.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import tyro

Command = Callable[..., str | int]
FILES = "FILE [FILE | COLUMN COLUMN]"
"""How pairs are given by a flag."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, which is 2 for bad input."""
    args = list(sys.argv[1:] if args is None else args)
    everything = any(arg.startswith("--tyro-") for arg in args)  # completion needs all flags
    try:
        result = tyro.extras.subcommand_cli_from_dict(
            {
                name: make(args) if everything or name in args[:1] else _summary(text)
                for name, (text, make) in COMMANDS.items()
            },
            prog="mlq",
            description="Check, run and use the paper 'How Multilingual is Multilingual LLM?'.",
            args=args,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
    except (ValueError, OSError, ImportError) as error:
        print("mlq: error:", *str(error).split(), file=sys.stderr)
        sys.last_value = error  # as after errors that Python shows: other processes are not awaited
        return 2
    except KeyboardInterrupt:
        print("\nmlq: interrupted. Finished work is kept. Start again to go on.", file=sys.stderr)
        return 130
    if isinstance(result, str) and result:
        print(result)
    return result if isinstance(result, int) else 0


def _summary(text: str) -> Command:
    """Return a stand-in for a command that was not chosen, for the list of commands."""

    def command() -> None: ...

    command.__doc__ = text
    return command


def _words(metavar: str) -> tyro.constructors.PrimitiveConstructorSpec:
    """Return how a flag takes words, from which the command makes a value itself."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=list,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)] if value else [],
    )


def _spec(args: Sequence[str]) -> Any:
    """Return a specification whose fields are flags, with what --config gives."""
    from mlq_utils.corpora import Pairs
    from mlq_utils.experiments.spec import Spec, read_spec
    from mlq_utils.languages import Language

    def pairs(file: str, second: str = "", third: str = "") -> Pairs:
        return Pairs(file, columns=(second, third)) if third else Pairs(file, second)

    makers = {"pairs": pairs, "test_pairs": pairs, "language": Language}

    @dataclass(frozen=True)
    class Flags(Spec):
        __doc__ = Spec.__doc__
        pairs: Annotated[Pairs | None, _words(FILES)] = None
        test_pairs: Annotated[Pairs | None, _words(FILES)] = None
        language: Annotated[Language | None, _words("CODE NAME SCRIPT")] = None

        def __post_init__(self) -> None:
            """Leave the check to `spec`, since tyro would spread its message over several lines."""

        def spec(self) -> Spec:
            """Return what is given by the flags, or raise ValueError."""
            values = dict(vars(self))
            if isinstance(values["language"], list) and len(values["language"]) == 1:
                values |= {"languages": tuple(values["language"]), "language": None}
            for name, make in makers.items():
                if isinstance(values[name], list):
                    try:
                        values[name] = make(*values[name])
                    except TypeError:
                        raise ValueError(f"--{name.replace('_', '-')} takes other values") from None
            return Spec(**values)

    finder = argparse.ArgumentParser(prog="mlq run", add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(args)[0].config
    return Flags(**vars(read_spec(path) if path else Spec()))


def _run(args: Sequence[str]) -> Command:
    from mlq_utils.experiments.spec import STORE

    defaults = _spec(args)

    def run(
        spec: type(defaults) = defaults,
        *,
        config: Path | None = None,
        store: str = STORE,
        export: Path | None = None,
        adapter: bool = False,
        compare: bool = False,
    ) -> str:
        """Tune, translate and score a model.

        Args:
            spec: What to run.
            config: YAML file with fields of the specification, which flags override.
            store: Folder or URL where records are kept.
            export: Empty folder to export the tuned model to, in Hugging Face's format.
            adapter: Whether to export an adapter of PEFT instead, for LoRA or Embed FT.
            compare: Whether to score the untuned model, too, and show what was gained and lost.
        """
        from mlq_utils.experiments import Store, runner

        return runner.report(spec.spec(), Store(store), compare, export=export, adapter=adapter)

    return run


def _trial(args: Sequence[str]) -> Command:
    from mlq_utils.experiments.spec import STORE

    defaults = _spec(args)

    def trial(
        spec: type(defaults) = defaults,
        *,
        config: Path | None = None,
        store: str = STORE,
        folder: Path = Path("trial"),
        card: str = "cpu",
        price: float = 2.5,
    ) -> str:
        """Try what tuning on a few pairs does to a language and to others, and say what to do.

        Args:
            spec: What to tune on. `--language eu` names the language, and `--panel` the others.
            config: YAML file with fields of the specification, which flags override.
            store: Folder or URL where records are kept.
            folder: Folder for the page `trial.md` and its figure.
            card: Card that the run at full size is planned for: cpu, A100, H100 or H200.
            price: Price of one hour of it.
        """
        from mlq_utils.experiments import Store, trial

        frame = trial.trial(spec.spec(), Store(store), folder, card=card, price=price)
        return f"{trial.as_text(frame)}\n\n{folder / 'trial.md'} says what to do."

    return trial


def _recommend(_: Sequence[str]) -> Command:
    from mlq_utils import corpora, quadrants, tokenization

    none = quadrants.Trial()

    def recommend(
        language: str,
        /,
        trial: quadrants.Trial = none,
        *,
        tokenizer: str | None = None,
        pairs: int = 10_000,
    ) -> str:
        """Advise how to tune a language.

        Args:
            language: The code of the language, the paper's or CLDR's, such as cy or eu.
            trial: Scores of your model before and after tuning on the language.
            tokenizer: Folder or name of your tokenizer, which is measured on CLDR text.
            pairs: Number of sentence pairs to tune on.
        """
        fertility = None
        if tokenizer is not None:
            phrases = corpora.load("cldr", language, "test", size=200)
            texts = {"en": phrases["source"].tolist(), language: phrases["target"].tolist()}
            fertility = tokenization.analyse(tokenization.load(tokenizer), texts)
        return str(quadrants.recommend(language, trial, fertility=fertility, pairs=pairs))

    return recommend


def pretrain(*, folder: Path, seed: int = 0, byte_level: bool = False) -> str:
    """Pretrain a small base model like the packaged one, or continue with one.

    Args:
        folder: Folder for the model.
        seed: Random seed of the text, the tokenizer and the weights.
        byte_level: Whether it has a byte-level tokenizer, as LLaMA-3 has, in place of LLaMA's kind.
    """
    from mlq_utils.modeling import pretraining

    extra = {"byte_level": True} if byte_level else {}
    pretraining.pretrain(folder, seed, pretraining.RECIPE | extra)
    return f"{folder} holds the model."


def _diagnose(_: Sequence[str]) -> Command:
    from mlq_utils.experiments import diagnosis

    @wraps(diagnosis.diagnose)
    def command(**flags: Any) -> str:
        return diagnosis.text(diagnosis.diagnose(**flags))

    return command


def _from(module: str, name: str) -> Callable[[Sequence[str]], Command]:
    return lambda _: getattr(import_module(f"mlq_utils.{module}"), name)


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], Command]]] = {
    "recommend": ("Advise how to tune a language.", _recommend),
    "claims": ("Show the verdicts on the paper's claims.", _from("claims", "report")),
    "diagnose": ("Say which languages a model has, without tuning it.", _diagnose),
    "run": ("Tune, translate and score a model.", _run),
    "trial": ("Try tuning on a few pairs, and say what to do.", _trial),
    "export": ("Export a tuned model to take it home.", _from("experiments.exporting", "export")),
    "sweep": ("Plan or make the paper's runs.", _from("experiments.sweep", "report")),
    "worlds": ("Plan or make a family of bases.", _from("experiments.family", "report")),
    "nlu": ("Score a model on language understanding.", _from("experiments.nlu", "report")),
    "book": ("Make the book of the current folder.", _from("book.pipeline", "book")),
    "studies": ("Make the missing runs of the book.", _from("experiments.studies", "ship")),
    "pretrain": ("Pretrain a small base model.", lambda _: pretrain),
}
"""Each command with its summary and the function that makes it."""

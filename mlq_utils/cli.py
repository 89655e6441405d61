"""The command line: `mlq COMMAND`, or the same as `python -m mlq_utils COMMAND`.

    mlq recommend cy                              # how is Welsh best tuned?
    mlq run --languages cy --targets cy fr af     # tune, translate and score
    mlq run --config run.yaml --seed 1            # defaults from a YAML file
    mlq run --help                                # all flags, with defaults and units
    mlq --tyro-print-completion bash              # completion for bash, zsh or fish

Flags are generated from the dataclasses and functions of the Python interface. A command imports
what it needs only when it is chosen, so that help and advice do not wait for torch.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import tyro

Command = Callable[..., str | int]


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
        print(
            "\nmlq: interrupted. Finished work is kept; start again to continue.", file=sys.stderr
        )
        return 130
    if isinstance(result, int):
        return result
    if result:
        print(result)
    return 0


def _summary(text: str) -> Command:
    """Return a stand-in for a command that was not chosen, for the list of commands."""

    def command() -> None: ...

    command.__doc__ = text
    return command


def _run(args: Sequence[str]) -> Command:
    from mlq_utils.experiments.spec import STORE, Spec, read_spec

    @dataclass(frozen=True)
    class Flags(Spec):
        __doc__ = Spec.__doc__

        def __post_init__(self) -> None:
            """Leave the check to `run`, since tyro would spread its message over several lines."""

    finder = argparse.ArgumentParser(prog="mlq run", add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(args)[0].config
    defaults = Flags(**vars(read_spec(path) if path else Spec()))

    def run(
        spec: Flags = defaults,
        *,
        config: Path | None = None,
        store: str = STORE,
        save: Path | None = None,
        micro_batch: int | None = None,
        device_map: str | None = None,
    ) -> str:
        """Tune, translate and score a model.

        Args:
            spec: What to run.
            config: YAML file with fields of the specification, which flags override.
            store: Folder or URL where records are kept.
            save: Folder to save the tuned model in.
            micro_batch: Number of examples computed at once. Defaults to as many as fit.
            device_map: "auto" spreads a model that is not tuned over several devices.
        """
        from mlq_utils.experiments import Store, runner

        options = {"save": save, "micro_batch": micro_batch, "device_map": device_map}
        return runner.report(Spec(**vars(spec)), Store(store), **options)

    return run


def recommend(
    language: str,
    /,
    *,
    tokenizer: str | None = None,
    before: dict[str, float] | None = None,
    after: dict[str, float] | None = None,
    threshold: float | None = None,
    standard_error: float = 0.05,
    seed: int = 0,
) -> str:
    """Advise how to tune a language.

    Args:
        language: The paper's code of the language, such as cy.
        tokenizer: Your tokenizer, as a folder or a name on the Hub. It is measured on CLDR text.
        before: The untuned model's scores in spBLEU by target, such as `cy 1.2 af 3.4 ro 5.6`.
        after: Scores of the model tuned on the language, for the same targets.
        threshold: T of Equation 1, in spBLEU points. Defaults to the mean of `before`.
        standard_error: Sampling error of a score as a share of the score.
        seed: Random seed for drawing that error.
    """
    from mlq_utils import corpora, quadrants, tokenization

    fertility = None
    if tokenizer is not None:
        pairs = corpora.load("cldr", language, "test", size=200)
        texts = {"en": pairs["source"].tolist(), language: pairs["target"].tolist()}
        fertility = tokenization.analyse(tokenization.load(tokenizer), texts)
    trial = {"before": before, "after": after, "threshold": threshold}
    trial |= {"standard_error": standard_error, "seed": seed}
    return str(quadrants.recommend(language, fertility=fertility, **trial))


def pretrain(*, folder: Path, seed: int = 0) -> str:
    """Pretrain a small base model like the packaged one, or continue with one.

    Args:
        folder: Folder for the model.
        seed: Random seed of the text, the tokenizer and the weights.
    """
    from mlq_utils.modeling import pretraining

    pretraining.pretrain(folder, seed)
    return f"{folder} holds the model."


def _from(module: str, name: str) -> Callable[[Sequence[str]], Command]:
    return lambda _: getattr(import_module(f"mlq_utils.{module}"), name)


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], Command]]] = {
    "recommend": ("Advise how to tune a language.", lambda _: recommend),
    "claims": ("Show the verdicts on the paper's claims.", _from("claims", "report")),
    "run": ("Tune, translate and score a model.", _run),
    "sweep": ("Plan or make the paper's runs.", _from("experiments.sweep", "report")),
    "nlu": ("Score a model on language understanding.", _from("experiments.nlu", "report")),
    "book": ("Make the book of the current folder.", _from("book.pipeline", "book")),
    "studies": ("Make the missing runs of the book.", _from("experiments.studies", "ship")),
    "corpora": ("Count the training pairs on this machine.", _from("corpora.inventory", "report")),
    "pretrain": ("Pretrain a small base model.", lambda _: pretrain),
}
"""Each command with its summary and the function that makes it."""

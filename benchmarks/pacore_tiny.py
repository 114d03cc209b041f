"""What PaCoRe training buys a model of a million parameters: held-out accuracy before and after it, over seeds.

    python benchmarks/pacore_tiny.py [--seeds 0 1 2] [--folder runs/pacore_tiny] [--widths 2 4 8 16 8,4]

Each seed is a run of recipes/pacore_tiny.yaml, whose policy `stepladder evaluate` then measures at the end of SFT and of
the pacore stage, on the problems that the recipe keeps out of training by content: before and after at the headline's
width, after also at the others, and with every message replaced by 000, which tells what the problem alone is good for
in the same prompt. What is there is not done again. Exit code 1 where trained synthesis does not beat one chain and the
vote at equal width in every seed.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rl.inference.accuracy import Estimate
from rl.inference.comparison import Measure, summarize
from rl.inference.comparison_plot import plot
from rl.inference.result_file import read_results
from rl.recipe.file import read_recipe
from rl.sources import SourceOpener, held_out_rows

RECIPE = Path(__file__).parent.parent / "recipes" / "pacore_tiny.yaml"
MODELS = {"before": "checkpoints/sft/final", "after": "final"}
CHAINS = 16
BLIND = "{% for message in messages %}Ref: \\boxed{000}\n{% endfor %}{{ problem }}"


@dataclass(frozen=True)
class Asked:
    """What every evaluation is asked alike."""

    problems: Path
    template: Path
    blind: Path
    """the same prompt with messages that say nothing"""
    conclusion: str
    max_tokens: int


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/pacore_tiny"))
    parser.add_argument("--widths", nargs="+", default=["2", "4", "8", "16", "8,4"])
    parser.add_argument("--headline", default="8", help="the width of the first table")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the recipe")
    parsed = parser.parse_args()
    parsed.folder.mkdir(parents=True, exist_ok=True)
    asked = written(parsed.folder)
    widths = list(dict.fromkeys([parsed.headline, *parsed.widths]))
    for seed in parsed.seeds:
        run = parsed.folder / f"seed{seed}"
        if not (run / "final").exists():
            stepladder("run", str(RECIPE), "--run-dir", str(run), f"seed={seed}", *parsed.set)
        for moment, model in MODELS.items():
            evaluate(result_file(run, moment, "sere"), run / model, asked, "--mode", "sere", "--samples", str(CHAINS))
            for width in widths if moment == "after" else widths[:1]:
                evaluate(result_file(run, moment, width), run / model, asked, "--widths", width)
        blind = ("--widths", parsed.headline, "--template", str(asked.blind))
        evaluate(result_file(run, "blind", parsed.headline), run / MODELS["after"], asked, *blind)
        files = sorted(file for file in (run / "evaluations").glob("*.jsonl") if not file.name.startswith("blind"))
        plot([summarize(read_results(file)) for file in files], run / "accuracy_by_tokens.png")
        stepladder("report", str(run))
    return print_tables(parsed.folder, parsed.seeds, parsed.headline, parsed.widths)


def written(folder: Path) -> Asked:
    """The held-out problems and the synthesis prompt of the recipe as files."""
    section = read_recipe(RECIPE).evaluations["synthesis"]
    assert section.synthesis is not None and section.synthesis.conclusion is not None
    rows = held_out_rows(SourceOpener(Path).rows(section.prompts, "problem", seed=0), section.num_prompts, "synthesis")
    problems, template, blind = (folder / name for name in ("held_out.jsonl", "references.jinja", "blind.jinja"))
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    template.write_text(section.synthesis.template)
    blind.write_text(BLIND)
    return Asked(problems, template, blind, section.synthesis.conclusion, section.sampling.max_tokens)


def evaluate(out: Path, model: Path, asked: Asked, *mode: str) -> None:
    """One result file; nothing where it is whole. What `mode` says of the template comes last and counts."""
    if out.exists():
        return
    partial = out.parent.parent / f"{out.name}.partial"  # an evaluation that was interrupted goes on from there
    stepladder(
        "evaluate", str(asked.problems), "--model", str(model), "--out", str(partial), "--conclusion", asked.conclusion,
        "--max-tokens", str(asked.max_tokens), "--template", str(asked.template), *mode,
    )  # fmt: skip
    partial.rename(out)


def result_file(run: Path, moment: str, way: str) -> Path:
    """In the folder that the run's report shows."""
    return run / "evaluations" / f"{moment}-{way.replace(',', '-')}.jsonl"


def stepladder(*arguments: str) -> None:
    """Runs a command as a user would."""
    subprocess.run([sys.executable, "-m", "rl.cli", *arguments], check=True, stdout=sys.stderr)


# ---------------------------------------------------------------- tables


def print_tables(folder: Path, seeds: list[int], headline: str, widths: list[str]) -> int:
    """Both tables in markdown; 1 where a seed misses what is to be shown."""
    missed = []
    print("| seed | | one chain | majority of as many chains | majority of the messages read | PaCoRe | gain over that "
          "majority | right where no message is | such problems |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for seed in seeds:
        for moment in MODELS:
            chains, rounds = (measures(folder / f"seed{seed}", moment, way) for way in ("sere", headline))
            cells = [one_chain(chains), vote(chains, headline), *(rounds[name] for name in SYNTHESIS), pacore(rounds)]
            average, majority, read, gain, emergent, none_right, accuracy = (cell.estimate for cell in cells)
            shown = (average, majority, read, accuracy, gain, emergent, none_right)
            print(f"| {seed} | {moment} | {' | '.join(map(str, shown))} |")
            if moment == "after" and not (gain.low > 0 and accuracy.low > max(average.high, majority.high)):
                missed.append(seed)
    print(f"\n| after training, answered by | tokens per answer | {' | '.join(f'seed {seed}' for seed in seeds)} |")
    print(f"|---|---|{'---|' * len(seeds)}")
    line("one chain", folder, seeds, "sere", one_chain)
    for votes in ("2", "4", "8", "16"):
        line(f"majority of {votes}", folder, seeds, "sere", lambda found: vote(found, votes))  # noqa: B023
    for width in widths:
        line(f"PaCoRe [{width.replace(',', ', ')}]", folder, seeds, width, pacore)
    line(f"PaCoRe [{headline}], every message 000", folder, seeds, headline, pacore, moment="blind")
    print(f"\nsynthesis above one chain and above the vote at equal width, intervals apart: "
          f"{'in every seed' if not missed else f'not in seeds {missed}'}")  # fmt: skip
    return min(len(missed), 1)


SYNTHESIS = ("messages read, majority", "gain over their majority", "right where no message is", "no message right")


def line(
    name: str,
    folder: Path,
    seeds: list[int],
    way: str,
    chosen: Callable[[dict[str, Measure]], Measure],
    moment: str = "after",
) -> None:
    """A row of the second table."""
    found = [chosen(measures(folder / f"seed{seed}", moment, way)) for seed in seeds]
    tokens = sum(measure.tokens_per_answer or 0.0 for measure in found) / len(found)
    print(f"| {name} | {tokens:.0f} | {' | '.join(str(measure.estimate) for measure in found)} |")


def measures(run: Path, moment: str, way: str) -> dict[str, Measure]:
    """Of one result file, by name."""
    found = summarize(read_results(result_file(run, moment, way))).measures
    unknown = Measure("", "other", Estimate(float("nan"), float("nan"), float("nan")), None)
    return dict.fromkeys(SYNTHESIS, unknown) | {measure.name: measure for measure in found}


def one_chain(found: dict[str, Measure]) -> Measure:
    """Accuracy of a chain."""
    return found[f"one chain, avg@{CHAINS}"]


def vote(found: dict[str, Measure], votes: str) -> Measure:
    """Accuracy of a vote of so many chains."""
    return found[f"maj@{votes}"]


def pacore(found: dict[str, Measure]) -> Measure:
    """Accuracy of the rounds."""
    return next(measure for measure in found.values() if measure.kind == "PaCoRe")


if __name__ == "__main__":
    sys.exit(main())

"""The ``cascade-rl`` command. Every error a user can cause ends in a message, never in a stack trace."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cascade_rl.processes import allow_long_integers
from cascade_rl.recipe import load_recipe
from cascade_rl.recipe.problems import nearest
from cascade_rl.store import Store
from cascade_rl.types import CascadeError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Post-train a reasoning model end to end: one recipe, stage after stage, measured after each.",
)

Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change a key: --set stages.math-rl.steps=10. Repeatable.")
]
Root = Annotated[Path, typer.Option(help="Where `runs` and `store` lie.", envvar="CASCADE_RL_ROOT")]
Run = Annotated[str, typer.Argument(help="A run's name, or its recipe file.")]


def guarded(action: Callable[[], int]) -> NoReturn:
    """Run ``action``; exit with its code, or with 1 and the message of a CascadeError."""
    try:
        code = action()
    except CascadeError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except OSError as error:  # no such folder, no permission, disk full: the machine's fault, or the user's
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    raise SystemExit(code)


@app.command()
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    root: Root = Path("."),
    from_stage: Annotated[
        str | None, typer.Option("--from", help="Compute this stage and what follows from it anew.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop after this stage.")] = None,
    branch: Annotated[
        str | None, typer.Option(help="Make a new run of this name; it shares every stage that is still valid.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="Go on although finished stages will be computed anew.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete this run, with the stages no other run uses, and start over.")
    ] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="Ranks on this machine; default: one per GPU.")] = None,
) -> None:
    """Run a recipe, or go on with it: finished stages are never run twice."""

    def action() -> int:
        from cascade_rl.cli.launching import launch_if_wanted
        from cascade_rl.cli.running import run_here
        from cascade_rl.orchestrator.run import Wishes

        wishes = Wishes(from_stage, until, branch, accept_changes, fresh)
        loaded = load_recipe(recipe, overrides or ())
        launch_if_wanted(loaded, processes)
        return run_here(loaded, Store(root.resolve()), wishes)

    guarded(action)


@app.command()
def check(
    recipe: Recipe,
    overrides: Overrides = None,
    root: Root = Path("."),
    processes: Annotated[int, typer.Option(min=1, help="Ranks to check batch sizes for.")] = 1,
    resolved: Annotated[bool, typer.Option("--resolved", help="Print the whole resolved recipe as YAML.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all finished stages and compare them with their checksums.")
    ] = False,
) -> None:
    """Find every mistake that needs no device, try the rewards on sample rows, show the stages and what would run."""

    def action() -> int:
        from cascade_rl.cli.showing import show_plan
        from cascade_rl.orchestrator.damage import refuse_damage
        from cascade_rl.orchestrator.gates import settled
        from cascade_rl.orchestrator.plan import make_plan
        from cascade_rl.orchestrator.preflight import preflight
        from cascade_rl.orchestrator.trials import try_rewards

        loaded = load_recipe(recipe, overrides or ())
        preflight(loaded, processes)
        plan, _ = settled(make_plan(loaded, Store(root.resolve())))
        if verify:
            from cascade_rl.cli.showing import show_verified

            return show_verified(plan)
        refuse_damage(plan, lambda text: print(text, file=sys.stderr))
        for warning in try_rewards(loaded):
            print(f"warning: {warning}", file=sys.stderr)
        for stage in loaded.recipe.stages:
            for note in stage.notes():
                print(f"note: {note}", file=sys.stderr)
        if resolved:
            print(loaded.to_yaml(), end="")
        else:
            show_plan(plan, processes)
        return 0

    guarded(action)


@app.command()
def status(
    run: Run,
    root: Root = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """How far a run is: its stages, their results, where they lie."""

    def action() -> int:
        from cascade_rl.cli.showing import show_status, status_of

        store = Store(root.resolve())
        facts = status_of(store, known_run(store, run))
        if as_json:
            print(json.dumps(facts, indent=2))
        else:
            show_status(facts)
        return 0

    guarded(action)


@app.command()
def report(run: Run, root: Root = Path(".")) -> None:
    """Write the run's report page and figures, and print its table."""

    def action() -> int:
        from rich.console import Console

        from cascade_rl.report import load_run, print_matrix, write_report

        store = Store(root.resolve())
        name = known_run(store, run)
        page = write_report(store.root, name)
        print_matrix(load_run(store.root, name), Console())
        print(f"report: {os.path.relpath(page)}")
        return 0

    guarded(action)


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(help="A run's name, or its recipe file.")],
    run_b: Annotated[str, typer.Argument(help="The run to compare it with.")],
    root: Root = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Two runs side by side: what each stage measured, which stages are shared, how the recipes differ."""

    def action() -> int:
        from rich.console import Console

        from cascade_rl.cli.diffing import show_diff
        from cascade_rl.report.compare import compare_runs

        store = Store(root.resolve())
        facts = compare_runs(store.root, known_run(store, run_a), known_run(store, run_b))
        if as_json:
            print(json.dumps(facts, indent=2))
        else:
            show_diff(facts, Console(soft_wrap=True, highlight=False))
        return 0

    guarded(action)


@app.command()
def rollouts(
    run: Run,
    stage: Annotated[str, typer.Argument(help="Name of a stage with rollouts (rl, distill).")],
    root: Root = Path("."),
    step: Annotated[int | None, typer.Option(help="Default: the last one.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to print.")] = 4,
    worst: Annotated[bool, typer.Option("--worst", help="Lowest scores first, instead of in order.")] = False,
) -> None:
    """Print stored rollouts: what was asked, what came back, how it was scored."""

    def action() -> int:
        from cascade_rl.cli.showing import show_rollouts

        store = Store(root.resolve())
        show_rollouts(store, known_run(store, run), stage, step, limit, worst)
        return 0

    guarded(action)


@app.command()
def score(
    reward: Annotated[str, typer.Argument(help="A reward by import path: rewards.math:verify.")],
    rows: Annotated[
        str | None, typer.Argument(help="A .jsonl file with `response` and the reward's columns; - for stdin.")
    ] = None,
    run_name: Annotated[str | None, typer.Option("--run", help="Instead of rows: a run, with --stage.")] = None,
    stage: Annotated[str | None, typer.Option(help="The stage whose stored rollouts are scored again.")] = None,
    root: Root = Path("."),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A key of the reward: --set timeout_s=5. mode=instruct: no thinking. Repeatable."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")] = None,
) -> None:
    """Try a reward on rows: one JSON line per row (id, value, details, error), in order; a summary on stderr.

    With --run and --stage: how another reward would have scored the rollouts of a stage, and which groups it would
    have left without variance.
    """

    def action() -> int:
        from cascade_rl.cli.scoring import reward_config, score_file

        config, thinking = reward_config(reward, settings or (), workers)
        if rows is not None and run_name is None and stage is None:
            return score_file(config, thinking, rows, sys.stdout, sys.stderr)
        if rows is not None or run_name is None or stage is None:
            raise CascadeError("give either a file of rows, or --run RUN and --stage STAGE")
        from cascade_rl.cli.rescoring import rescore, show
        from cascade_rl.processes import cores

        store = Store(root.resolve())
        name = known_run(store, run_name)
        steps = rescore(store, name, stage, config, config.workers or cores())
        show(store, name, stage, config.use, steps)
        return 0

    guarded(action)


@app.command()
def decontaminate(
    data: Annotated[list[Path], typer.Argument(help="Files of rows: .jsonl, .jsonl.gz or .parquet, of any size.")],
    against: Annotated[
        list[str] | None,
        typer.Option(help="A shipped benchmark, a file or folder, or NAME=FILE: its rows from there. Repeatable."),
    ] = None,
    ngram: Annotated[int, typer.Option(min=1, help="Words in a row that make an overlap; 9 as published.")] = 9,
    field: Annotated[
        list[str] | None,
        typer.Option(help="Column of the data to compare (a.b: within an object). Default: what asks. Repeatable."),
    ] = None,
    against_field: Annotated[
        list[str] | None, typer.Option(help="The same for files that are compared with. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for what is left; for several files, a folder.")] = None,
    report_file: Annotated[Path | None, typer.Option("--report", help="Write counts and examples as JSON.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; no --out is written.")] = False,
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Leave rows out that cannot be read, and count them.")
    ] = False,
) -> None:
    """Leave out rows of training data that share n words in a row with a benchmark."""

    def action() -> int:
        from cascade_rl.cli.decontaminating import Wish, decontaminate_files

        fields, theirs = field or (), against_field or ()
        wish = Wish(data, against or (), ngram, fields, theirs, out, report_file, dry_run, skip_malformed)
        return decontaminate_files(wish)

    guarded(action)


@app.command(name="new-reward")
def new_reward(
    name: Annotated[str, typer.Argument(help="The domain, as a module's name: palindromes.")],
    folder: Annotated[Path, typer.Option(help="Where to write.")] = Path("."),
) -> None:
    """Start a domain of your own: a reward, its test, and a recipe with a stage and rows, which work as they are."""

    def action() -> int:
        from cascade_rl.cli.new_reward import write_domain

        for path in write_domain(name, folder):
            print(f"wrote {os.path.relpath(path)}")
        print(f"next: cascade-rl check {os.path.relpath(folder / 'recipes' / name)}.yaml")
        return 0

    guarded(action)


def known_run(store: Store, run: str) -> str:
    """The run meant by ``run`` (a name, or a recipe file). Raises CascadeError naming the runs there are."""
    name = load_recipe(run).recipe.name if run.endswith((".yaml", ".yml")) else run
    if store.read_run(name) is None:
        folder = store.run_folder(name)
        if name and (folder / "recipe.yaml").is_file():
            raise CascadeError(
                f"{folder / 'run.json'} is missing. Restore it, or start the run again: that writes it anew, and "
                "computes no finished stage twice"
            )
        there = ", ".join(store.runs()) or "none yet"
        raise CascadeError(f"no run {name!r} under {store.root}; there are: {there}")
    return name


def main() -> None:
    """Entry of ``python -m cascade_rl``: ``accelerate launch -m cascade_rl RECIPE`` means ``run RECIPE``."""
    allow_long_integers()
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if first not in commands and not first.startswith("-"):
        meant = nearest(first, commands)
        if meant and not Path(first).exists():
            print(f"error: there is no command {first!r}; did you mean {meant}?", file=sys.stderr)
            raise SystemExit(2)
        sys.argv.insert(1, "run")
    app()

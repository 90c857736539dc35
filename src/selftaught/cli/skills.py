"""Commands for skills: named data whose splits are fixed when it is registered."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from selftaught.cli.options import HERE, AsJson, InWorkspace, Processes, print_json

skills = typer.Typer(no_args_is_help=True, help="Register and list skills: named data with fixed splits.")


@skills.command()
def add(
    name: Annotated[str, typer.Argument(help="tools, medical or science, or a name for your own data.")],
    data: Annotated[str | None, typer.Argument(help="Your data: a file, or a hub data set (owner/name).")] = None,
    documents: Annotated[
        str | None, typer.Option(help="Make it of a file or folder of documents: text, HTML, PDF, Word, CSV.")
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(help="Who asks about them: self (HEAD, the default), none, a model, http://…/v1#MODEL."),
    ] = None,
    questions: Annotated[
        str | None, typer.Option(help="A data set of your own questions about them: taught instead, or asked besides.")
    ] = None,
    measure: Annotated[
        bool, typer.Option(help="Measure HEAD's accuracy, and its accuracy with the demonstration, for the card.")
    ] = True,
    processes: Processes = 0,
    workspace: InWorkspace = HERE,
) -> None:
    """Register a skill. Its rows and splits never change from then on."""
    from selftaught.cli.learning import check_data, named
    from selftaught.cli.progress import Progress
    from selftaught.continual.documents_skill import documents_skill
    from selftaught.continual.registry import add_skill, load_skill
    from selftaught.continual.workspace import Workspace
    from selftaught.errors import ConfigError

    if documents is None:
        check_data(data or name, {"--generator": generator, "--questions": questions})
    elif data is not None:
        raise ConfigError(f"{data!r} and --documents: give one of the two; questions of your own go to --questions")
    folder = None if documents is None else named(documents)
    opened = Workspace.open(workspace)
    opened.ledger.check_new_skill(name)
    with Progress({"head": f"HEAD ({opened.ledger.head().name})"}) as progress:
        if folder is not None:
            config = opened.config.learn_config({}, ())
            made = documents_skill(opened, name, folder, config, generator or "self", questions, progress, processes)
        else:
            made = load_skill(name, data)
        examples, source, card = made
        skill = add_skill(opened, name, examples, source, card, measure, progress, processes)
    print_card(skill.name, skill.source, skill.card)
    _print_resolution(skill.card)


@skills.command(name="list")
def list_skills(workspace: InWorkspace = HERE, as_json: AsJson = False) -> None:
    """List the registered skills."""
    from selftaught.continual.workspace import Workspace

    found = Workspace.open(workspace).ledger.skills()
    if as_json:
        print_json([vars(skill) for skill in found])
        return
    for skill in found:
        counts = {split: sum(groups.values()) for split, groups in skill.card["counts"].items()}
        sizes = ", ".join(f"{count} {split}" for split, count in counts.items())
        print(f"{skill.name:<16} {sizes}; from {skill.source}; data {skill.data_hash[:12]}")
    if not found:
        print("no skills yet; add one with selftaught skills add")


@skills.command()
def show(
    name: Annotated[str, typer.Argument(help="A registered skill.")],
    workspace: InWorkspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Show a skill's card: source, licence, counts, accuracies when it was registered."""
    from selftaught.continual.workspace import Workspace

    skill = Workspace.open(workspace).ledger.skill(name)
    print_json(vars(skill)) if as_json else print_card(skill.name, skill.source, skill.card)


def _print_resolution(card: dict[str, Any]) -> None:
    """What the gate will be able to say of this skill once it has been learned."""
    from selftaught.ledger.gate import smallest_tolerance

    total = sum(card["counts"]["test"].values())
    none, some = (100 * smallest_tolerance(total, flipped) for flipped in (0.0, 0.05))
    print(f"  gate         with {total} test items it can rule out a drop over {none:.1f} points if no answer flips,")
    print(f"               over {some:.1f} if 5% do; if that is too much, add test rows, or set a tolerance for it")


def print_card(name: str, source: str, card: dict[str, object]) -> None:
    """A skill's card, a line a fact."""
    print(f"{name}: {card.get('title', source)}")
    for key, value in card.items():
        if key == "counts" and isinstance(value, dict):
            for split, groups in value.items():
                print(f"  {split:<12} {sum(groups.values())} ({', '.join(f'{n} {g}' for g, n in groups.items())})")
        elif key == "ceiling" and isinstance(value, dict):
            print(f"  ceiling      {value['value']:.0%}: {value['why']}")
        elif key == "measured" and isinstance(value, dict):
            print(
                f"  {value['version']} knows {value['without']:.1%} of the taught questions, and "
                f"{value['with_demonstration']:.1%} with the demonstration shown"
            )
            if value["warning"]:
                print(f"  warning: {value['warning']}")
        elif key == "documents" and isinstance(value, list):
            print(f"  documents    {len(value)}")
            for told in value:
                if told["status"] != "read" or told["note"]:
                    print(f"               {told['path']}: {told['status']}; {told['note']}")
        elif key == "questions" and isinstance(value, dict):
            print(f"  {key:<12} {', '.join(f'{count} {what}' for what, count in value.items())}")
        elif key != "title":
            print(f"  {key:<12} {value}")

"""`astraml schema`, `models`, `completion`."""

from __future__ import annotations

import json
import sys

import click

__all__ = ["completion", "models", "schema"]


@click.command()
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="json: on one line.")
def schema(output: str) -> None:
    """Print the JSON Schema of a job spec."""
    from astraml_ray.spec import JobSpec

    json.dump(JobSpec.model_json_schema(), sys.stdout, indent=None if output == "json" else 2)
    print()


@click.command()
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def models(output: str) -> None:
    """List the models that have a short name."""
    import yaml

    from astraml_ray.settings import configs_folder

    found = []
    for file in sorted((configs_folder() / "models").glob("*.yaml")):
        text = file.read_text()
        source = yaml.safe_load(text).get("pretrained")
        found.append({"name": file.stem, "pretrained": source, "about": text.splitlines()[0].lstrip("# ")})
    if output == "json":
        print(json.dumps({"data": found}))
        return
    for model in found:
        print(f"{model['name']:16} {model['pretrained'] or 'from scratch':42} {model['about']}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes `astraml` in a shell.

    \b
    bash:  astraml completion bash > ~/.local/share/bash-completion/completions/astraml
    zsh:   astraml completion zsh > "${fpath[1]}/_astraml"
    fish:  astraml completion fish > ~/.config/fish/completions/astraml.fish
    """
    from click.shell_completion import get_completion_class

    from astraml_ray.cli.main import main

    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(main, {}, "astraml", "_ASTRAML_COMPLETE").source())

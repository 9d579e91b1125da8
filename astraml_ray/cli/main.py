"""`astraml`: the verbs."""

from __future__ import annotations

import json
import sys

import click

import astraml_ray
from astraml_ray.cli.demo import demo
from astraml_ray.cli.run import run
from astraml_ray.cli.verify import verify

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(astraml_ray.__version__, prog_name="astraml")
def main() -> None:
    """Train models on Ray: a job spec in, a trained model out.

    \b
    Exit codes: 0 done, 10 invalid spec or model, 20 data, 21 out of memory,
    22 numeric, 30 infrastructure or storage, 40 stopped.
    """


@main.command()
def schema() -> None:
    """Print the JSON Schema of a job spec."""
    from astraml_ray.spec import JobSpec

    json.dump(JobSpec.model_json_schema(), sys.stdout, indent=2)
    print()


@main.command()
def models() -> None:
    """List the models that have a short name."""
    import yaml

    from astraml_ray.settings import configs_folder

    for file in sorted((configs_folder() / "models").glob("*.yaml")):
        text = file.read_text()
        source = yaml.safe_load(text).get("pretrained", "from scratch")
        print(f"{file.stem:16} {source:42} {text.splitlines()[0].lstrip('# ')}")


main.add_command(run)
main.add_command(verify)
main.add_command(demo)

"""``python -m astraml_ray`` is the ``astraml`` command."""

from astraml_ray.cli.main import main

if __name__ == "__main__":
    main()

"""``python -m coopt_fl`` is ``coopt``."""

from coopt_fl.cli.main import main

if __name__ == "__main__":
    main()

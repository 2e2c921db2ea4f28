"""``python -m service`` is ``tessera``."""

from service.cli import main

if __name__ == "__main__":
    main()

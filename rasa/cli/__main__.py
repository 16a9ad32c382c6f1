"""``python -m rasa.cli``."""

from rasa.cli import main

main()

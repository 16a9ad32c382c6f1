"""``python -m rasa``."""

from rasa.cli import main

main()

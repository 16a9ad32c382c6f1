"""``python -m rasa_ram``, which ``torchrun -m rasa_ram`` runs once per process."""

from rasa_ram.cli import main

main()

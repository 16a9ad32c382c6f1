"""Commands of rasa_ram, one module each with a Typer called ``app``; ``rasa`` knows them as text."""

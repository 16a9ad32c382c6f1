"""One module per third-party model family; imported by ``rasa.registry`` when a model is asked for."""

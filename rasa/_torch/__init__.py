"""What all models on torch share; imported by adapters and by ``rasa_ram``, never by ``import rasa``."""

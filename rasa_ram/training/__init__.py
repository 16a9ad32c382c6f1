"""Training of RAM, RAM++ and Tag2Text: losses and, on top of them, the loop."""

"""The networks: ``torch.nn`` modules alone. They open no file and compute no loss."""

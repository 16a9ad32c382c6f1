"""Label a folder of any size: plan, work, store, and what is done with the labels."""

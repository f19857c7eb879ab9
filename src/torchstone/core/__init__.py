"""The ground floor: the experiment tree, the protocols, keys, ranks, durable files and verified stores.

Nothing is imported here, so that `core.tree` and the command line's `--help` stay free of torch.
"""

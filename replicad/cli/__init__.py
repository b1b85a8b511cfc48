"""``replicad-cli``: the command line over :mod:`replicad.client`, a folder's audit, keys and the benchmark.

A command is a module; main.py has them in a table and imports the one that is called. options.py: what all commands
take; output.py: what goes to standard output; errors.py: what goes to standard error, and the exit codes.
"""

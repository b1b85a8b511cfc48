"""``replicad-cli bench``: five workloads, measured from a client's side.

workloads.py is what is measured, rig.py the cluster it is measured on, command.py the options and the table.
"""

"""Sweeps: planned as a whole, then run on this machine or on a cluster.

    experiments -> plan (every distinct unfinished stage, once) -> local workers, or jobs of SLURM

Both hand each stage to the same worker, a process of its own with a clean command line: `python -m aliquot work`.
"""

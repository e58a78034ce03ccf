"""Sweeps: planned as a whole, then run on this machine or on a cluster.

    experiments -> plan (every distinct unfinished stage, once) -> local workers, or SLURM jobs

Both pass each stage to the same worker, a separate process with a simple command line: `python -m aliquot work`.
"""

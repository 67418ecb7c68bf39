"""What any training program needs, and knows nothing of this one.

files         atomic writes, digests, JSON lines
runs          numbered run folders
cache         where things are kept that can be made anew
log           a run's log file and the terminal, side by side; human formats
distributed   process groups that vanish when there is only one process
memory        the allocator, and how much memory was used
seeding       randomness derived from (seed, step, rank)

Nothing is imported here, so that `import dnnlib.files` never has to load torch.
"""

"""The protocols, once: what a parameter shard, a Downpour replica and an evaluator do, in whichever world.

Read in this order: `node` (the only door to the world), `messages`, `vector`, `pushes` (each push counts once), `rules`,
`shard`, `lane` (what passes between one replica and one shard), `downpour`, `evaluator`.  Nothing here knows of SimPy,
gRPC, files or clocks; torch is met only through the few tensor methods that `vector` names.
"""

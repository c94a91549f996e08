"""Settings become subtrees: what the composition root is made of; imported by nothing else."""

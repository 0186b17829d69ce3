"""The order of frames: permutation sets, order correction by Hamiltonian path, order reliance of any model."""

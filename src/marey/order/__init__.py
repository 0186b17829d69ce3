"""The order of frames: permutation sets, and order correction by Hamiltonian path."""

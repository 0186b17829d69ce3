"""The heaviest Hamiltonian path of a directed graph: exact up to 16 frames, beam search for more.

B graphs, T nodes; `weights[b, i, j]` is what the edge i -> j adds. The diagonal is ignored.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from marey.errors import UserError

EXACT_UP_TO = 16
"""Largest T solved exactly: 2^T * T values per graph, 4 MB at T=16."""
_CHUNK_VALUES = 2**22
"""Values held at once by the exact search, over the graphs of a chunk."""


def hamiltonian_path(weights: Tensor, *, beam_width: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the path of maximum total weight through every node once.

    Truong et al., "DirecFormer", CVPR 2022, section 4.3: the temporal attention is the adjacency
    matrix, and "the Hamilton path with maximum total weight is going to represent the order of the
    video". Exact by dynamic programming over subsets (Held and Karp) for T <= 16; `beam_path`
    beyond, or when `beam_width` is given. Between paths of equal weight the choice is
    deterministic.

    Args:
        weights: float, (B, T, T).
        beam_width: force the beam search with this many paths kept.

    Returns:
        path: int64, (B, T), nodes in the order visited; total: float64, (B,), its weight.

    Raises:
        UserError: if the shape is wrong, T < 2, or a weight is NaN or infinite.
    """
    check_weights(weights)
    T = weights.shape[-1]
    if beam_width is not None or T > EXACT_UP_TO:
        return beam_path(weights, width=beam_width or 512)
    chunk = max(1, _CHUNK_VALUES // (2**T * T))
    parts = [_exact_path(part) for part in weights.double().split(chunk)]
    return torch.cat([path for path, _ in parts]), torch.cat([total for _, total in parts])


def check_weights(weights: Tensor) -> None:
    """Raise a UserError unless the weights are finite, square and have at least two nodes."""
    if weights.ndim != 3 or weights.shape[1] != weights.shape[2]:
        raise UserError(
            f"expected weights of shape (B, T, T), got {tuple(weights.shape)}; "
            "average attention over heads and patches and drop the CLS column first"
        )
    if weights.shape[1] < 2:
        raise UserError("a clip of 1 frame has no order to recover; use at least 2 frames")
    bad = (~weights.isfinite()).flatten(1).sum(dim=1)
    if int(bad.sum()):
        index = int(bad.argmax())
        raise UserError(
            f"the attention of clip {index} has {int(bad[index])} values of "
            f"{weights[index].numel()} that are NaN or infinite; check the clip for them, or the "
            "checkpoint for a diverged training"
        )


@functools.lru_cache(maxsize=4)
def _subsets_by_size(T: int) -> tuple[Tensor, ...]:
    """Return for every size 0..T the subsets of that size, as bit masks."""
    masks = torch.arange(2**T)
    sizes = ((masks[:, None] >> torch.arange(T)) & 1).sum(dim=1)
    return tuple(masks[sizes == size] for size in range(T + 1))


def _exact_path(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Solve by dynamic programming: best[b, S, j] is the heaviest path over the nodes of S that
    ends in j."""
    B, T, _ = weights.shape
    best = weights.new_full((B, 2**T, T), -torch.inf)  # subsets S as bit masks
    came_from = torch.zeros(B, 2**T, T, dtype=torch.uint8, device=weights.device)
    nodes = torch.arange(T, device=weights.device)
    best[:, 1 << nodes, nodes] = 0
    # Grow the subsets by one node at a time; each size needs only the values of the size before.
    for subsets in _subsets_by_size(T)[1:T]:
        subsets = subsets.to(weights.device)
        for node in range(T):
            without = subsets[(subsets >> node) & 1 == 0]
            reach = (
                best[:, without] + weights[:, None, :, node]
            )  # (B, subsets, last node before `node`)
            value, previous = reach.max(dim=2)
            best[:, without | (1 << node), node] = value
            came_from[:, without | (1 << node), node] = previous.to(torch.uint8)
    total, last = best[:, -1].max(dim=1)
    return _walk_back(came_from, last), total


def _walk_back(came_from: Tensor, last: Tensor) -> Tensor:
    """Follow the stored predecessors from the last node to the first."""
    B, subsets, T = came_from.shape
    rows = torch.arange(B, device=last.device)
    path = torch.empty(B, T, dtype=torch.int64, device=last.device)
    subset = torch.full((B,), subsets - 1, device=last.device)
    for position in range(T - 1, -1, -1):
        path[:, position] = last
        previous = came_from[rows, subset, last].long()
        subset, last = subset - (1 << last), previous
    return path


def beam_path(weights: Tensor, *, width: int = 512) -> tuple[Tensor, Tensor]:
    """Search a heavy path by keeping the `width` heaviest partial paths at every length.

    Of partial paths over the same nodes with the same end only the heaviest is kept, so with a
    width of at least T * C(T-1, T/2) the search is exact. No bound holds for smaller widths; so
    that weights that are (nearly) the signs of one order recover that order at any T, the nodes
    sorted by outgoing minus incoming weight are tried as well, and the heavier path wins. Time and
    memory grow with B * width * T.

    Args, Returns, Raises: as `hamiltonian_path`.
    """
    check_weights(weights)
    weights = weights.double()
    B, T, _ = weights.shape
    device = weights.device
    key_of = torch.randint(2**62, (T,), generator=torch.Generator().manual_seed(0)).to(
        device
    )  # hashes of node sets
    end = torch.arange(T, device=device).expand(B, T)
    visited = torch.eye(T, dtype=torch.bool, device=device).expand(B, T, T)
    nodes = torch.arange(T, device=device)
    path = end[:, :, None]
    total = weights.new_zeros(B, T)

    # Each step extends every kept path by every node not on it, and keeps the heaviest of distinct
    # results.
    for _ in range(T - 1):
        grown = total[:, :, None] + weights.gather(
            1, end[:, :, None].expand(-1, -1, T)
        )  # (B, paths, next node)
        grown = grown.masked_fill(visited, -torch.inf)
        key = ((visited * key_of).sum(dim=2)[:, :, None] + key_of) * T + nodes
        total, index = _heaviest_distinct(grown.flatten(1), key.flatten(1), width)
        parent, end = index // T, index % T
        visited = visited.gather(1, parent[:, :, None].expand(-1, -1, T)) | (
            end[:, :, None] == nodes
        )
        path = torch.cat(
            [path.gather(1, parent[:, :, None].expand(-1, -1, path.shape[2])), end[:, :, None]],
            dim=2,
        )

    # The sorted order may be heavier than all paths the beam has kept.
    heaviest = total.argmax(dim=1)
    rows = torch.arange(B, device=device)
    path, total = path[rows, heaviest], total[rows, heaviest]
    other, other_total = sorted_path(weights)
    better = other_total > total
    return torch.where(better[:, None], other, path), torch.where(better, other_total, total)


def sorted_path(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sort the nodes by outgoing minus incoming weight: all T(T-1)/2 pairs count, a path uses T - 1
    of them.

    Not the paper's. It recovers the true order of a noiseless sign matrix at any T, and where
    weights are noisy it recovers more of the order than the heaviest path.

    Args, Returns, Raises: as `hamiltonian_path`.
    """
    check_weights(weights)
    weights = weights.double()
    path = (weights.sum(dim=2) - weights.sum(dim=1)).argsort(dim=1, descending=True, stable=True)
    rows = torch.arange(len(weights), device=weights.device)[:, None]
    return path, weights[rows, path[:, :-1], path[:, 1:]].sum(dim=1)


def shortest_path(distances: Tensor) -> Tensor:
    """Return the shortest path through every node once, int64 (B, T), of distances (B, T, T).

    It says which frames are neighbours and nothing of the direction: a path and its reversal are
    equally long.
    """
    return hamiltonian_path(-distances)[0]


def oriented_path(weights: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Take neighbours from appearance and the direction from the directed graph.

    Not the paper's: its path reads both from the directed graph, which the guided loss (Eq. 13)
    asks for the same +1 at every later frame, however far, so it does not say which frames are
    neighbours. Here the shortest path through the frames is turned round where the pairs along it
    weigh more the other way.

    Args:
        weights: float, (B, T, T), directed.
        distances: float, (B, T, T), symmetric, of the frames' appearance.

    Returns:
        As `hamiltonian_path`; total is the net weight of all pairs in the order returned, at least
        0.
    """
    check_weights(weights)
    path = shortest_path(distances)
    net = net_weight(weights, path)
    return torch.where(net[:, None] < 0, path.flip(1), path), net.abs()


def net_weight(weights: Tensor, path: Tensor) -> Tensor:
    """Return how much more the pairs of a path (B, T) weigh forwards than backwards, float64
    (B,)."""
    along = weights.double().gather(1, path[:, :, None].expand_as(weights))
    along = along.gather(2, path[:, None, :].expand_as(weights))
    return (along - along.transpose(1, 2)).triu(1).sum((1, 2))


def _heaviest_distinct(values: Tensor, keys: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the `width` largest values per row and their indices, of equal keys only the
    largest."""
    by_value = values.argsort(dim=1, descending=True, stable=True)
    by_key = keys.gather(1, by_value).argsort(dim=1, stable=True)
    index = by_value.gather(1, by_key)  # equal keys side by side, heaviest first
    sorted_keys = keys.gather(1, index)
    repeated = torch.zeros_like(sorted_keys, dtype=torch.bool)
    repeated[:, 1:] = sorted_keys[:, 1:] == sorted_keys[:, :-1]
    distinct = values.gather(1, index).masked_fill(repeated, -torch.inf)
    total, column = distinct.topk(min(width, distinct.shape[1]), dim=1)
    keep = int(total.isfinite().sum(dim=1).min())  # every row has as many: node symmetry
    return total[:, :keep], index.gather(1, column)[:, :keep]

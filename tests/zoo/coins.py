"""The random numbers behind the coins of a machine, worked out a second time."""

import torch


def uniform(rows, columns, chance):
    """The numbers that a coin is compared with, from whole 64-bit draws, four in each."""
    drawn = torch.empty(-(-rows * columns // 4), dtype=torch.int64)
    words = drawn.random_(-(2**63), None, generator=chance).tolist()
    quarters = [(word >> 16 * place) & 0xFFFF for word in words for place in range(4)]
    signed = [(quarter + 2**15) % 2**16 for quarter in quarters[: rows * columns]]
    return (torch.tensor(signed).double().reshape(rows, columns) + 0.5) / 2**16

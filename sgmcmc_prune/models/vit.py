"""A small vision transformer for small images."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Cut images into square patches and map each linearly to `width` channels: (n, c, h, w) to (n, tokens, width).

    Parameters
    ----------
    input_shape : tuple of int
        (channels, height, width).
    patch, width : int

    Raises
    ------
    ValueError
        If the images cannot be cut into whole patches.
    """

    def __init__(self, input_shape: tuple[int, ...], patch: int, width: int) -> None:
        super().__init__()
        if len(input_shape) != 3 or patch < 1 or any(size % patch for size in input_shape[1:]):
            raise ValueError(f"images of shape {tuple(input_shape)} do not divide into patches of {patch}x{patch}")
        self.patch = patch
        self.num_tokens = math.prod(size // patch for size in input_shape[1:])
        self.linear = nn.Linear(input_shape[0] * patch**2, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to tokens."""
        return self.linear(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2))


class Attention(nn.Module):
    """Multi-head self-attention; one linear layer makes queries, keys and values.

    It has as many heads as its weights: whole ones can be cut out.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_size, self.dropout = width // heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, tokens, width) to tokens."""
        q, k, v = self.qkv(x).unflatten(2, (3, -1, self.head_size)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def projections(model: nn.Module) -> dict[str, int]:
    """The weights that read what attention heads give, by name, and how many heads each reads."""
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, Attention)}
    return {f"{name}.proj.weight": a.proj.in_features // a.head_size for name, a in found.items()}


class Feedforward(nn.Sequential):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feedforward = Feedforward(width, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, tokens, width) to tokens."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feedforward(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Pre-norm transformer encoder on patches, with a class token and learned positions.

    With the defaults, one channel of 32x32 pixels and ten classes it has 3,186,954 parameters.

    Source: A. Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021; in the size used by Markovic et al.
    (arXiv 2309.12095).

    Parameters
    ----------
    input_shape : tuple of int
        (channels, height, width).
    num_classes : int
    patch, width, depth, heads, hidden : int
        Pixels on a patch's side, channels of a token, blocks, attention heads, units of a feedforward layer.
    dropout : float
        On embeddings, attention, hidden units and residual branches.

    Attributes
    ----------
    tokens : nn.Parameter, shape (1 + 1 + patches, width)
        The class token, then the position of each token, the class token's first.

    Raises
    ------
    ValueError
        If the images do not divide into patches, or the width into heads.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        patch: int = 4,
        width: int = 256,
        depth: int = 6,
        heads: int = 8,
        hidden: int = 512,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width is {width} and heads {heads}; the heads must divide the width")
        self.embedding = PatchEmbedding(input_shape, patch, width)
        self.tokens = nn.Parameter(torch.randn(self.embedding.num_tokens + 2, width) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        class_token = self.tokens[:1].expand(x.shape[0], 1, -1)
        x = torch.cat([class_token, self.embedding(x)], 1) + self.tokens[1:]
        return self.head(self.norm(self.blocks(self.dropout(x))[:, 0]))

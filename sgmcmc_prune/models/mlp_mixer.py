"""An MLP-Mixer for small images."""

from torch import Tensor, nn

from sgmcmc_prune.models.vit import Feedforward, PatchEmbedding


class MixerBlock(nn.Module):
    """Mix over tokens, then over channels: each a normalised feedforward network beside a skip connection."""

    def __init__(self, tokens: int, width: int, token_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.token_mixing = Feedforward(tokens, token_hidden)
        self.norm2 = nn.LayerNorm(width)
        self.channel_mixing = Feedforward(width, channel_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (n, tokens, width) to tokens."""
        x = x + self.token_mixing(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mixing(self.norm2(x))


class MLPMixer(nn.Module):
    """Two feedforward networks per block, one across tokens and one across channels; mean over tokens at the end.

    With the defaults, one channel of 32x32 pixels and ten classes it has 1,987,722 parameters.

    Source: I. Tolstikhin et al., "MLP-Mixer: an all-MLP architecture for vision", NeurIPS 2021; in the size used by
    Markovic et al. (arXiv 2309.12095).

    Parameters
    ----------
    input_shape : tuple of int
        (channels, height, width).
    num_classes : int
    patch, width, depth, token_hidden, channel_hidden : int
        Pixels on a patch's side, channels of a token, blocks, hidden units across tokens and across channels.

    Raises
    ------
    ValueError
        If the images do not divide into patches.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        patch: int = 4,
        width: int = 256,
        depth: int = 6,
        token_hidden: int = 512,
        channel_hidden: int = 512,
    ) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(input_shape, patch, width)
        tokens = self.embedding.num_tokens
        self.blocks = nn.Sequential(*(MixerBlock(tokens, width, token_hidden, channel_hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        return self.head(self.norm(self.blocks(self.embedding(x))).mean(1))

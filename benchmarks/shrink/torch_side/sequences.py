"""Networks of tokens and series."""

import torch
import torch.nn.functional as F
from torch import nn


def repeated(x, times):
    """Each head so many times, as in the models of transformers."""
    batch, heads, tokens, width = x.shape
    x = x[:, :, None].expand(batch, heads, times, tokens, width)
    return x.reshape(batch, heads * times, tokens, width)


class Attention(nn.Module):
    """Heads, of which some may share keys and values."""

    def __init__(self, width, heads, shared=None, causal=False, bias=True):
        super().__init__()
        shared = shared or heads
        self.heads, self.shared, self.causal = heads, shared, causal
        self.q = nn.Linear(width, width, bias)
        self.k = nn.Linear(width, shared * (width // heads), bias)
        self.v = nn.Linear(width, shared * (width // heads), bias)
        self.o = nn.Linear(width, width, bias)

    def forward(self, x):
        batch, tokens, _ = x.shape
        q = self.q(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        k, v = (f(x).view(batch, tokens, self.shared, -1).transpose(1, 2) for f in (self.k, self.v))
        if self.shared < self.heads:
            k, v = (repeated(t, self.heads // self.shared) for t in (k, v))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o(h.transpose(1, 2).reshape(batch, tokens, -1))


class Perceptron(nn.Module):
    """Up and down."""

    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class ViTLayer(nn.Module):
    """Norms before."""

    def __init__(self, width, causal=False):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, 12, causal=causal)
        self.norm2, self.mlp = nn.LayerNorm(width), Perceptron(width, 4 * width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """ViT-B/16."""

    def __init__(self, width=768):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 197, width))
        self.layers = nn.Sequential(*[ViTLayer(width) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.norm(self.layers(x))[:, 0])


class MixerLayer(nn.Module):
    """A perceptron on the tokens of each channel, and one on the channels of each token."""

    def __init__(self, tokens, width):
        super().__init__()
        self.norm1, self.tokens = nn.LayerNorm(width), Perceptron(tokens, 256)
        self.norm2, self.channels = nn.LayerNorm(width), Perceptron(width, 4 * width)

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """S/16."""

    def __init__(self, width=512):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 16, 16)
        self.layers = nn.Sequential(*[MixerLayer(196, width) for _ in range(8)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x):
        x = self.layers(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.norm(x).mean(1))


class SwinLayer(nn.Module):
    """Attention within windows of 7 x 7, moved by `shift`, and a perceptron."""

    def __init__(self, width, heads, shift):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Perceptron(width, 4 * width)
        self.shift = shift

    def forward(self, x):
        batch, height, width, _ = x.shape
        h = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        h = h.view(batch, height // 7, 7, width // 7, 7, -1).transpose(2, 3)
        h = self.attention(h.reshape(batch * height * width // 49, 49, -1))
        h = h.view(batch, height // 7, width // 7, 7, 7, -1).transpose(2, 3)
        h = h.reshape(batch, height, width, -1)
        x = x + torch.roll(h, (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class Merge(nn.Module):
    """Twice the features at half the sides, as in torchvision."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, False)

    def forward(self, x):
        quarters = [x[:, row::2, col::2] for col in (0, 1) for row in (0, 1)]
        return self.linear(self.norm(torch.cat(quarters, -1)))


class Swin(nn.Module):
    """Swin-T, with no bias by place and no masks."""

    def __init__(self, width=96):
        super().__init__()
        self.stem, self.norm1, layers = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width), []
        for stage, repeats in enumerate((2, 2, 6, 2)):
            if stage:
                layers.append(Merge(width << stage - 1))
            sizes = width << stage, 3 << stage
            layers += [SwinLayer(*sizes, 3 * (i % 2)) for i in range(repeats)]
        self.layers = nn.Sequential(*layers)
        self.norm2, self.head = nn.LayerNorm(8 * width), nn.Linear(8 * width, 1000)

    def forward(self, x):
        x = self.layers(self.norm1(self.stem(x).permute(0, 2, 3, 1)))
        return self.head(self.norm2(x).mean((1, 2)))


class BertLayer(nn.Module):
    """Norms behind."""

    def __init__(self, width):
        super().__init__()
        self.attention, self.norm1 = Attention(width, 8), nn.LayerNorm(width)
        self.mlp, self.norm2 = Perceptron(width, 4 * width), nn.LayerNorm(width)

    def forward(self, x):
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.mlp(x))


class Bert(nn.Module):
    """The small one with a classifier."""

    def __init__(self, width=512):
        super().__init__()
        self.words, self.places = nn.Embedding(30_522, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*[BertLayer(width) for _ in range(4)])
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.layers(self.norm(self.words(tokens) + self.places(places)))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class GPT2(nn.Module):
    """The smallest, whose head is the table of words."""

    def __init__(self, width=768):
        super().__init__()
        self.words, self.places = nn.Embedding(50_257, width), nn.Embedding(1024, width)
        self.layers = nn.Sequential(*[ViTLayer(width, causal=True) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 50_257, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.layers(self.words(tokens) + self.places(places))))


class Recurrent(nn.Module):
    """Two layers, `nn.LSTM` or `nn.GRU`, and a head on the last state."""

    def __init__(self, layer):
        super().__init__()
        self.first, self.second = layer(128, 512), layer(512, 256)
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.second(self.first(x)[0])[0][-1])


class RMSNorm(nn.Module):
    """A scale and the root of the mean square."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class DecoderLayer(nn.Module):
    """Grouped-query attention and a gated perceptron."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, 8, 4, causal=True, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, False), nn.Linear(width, hidden, False)
        self.down = nn.Linear(hidden, width, False)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    """32 layers; their sum goes in and comes out, so its width stays."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[DecoderLayer(512, 1408) for _ in range(32)])

    def forward(self, x):
        return self.layers(x)

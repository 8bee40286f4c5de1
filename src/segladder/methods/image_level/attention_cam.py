"""Attention CAM: one class token for each class in a vision transformer; where a token looks is where its class is.

Xu, Ouyang, Bennamoun, Boussaid, Xu: Multi-class Token Transformer for Weakly Supervised Semantic Segmentation, CVPR
2022, https://arxiv.org/abs/2203.02891: its first form, MCTformer-V1. Official code:
https://github.com/xulianuwa/MCTformer (no licence); written anew from its formulas. Published for the whole system
(V2, DeiT-small), mIoU on VOC 2012: seeds on train 61.7, segmentation on val / test 71.9 / 71.6 (unverified).

    logit of c = mean over channels of token c behind the last block
    A_c = sum over the last `layers` blocks of the mean over heads of the attention of token c to each patch
    R_c = P A_c,  P = sum over all blocks of the mean over heads of the attention of patches to patches

It asks for pretrained weights: the attention of random ones is near to uniform. Any plain vision transformer of timm
serves (class `VisionTransformer`: ViT, DeiT, DINO, DINOv2, CLIP). Its own tokens stay where they are and the class
tokens come in addition; in the official code they take the place of the one class token. They start as that token with
its position and a little noise, as in the code but for the noise. Maps lose their minimum before they are divided, as
there. Images are padded to whole patches, over which maps are stretched. Not here: V2's patch maps (those of `cam` on
this backbone) and their product with the attention.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods.image_level.base import ClassMapMethod
from segladder.nets.backbone import FeatureExtractor
from segladder.ops.cam import unit_range
from segladder.settings import Positive, Share

NOISE = 0.02  # standard deviation, timm's of new tokens
PARTS = ("qkv", "q_norm", "k_norm", "num_heads", "scale")  # of timm's attention that `attention` reads


class AttentionCAM(ClassMapMethod):
    """Class tokens in a vision transformer, and their attention as class maps.

    Args:
        backbone: the feature extractor, a plain vision transformer.
        num_classes: K, background included; there are K - 1 class tokens.
        background_score: the background's score in `predict`.
        layers: last blocks whose attention is summed; with more than there are, all of them.
        refine: whether patches share their maps by the attention between patches, R in place of A.
        common: the arguments of `Method`.

    Raises:
        ConfigError: another backbone.
    """

    backbone: FeatureExtractor

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        background_score: Share,
        layers: Positive,
        refine: bool,
        **common: Any,
    ) -> None:
        super().__init__(backbone, background_score, **common)
        start = first_token(transformer(backbone)).repeat(1, num_classes - 1, 1)
        self.class_tokens = nn.Parameter(start + NOISE * torch.randn_like(start))  # (1, C, D)
        self.layers = layers
        self.refine = refine

    def tag_logits(self, images: Tensor) -> Tensor:
        """Logits (B, C) of the tags for normalised images."""
        return self._tokens(images)[:, : self.class_tokens.shape[1]].mean(2)

    def class_maps(self, images: Tensor) -> Tensor:
        """Attention of the class tokens (B, C, h, w), refined if asked for; nowhere negative."""
        return self.maps_and_logits(images)[0]

    def unit_scores(self, maps: Tensor) -> Tensor:
        """Summed maps (B, C, h, w), each with its minimum at 0 and its maximum at 1, as in the official code."""
        return unit_range(maps)

    def maps_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, h, w) and logits (B, C) of one pass."""
        vit, classes = transformer(self.backbone), self.class_tokens.shape[1]
        first = classes + vit.num_prefix_tokens  # patch
        to_patches, between = [], [torch.zeros((), device=images.device)]

        def watch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            paid = attention(module, given[0], None if self.refine else classes)  # (B, N or C, N)
            to_patches.append(paid[:, :classes, first:].clone())
            between[0] = between[0] + paid[:, first:, first:]

        watching = [block.attn.register_forward_pre_hook(watch) for block in vit.blocks]
        try:
            tokens = self._tokens(images)
        finally:
            for hook in watching:
                hook.remove()
        maps = torch.stack(to_patches[-self.layers :]).sum(0)  # (B, C, h w)
        if self.refine:
            maps = maps @ between[0].transpose(1, 2)
        return maps.unflatten(2, vit.patch_embed.dynamic_feat_size(images.shape[-2:])), tokens[:, :classes].mean(2)

    def _tokens(self, images: Tensor) -> Tensor:
        """All tokens (B, N, D) behind the last block: those of classes, the transformer's own, those of patches."""
        vit = transformer(self.backbone)
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        tokens = torch.cat([self.class_tokens.expand(len(images), -1, -1), tokens], 1)
        for block in vit.blocks:
            tokens = block(tokens)
        behind: Tensor = tokens.float()
        return behind


def transformer(backbone: FeatureExtractor) -> Any:
    """The vision transformer of a backbone. Raises ConfigError if there is none whose attention can be read."""
    vit = getattr(getattr(backbone, "model", None), "model", None)
    blocks = vit.blocks if isinstance(vit, VisionTransformer) else ()
    if not blocks or not all(hasattr(getattr(block, "attn", None), part) for block in blocks for part in PARTS):
        raise ConfigError(
            f"backbone={getattr(backbone, 'name', 'tiny')}: method=attention_cam reads the attention of a plain vision"
            " transformer, expected one such as backbone=vit_small"
        )
    return vit


def first_token(vit: VisionTransformer) -> Tensor:
    """The class token (1, 1, D) with its position; zeros where the transformer has none."""
    if vit.cls_token is None:
        return torch.zeros(1, 1, vit.embed_dim)
    token = vit.cls_token.detach()
    return token if vit.no_embed_class or vit.pos_embed is None else token + vit.pos_embed[:, :1].detach()


def attention(module: Any, tokens: Tensor, count: int | None = None) -> Tensor:
    """Mean over heads (B, Q, N) of the attention that a timm module pays; rows sum to 1.

    Args:
        module: one with `PARTS`.
        tokens: its input (B, N, D).
        count: Q, of leading tokens whose attention is asked for; None: all.
    """
    batch, length, _ = tokens.shape
    parts = module.qkv(tokens).reshape(batch, length, 3, module.num_heads, -1).permute(2, 3, 0, 1, 4)
    queries, keys = module.q_norm(parts[0]) * module.scale, module.k_norm(parts[1])  # (heads, B, N, D / heads)
    total = torch.zeros((), device=tokens.device)
    for asked, known in zip(queries[:, :, :count], keys, strict=True):  # heads one by one: all at once take gigabytes
        total = total + (asked @ known.transpose(1, 2)).float().softmax(-1)
    mean: Tensor = total / module.num_heads
    return mean

"""Recipes: named configs. A variation is a `dataclasses.replace`, or flags beside `--recipe`."""

import dataclasses

from headwise.augment import AugmentConfig, simclr, simclr_small
from headwise.data import DataConfig
from headwise.encoders.build import SMALL_RESNET, EncoderConfig
from headwise.errors import UserError, nearest
from headwise.heads import HeadConfig
from headwise.model.config import PretrainConfig
from headwise.model.optim import OptimConfig

RECIPES = (
    "default",
    "small",
    "demo",
    "cifar10",
    "speedrun-cifar10",
    "imagenet",
    "deepfusion",
    "deepfusion-first",
    "deepfusion-later",
    "transfusion",
)


def recipe(name: str) -> PretrainConfig:
    """The config of this name. Raises `UserError` for an unknown one."""
    match name:
        case "default":
            return PretrainConfig()
        case "small":
            return small()
        case "demo":
            return demo()
        case "cifar10":
            return cifar10()
        case "speedrun-cifar10":
            return speedrun_cifar10()
        case "imagenet":
            return imagenet()
        case "deepfusion":
            return deepfusion()
        case "deepfusion-first":
            return deepfusion_first()
        case "deepfusion-later":
            return deepfusion_later()
        case "transfusion":
            return transfusion()
    raise UserError(f"--recipe must be known; got {name!r}; {nearest(name, RECIPES)}")


def small() -> PretrainConfig:
    """A small ResNet for trials on a CPU, on images of 32 px or so: a minute for 60,000 views."""
    return PretrainConfig(encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided"), epochs=40)


def demo() -> PretrainConfig:
    """`make demo`: 2,000 of the built-in shapes at 20 px, a small encoder and a Transformer head of
    its size, so that five seeds of three heads take some minutes on two cores.

    Crops keep most of the image, so that a shape stays whole. Hue is turned all the way round and
    half of the views are grey: otherwise colour alone tells the images apart, and shape need not
    be learned.
    """
    return PretrainConfig(
        data=DataConfig(spec="builtin:shapes", limit=2000),
        augment=AugmentConfig(
            size=20,
            crop_scale=(0.4, 1.0),
            strength=1.0,
            colour=(0.4, 0.4, 0.8, 0.5),
            grey=0.5,
            blur=0.0,
        ),
        encoder=EncoderConfig(name=SMALL_RESNET, stem="small-strided", widths=(8, 16, 32, 64)),
        head=HeadConfig(name="transformer", width=64, num_heads=8, output_size=128),
        epochs=17,
        batch_size=64,
        temperature=0.2,
    )


def cifar10() -> PretrainConfig:
    """CIFAR-10 as in the authors' repository (google-research/simclr, README): ResNet-18 with the
    small stem, batch 512, 1000 epochs, LARS 1.0 with weight decay 1e-4, τ 0.5. About 91 % linear
    there; not run here."""
    return PretrainConfig(
        encoder=EncoderConfig(name="resnet18", stem="small"),
        augment=simclr_small(),
        optim=OptimConfig(lr=1.0, lr_scaling="none", weight_decay=1e-4, warmup_epochs=10.0),
        epochs=1000,
        batch_size=512,
    )


def speedrun_cifar10() -> PretrainConfig:
    """CIFAR-10 to 90 % k-NN (cosine, k = 10, on h) in little time on one GPU, from the settings of
    the public mark, 99 minutes on an A100 (dkobak/simclr-cifar10): ResNet-18 with the small stem,
    SGD 0.03·B/256, τ 0.5, crops of a fifth or more, one view in ten grey, head without BatchNorm;
    twice its batch. Not run here."""
    return PretrainConfig(
        data=DataConfig(spec="torchvision:CIFAR10"),
        encoder=EncoderConfig(name="resnet18", stem="small"),
        head=HeadConfig(name="mlp", width=1024, output_size=128, batch_norm=False),
        augment=AugmentConfig(crop_scale=(0.2, 1.0), strength=0.5, grey=0.1, blur=0.0),
        optim=OptimConfig(name="sgd", lr=0.03, weight_decay=5e-4, warmup_epochs=10.0),
        epochs=500,
        batch_size=1024,
        knn_every=25,
    )


def imagenet() -> PretrainConfig:
    """ImageNet as in the paper (arXiv 2002.05709, 2.2): ResNet-50, batch 4096, 100 epochs, LARS
    with 0.075·√B and weight decay 1e-6, τ 0.1. 64.5 % linear there; not run here."""
    return PretrainConfig(
        encoder=EncoderConfig(name="resnet50", stem="standard"),
        augment=simclr(),
        optim=OptimConfig(warmup_epochs=10.0),
        epochs=100,
        batch_size=4096,
        temperature=0.1,
    )


def deepfusion() -> PretrainConfig:
    """Deep Fusion as in its code (arXiv 2403.18681): ResNet-50 with the standard stem even at
    32 px, Linear(p, 256), ten blocks post-norm with 16 heads and GELU, Linear(256, 512) and
    BatchNorm; batch 1024, SGD 8e-5, τ 0.02, 1000 epochs. Not run here."""
    return PretrainConfig(
        encoder=EncoderConfig(name="resnet50", stem="standard"),
        augment=simclr_small(),
        head=HeadConfig(name="transformer", depth=10, norm="post", double_projection=True),
        optim=OptimConfig(name="sgd", lr=8e-5, weight_decay=5e-4, warmup_epochs=0.0),
        epochs=1000,
        batch_size=1024,
        temperature=0.02,
    )


def deepfusion_first() -> PretrainConfig:
    """The first commit of Deep Fusion's code: four attention heads, ReLU, BatchNorm and no
    residuals; batch 512, 100 epochs. Not run here."""
    head = HeadConfig(
        name="transformer",
        depth=10,
        num_heads=4,
        activation="relu",
        norm="batch",
        residual=0.0,
        double_projection=True,
    )
    return dataclasses.replace(deepfusion(), head=head, epochs=100, batch_size=512)


def deepfusion_later() -> PretrainConfig:
    """The later variant of Deep Fusion's code: five blocks of width p with eight heads, then
    SimCLR's MLP p-p-128; ResNet-50 at 224 px, τ 0.1, LARS 0.075·√B with weight decay 1e-6,
    ten epochs of warm-up, batch 128, 100 epochs. Not run here."""
    head = HeadConfig(
        name="transformer", depth=5, num_heads=8, norm="post", output="mlp", output_size=128
    )
    return dataclasses.replace(imagenet(), head=head, batch_size=128)


def transfusion() -> PretrainConfig:
    """TransFusion, the first version of Deep Fusion (arXiv 2403.18681v1), on a small encoder: five
    layers of ReLU attention behind the MLP p-512-128, and the divergence of the affinities of z
    from those of the twins as the loss. Its optimizer is not known; this one is ours."""
    return dataclasses.replace(
        small(),
        head=HeadConfig(name="transfusion"),
        optim=OptimConfig(name="adamw"),
        objective="affinity",
    )

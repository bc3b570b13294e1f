"""Settings that have a name; `--preset NAME` takes one."""

from dataclasses import replace

from wsss.config import Config


def voc() -> Config:
    """The paper's setting on PASCAL VOC 2012 with SBD: WideResNet-38, 448 crops, 20 epochs.

    The paper took 372 minutes on two GTX 1080Ti and reports 65.2 % mIoU on val without CRF (Tables 1 and 7); nobody has
    run this preset here to its end.
    """
    return Config()


def animals() -> Config:
    """Six animal classes of VOC with EfficientNet-Lite2, made for two CPU cores. README and results tell its score."""
    return replace(
        voc(),
        encoder="tf_efficientnet_lite2",
        frozen_stages=2,
        shape_stage=2,
        image_pooling=False,
        aspp_channels=96,
        decoder_channels=96,
        short_side=288,
        crop=256,
        least_scale=0.35,
        test_short_side=288,
        class_cutoff=0.3,
        test_refine_steps=10,
        cache=True,
        workers=0,
        teacher="average",
        focal_power=8.0,
        focal_warmup_only=True,
        alpha_start=0.97,
        alpha=0.88,
        background_affinity=True,
        object_cutoff_start=0.6,
        object_cutoff=0.52,
        background_cutoff_start=0.65,
        background_cutoff=0.65,
        balance_classes=False,
        epochs=12,
        lr=2e-2,
        encoder_lr=3e-3,
        warmup_epochs=1,
        ema_decay=0.995,
        region_weight=0.1,
        eval_epochs=2,
    )


def tiny() -> Config:
    """Drawn shapes, no download, under a minute on a CPU; the tests and the first steps of a newcomer use it."""
    return replace(
        animals(),
        dataset="shapes",
        encoder="tf_efficientnet_lite0",
        train_split="train",
        crop=64,
        short_side=0,
        test_short_side=0,
        class_cutoff=0.0,
        test_refine_steps=0,
        aspp_channels=32,
        decoder_channels=32,
        epochs=8,
        warmup_epochs=3,
        log_steps=5,
        eval_epochs=0,
    )


PRESETS = {"voc": voc, "animals": animals, "tiny": tiny}

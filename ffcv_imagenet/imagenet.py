"""ImageNet's customary values: defaults of options that other data sets may need to change."""

#: Mean and standard deviation of the training images per channel (RGB), in 0..1; torchvision's figures.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: What is cut out of the centre of validation images, as a share of the shorter side: 224 of 256 pixels.
IMAGENET_CENTER_CROP = 224 / 256

#: The second score, next to top-1: the target is one of this many largest logits.
IMAGENET_TOP_K = 5

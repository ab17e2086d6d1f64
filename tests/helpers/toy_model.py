"""Networks that are no torchvision models, and what is none."""

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class Toy(nn.Sequential):
    """A convolution and a linear layer."""

    def __init__(self, num_classes, width=4):
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), *pool, nn.Linear(width, num_classes))


class Narrow(nn.Module):
    """Named like a ResNet, and small enough for fp16, which CPUs are slow at."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 5, stride=3, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.fc = nn.Conv2d(16, 32, 3, stride=2), nn.Linear(32, num_classes)

    def forward(self, x):
        x = self.conv2(self.bn1(self.conv1(x)).relu()).relu()
        return self.fc(x.mean(dim=(2, 3)))


class Small(ResNet):
    """resnet10 with an eighth of its channels: a whole run of it takes a tenth of the time."""

    def __init__(self, num_classes):
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(8)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.5  # so that twelve steps are enough for its statistics

    def _make_layer(self, block, planes, *arguments, **options):
        self.inplanes = 8 if planes == 64 else self.inplanes
        return super()._make_layer(block, planes // 8, *arguments, **options)


class SmallWithDropout(Small):
    """Its weights depend on the state of torch's random numbers."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.fc = nn.Sequential(nn.Dropout(0.5), self.fc)


class Plain(nn.Sequential):
    """Without normalisation: what one image gives depends on no other."""

    def __init__(self, num_classes):
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(nn.Conv2d(3, 16, 5, stride=3), nn.ReLU(), *pool, nn.Linear(16, num_classes))


def features(num_classes):
    """A network without a last layer: its output is not [B, K]."""
    return nn.Sequential(*list(Toy(num_classes))[:-1])


def no_network(num_classes):
    return num_classes


def without_classes():
    return Toy(10)

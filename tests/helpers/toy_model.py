"""Networks that are no torchvision models, and what is none."""

from torch import nn


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


def features(num_classes):
    """A network without a last layer: its output is not [B, K]."""
    return nn.Sequential(*list(Toy(num_classes))[:-1])


def no_network(num_classes):
    return num_classes


def without_classes():
    return Toy(10)

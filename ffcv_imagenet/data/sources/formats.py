"""The forms in which data sets come: plain text, so that help texts and configurations need nothing else."""

from __future__ import annotations

#: What ``data.format`` takes, with what ``data.root`` is then. A file of that name in this folder reads it.
FORMATS = {
    "folder": "a folder with train/ and val/, each one folder per class",
    "tar": "a tar archive of such a folder (compressed or not), or a folder with train.tar and val.tar",
    "zip": "a ZIP archive of such a folder, or a folder with train.zip and val.zip (and train_map.txt, val_map.txt)",
    "imagenet": "a folder with ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz",
    "kaggle": "imagenet-object-localization-challenge.zip, or the folder that it unpacks to",
    "cifar": "cifar-10-python.tar.gz, cifar-10-binary.tar.gz or those of CIFAR-100, or the folder of one",
    "webdataset": "a folder of shards with train and val in their names, or a pattern: a-{train,val}-{000..146}.tar",
    "parquet": "a folder of shards as on the Hugging Face hub (train-00000-of-00294.parquet), or a pattern",
    "cub": "CUB_200_2011.tgz, or the folder that it unpacks to",
    "cars": "a folder with cars_train, cars_test, devkit (or their .tgz) and cars_test_annos_withlabels.mat",
    "csv": "a CSV file with path,label,split, or a folder with train.csv and val.csv",
}

#: Before the name of a class in torchvision.datasets, which reads what is in ``data.root``; vision.py.
TORCHVISION = "torchvision:"

#: Those that say nothing but where the class folders are; the others go first, because they lie in such files, too.
GENERAL = ("folder", "tar", "zip")

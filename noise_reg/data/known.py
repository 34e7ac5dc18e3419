"""Contents that are known: by data set and the file it is from, its `Dataset.sha256`.

Every run that an earlier version stored from one of these was trained on this content, for nothing else passed under that name.
"""

KNOWN_CONTENT = {
    ("fmnist", "fmnist.npz"): "87f7d9eed8e14d2c4f006cd7cd34b33f19f3a2f57bb4faed1a9e3739b7c37f08",
    ("mnist", "mnist.npz"): "1fbf99d92a9e2ed9c8fe4d070f61bd82eca20e8d362c7518d9931c2837ab5d8a",
    ("mnist_binary", "mnist.npz"): "f94278368d3083f307d1a6e6543a5c7f24b562ff8f37cf13b02aeea178aee4b2",
    ("usps", "usps.npz"): "25e9db0c3108c36d9d761c6109d2a40e7056afbd614dbc28b4bdb232ddfaddaf",
    ("digits", "sklearn.datasets.load_digits"): "2216f6d1547523509960accf737bfaa3659565fe93b582c63b16402784ba01d6",
}

# By data set, its `Dataset.test_sha256`: the prepared USPS file and torchvision's have the same test images.
KNOWN_TEST_CONTENT = {"usps": "5add3f042858466bf76c3f03b68774ab66574046a2bc87822862b295b674e7dc"}

"""Random weights with life in them: models of every task that find plenty, without training."""

import torch
from ultralytics import YOLO

SIZE = 160
CLASS_BIAS = -1.0  # of the class scores: enough of them pass a threshold
BINS = 16  # of a box's side
SIDES = (5, 2, 5, 2)  # how far a box goes to the left, up, to the right and down, in cells: it is no square
SURE = 10.0  # a logit that decides
DECIDED = 300.0  # times the weights of a classifier, for one class to be far more likely than a thousand others
PATCHES = 8  # of a side


def live(yaml, path, seed=2):
    """A model of `yaml` in `path`, whose outputs vary with the image. Returns it, to be changed and saved again."""
    torch.manual_seed(seed)  # of what stays as it is made
    yolo = YOLO(yaml)
    generator = torch.Generator().manual_seed(seed)
    for layer in yolo.model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_var.fill_(1.0), layer.running_mean.zero_(), layer.weight.data.fill_(1.0)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            scale = (2.0 / layer.weight[0].numel()) ** 0.5
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * scale
    head = yolo.model.model[-1]
    if yolo.task != "classify":
        for branch in head.cv3:
            branch[-1].bias.data.fill_(CLASS_BIAS)
        sides = torch.nn.functional.one_hot(torch.tensor(SIDES), BINS).flatten() * SURE
        for branch in head.cv2:
            branch[-1].weight.data.zero_(), branch[-1].bias.data.copy_(sides)
        head.dfl.conv.weight.data = torch.arange(BINS, dtype=torch.float).view(1, BINS, 1, 1)
    if yolo.task == "segment":
        _vary(yolo.model, head.proto.cv3.bn, generator)
    if yolo.task == "classify":
        head.linear.weight.data *= DECIDED
    return save(yolo, path)


def _vary(model, layer, generator):
    """Normalise a layer by what it sees of a patchy picture, so that its maps have both signs: masks have shapes."""
    patches = torch.rand(1, 3, PATCHES, PATCHES, generator=generator)
    model.eval(), layer.train()
    layer.momentum = 1.0
    with torch.no_grad():
        model(torch.nn.functional.interpolate(patches, size=(SIZE, SIZE), mode="bilinear"))


def save(yolo, path):
    yolo.model.eval()
    torch.save({"model": yolo.model, "train_args": {"imgsz": SIZE, "task": yolo.task}, "epoch": -1}, path)
    return yolo

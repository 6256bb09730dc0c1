"""Occlusion with GoogLeNet to be looked at: ten photographs, and figure 7's panels for three.

    .venv/bin/python -m benchmarks.occluded PHOTOS --weights FILE -o build/occluded

PHOTOS is a folder of one photograph a class of ImageNet, sorted as the classes are. Nothing that it
writes may be committed: the photographs are ImageNet's.
"""

import argparse
from pathlib import Path

import optogram as og

CLASSES = (1, 99, 207, 281, 340, 407, 555, 671, 817, 963)
PANELS = (259, 479, 160)  # Pomeranian, car wheel, Afghan hound


def main() -> None:
    """Write an overlay a photograph and a sheet of panels a class, and say what they hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/occluded"))
    asked = parser.parse_args()
    net = og.load("googlenet-bvlc", weights=asked.weights)
    files = sorted(asked.photos.glob("*.jpg"))
    asked.output.mkdir(parents=True, exist_ok=True)
    for number in CLASSES:
        image = og.zoo.image_for(net, str(files[number]))
        made = og.occlusion(net, image, f"output:{number}", patch=48, stride=22)
        made.over(image).save(asked.output / f"{number}.png")
        print(net.label(number), made)
    for number in PANELS:
        image = og.zoo.image_for(net, str(files[number]))
        unit = f"output:{net.label(number)}"
        sheet = og.occlusion_panels(net, image, unit, patch=45, stride=12)
        sheet.save(asked.output / f"panels-{number}.png")
        print(net.label(number), *sheet, sep="\n  ")


if __name__ == "__main__":
    main()

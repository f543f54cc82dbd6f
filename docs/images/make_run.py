"""Makes docs/images/run.svg: a real run, as it looks on a terminal while it works and at its end.

    python docs/images/make_run.py IMAGES WEIGHTS          for example ../shared/data/coco/images, a yolo11n.pt

The run takes place in a folder of its own. Its last live view before three quarters of the images are done is drawn,
and its summary, by the renderables that `farm run` itself draws with. The picture loads nothing: rich's own template
would fetch a font over the network.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from pathlib import Path

from rich.console import Console
from rich.text import Text

import farm
from farm.api import Hooks
from farm.core.summary import Snapshot
from farm.report.closing import print_summary
from farm.report.live import LiveView

PICTURE = Path(__file__).with_name("run.svg")
COMMAND = "farm run source=photos model=yolo11n.pt output=runs/mine"
COLUMNS = 104
SHOWN_AT = 0.75  # of the images
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("/data"), help="made, and removed at the end")
    arguments = parser.parse_args()
    images, weights = arguments.images.resolve(), arguments.weights.resolve()
    arguments.folder.mkdir()
    try:
        os.chdir(arguments.folder)
        Path("photos").symlink_to(images)
        shutil.copyfile(weights, "yolo11n.pt")
        PICTURE.write_text(picture(), encoding="utf-8")
    finally:
        os.chdir("/")
        shutil.rmtree(arguments.folder)
    print(PICTURE)


def picture() -> str:
    """The run's two moments, as an SVG."""
    console = Console(record=True, force_terminal=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    place = os.getcwd()
    view = LiveView(console, f"labelling {place}/photos into {place}/runs/mine")
    moment = Text()

    def look(snapshot: Snapshot) -> None:
        nonlocal moment
        view.pace.note(snapshot.elapsed_s, snapshot.done, any(worker.images for worker in snapshot.workers))
        if snapshot.total and 0 < snapshot.done <= SHOWN_AT * snapshot.total:
            moment = view.render(snapshot)  # type: ignore[assignment]

    summary = farm.run({}, COMMAND.split()[2:], Hooks(on_snapshot=look))
    console.print(Text.assemble(("$ ", "dim"), COMMAND))
    console.print(moment)
    console.print(Text("\n# at the end", style="dim"))
    print_summary(console, summary, COMMAND)
    return console.export_svg(title="farm run", code_format=FORMAT, unique_id="farm")


if __name__ == "__main__":
    main()

# Copyright 2026 The LiteLVLM authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
J, F and J&F of a model on videos with fewer and fewer visual tokens; by default of the embedded model on RefShapes
that moves, frame by frame.

    python scripts/measure_video.py
    python scripts/measure_video.py --model litelvlm-lisa-7b --data ref-davis --data-root data --tokens all 196 \\
        --tracker facebook/sam2.1-hiera-large
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import litelvlm
from litelvlm.commands.loading import parse_budget
from litelvlm.data.refvos import SPLITS
from litelvlm.data.registry import VIDEO_NAMES, load_videos
from litelvlm.evaluation.report import markdown_table, with_interval
from litelvlm.evaluation.videos import measure_videos, video_figures
from litelvlm.video import load_tracker
from litelvlm.writing import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=litelvlm.TINY_MODEL, help="folder or Hub id (default: the embedded model)")
    parser.add_argument("--data", choices=VIDEO_NAMES, default="refshapes")
    parser.add_argument("--data-root", default=".", help="the folder that holds ref-davis or ref-youtube-vos")
    parser.add_argument("--split", choices=SPLITS, default="valid")
    parser.add_argument("--videos", type=int, default=20, help="the first ones (default: 20)")
    parser.add_argument("--seed", type=int, default=1234, help="of RefShapes' clips and of the bootstrap")
    parser.add_argument(
        "--tokens", nargs="+", default=["all", "85", "28"], help="visual tokens, shares or all (default: all 85 28)"
    )
    parser.add_argument("--tracker", help="folder or Hub id of a SAM 2 for videos (default: every frame is asked)")
    parser.add_argument("--key-frames", type=int, help="how many frames are asked about; with --tracker")
    parser.add_argument("--device-map", help="as in Transformers, such as auto")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    model = litelvlm.LiteLVLMForSegmentation.from_pretrained(
        options.model, device_map=options.device_map, dtype="auto"
    )
    processor = litelvlm.LiteLVLMProcessor.from_pretrained(options.model)
    size = 2 * model.config.backbone_config.vision_config.image_size
    tracker = load_tracker(options.tracker, model.device)  # once, and not for each expression
    videos = load_videos(
        options.data, options.split, options.data_root, num_videos=options.videos, size=size, seed=options.seed
    )
    lines = []
    for tokens in options.tokens:
        budget = parse_budget(tokens, model.config)
        kept: dict[str, Any] = {"pruning_method": "none"} if budget is None else {"num_retained_tokens": budget}
        rows = list(measure_videos(model, processor, videos, tracker=tracker, key_frames=options.key_frames, **kept))
        figures = video_figures(rows, options.seed)
        names = {"J": "j", "F": "f", "J&F": "j_and_f"}
        lines.append(
            {"visual tokens": tokens}
            | {title: with_interval(figures, name) for title, name in names.items()}
            | {"expressions": len(rows)}
        )
        print(lines[-1], flush=True)
    frames = sum(len(video.load_frames) for video in videos)
    how = f"{options.key_frames or 1} key frame(s) and a tracker" if options.tracker else "frame by frame"
    report = f"""# Videos

    python {shlex.join(sys.argv)}

{options.data} {options.split}, {len(videos)} videos of {frames} frames together, {how},
answered freely. J, F and J&F in percent, means over the expressions, with 95 % intervals (bootstrap over videos).

{markdown_table(lines)}
"""
    if options.table:
        write_text(options.table, report)
    print(report)


if __name__ == "__main__":
    main()

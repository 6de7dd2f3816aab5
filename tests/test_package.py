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
"""The package's face: small and lazy, known to Transformers, and complete."""

import os
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, LlavaForConditionalGeneration, LlavaProcessor

import litelvlm
from litelvlm import LiteLVLMConfig


def run_python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def test_the_face_is_lazy_and_complete():
    code = (
        "import sys; sys.argv = ['litelvlm']; import litelvlm; "
        "assert 'transformers' not in sys.modules; assert set(litelvlm.__all__) <= set(dir(litelvlm)); "
        "[getattr(litelvlm, name) for name in litelvlm.__all__]; "
        "print(litelvlm.list_pruning_methods(before=True)[:1])"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['")


def test_importing_the_package_registers_with_transformers():
    code = (
        "import litelvlm; from transformers import AutoModel, pipeline; "
        "assert type(AutoModel.from_pretrained(litelvlm.TINY_MODEL)) is litelvlm.LiteLVLMForSegmentation; "
        "pipe = pipeline('referring-segmentation', model=str(litelvlm.TINY_MODEL)); "
        "print(type(pipe) is litelvlm.ReferringSegmentationPipeline, 'fastv' in litelvlm.list_pruning_methods())"
    )
    done = run_python("-c", code)
    assert done.stdout.endswith("True True\n"), done.stderr


def test_an_unknown_name_of_the_face_is_refused():
    with pytest.raises(AttributeError, match="module 'litelvlm' has no attribute 'segmnt'"):
        litelvlm.segmnt  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        import_module("litelvlm.litelvlm")


@pytest.mark.parametrize(
    ("arguments", "is_command_line"),
    [
        (["-u", "-m", "litelvlm", "--version"], True),  # as torchrun and accelerate start it
        (["-m", "mine", "litelvlm"], False),
    ],
)
def test_only_the_command_line_puts_the_registration_off(arguments, is_command_line, tmp_path):
    """Transformers is imported together with the package, but for the command line."""
    (tmp_path / "mine.py").write_text("import litelvlm\n")
    # A module that Python imports first by itself; at the end it tells what was imported
    tells = "lambda: print('registered:', 'litelvlm.registration' in sys.modules)"
    (tmp_path / "sitecustomize.py").write_text(f"import atexit, sys\natexit.register({tells})\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = run_python(*arguments, env=environment, cwd=tmp_path)
    assert done.stdout.endswith(f"registered: {not is_command_line}\n"), done.stdout + done.stderr


@pytest.fixture
def backbone(config_values, processor, tmp_path):
    """Folders of a tiny LLaVA with its processor and of its CLIP, and the LLaVA."""
    config = LiteLVLMConfig(**config_values)
    llava = LlavaForConditionalGeneration(config.backbone_config)
    vision = config.vision_config.to_dict()
    clip = CLIPModel(CLIPConfig(text_config=config.guide_config.to_dict(), vision_config=vision, projection_dim=16))
    LlavaProcessor(
        processor.image_processor,
        processor.tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=processor.chat_template,
        num_additional_image_tokens=1,
    ).save_pretrained(tmp_path / "lvlm")
    llava.save_pretrained(tmp_path / "lvlm")
    clip.save_pretrained(tmp_path / "clip")
    processor.guide_tokenizer.save_pretrained(tmp_path / "clip")
    return tmp_path / "lvlm", tmp_path / "clip", llava


def test_one_call_wraps_a_backbone_and_its_processor(backbone):
    folder, clip, llava = backbone
    model, processor = litelvlm.from_backbone(folder, clip, num_retained_tokens=6, local_files_only=True)
    assert type(model) is litelvlm.LiteLVLMForConditionalGeneration and model.config.num_retained_tokens == 6
    assert type(processor) is litelvlm.LiteLVLMProcessor
    # A model made from a configuration knows no name, so its processor's is given
    with pytest.raises(ValueError, match="does not know where it was loaded from"):
        litelvlm.from_backbone(llava, clip)
    wrapped, other = litelvlm.from_backbone(llava, clip, processor=folder, num_retained_tokens=6)
    assert wrapped.model.backbone is llava.model
    image = Image.new("RGB", (40, 30))
    assert torch.equal(other(image, "a dog")["input_ids"], processor(image, "a dog")["input_ids"])

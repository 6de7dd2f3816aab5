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
"""What the checkpoints in LISA's layout differ in beside their keys: how they are asked, and what they answer."""

from dataclasses import dataclass

from ..modeling.chat_litelvlm import LLAVA_V1_CHAT_TEMPLATE, QUESTION_TEMPLATES

LLAMA_2_CHAT_TEMPLATE = (
    "{% set start = namespace(is_next=true, system='You are a helpful language and vision assistant. You are able to "
    "understand the visual content that the user provides, and assist the user with a variety of tasks using natural "
    "language.') %}"
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set parts = [{'type': 'text', 'text': message['content']}] %}"
    "{% else %}{% set parts = message['content'] %}{% endif %}"
    "{% if message['role'] == 'system' and loop.first %}"
    "{% set start.system = parts | map(attribute='text') | join %}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' if start.is_next else '<s>[INST] ' }}"
    "{% if start.is_next %}{{ '<<SYS>>\\n' + start.system + '\\n<</SYS>>\\n\\n' }}{% endif %}"
    "{% set start.is_next = false %}"
    "{% for part in parts %}{% if part['type'] == 'image' %}"
    "{{ '<im_start><image><im_end>\\n' }}{% endif %}{% endfor %}"
    "{% for part in parts %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{% generation %}{{ ' ' }}"
    "{% for part in parts %}{{ part['text'] }}{% endfor %}{{ ' </s>' }}{% endgeneration %}"
    "{% else %}{{ raise_exception('Roles are user and assistant, and system in the first message, not ' "
    "+ message['role'] + '.') }}{% endif %}"
    "{% endfor %}"
)
# What LISA was trained on, under the names of the official scripts
CONVERSATIONS = {"llava_v1": LLAVA_V1_CHAT_TEMPLATE, "llava_llama_2": LLAMA_2_CHAT_TEMPLATE}
IMAGE_MARKS = ("<im_start>", "<im_end>")


@dataclass(frozen=True)
class Preset:
    """
    Args:
        opening (`str`): what stands before the first question, as Jinja reads it; LISA's by default.
        question_template (`str`): one that the checkpoint was trained with.
        guide_form (`str`): of the processor; CLIP need not read a question that is mostly instruction.
        rejection_token (`str`, *optional*): said in the place of [SEG] where nothing in the image is meant.
        left_out (`str`, *optional*): what the original does and the converted model does not.
    """

    opening: str = r"<im_start><image><im_end>\n"
    question_template: str = QUESTION_TEMPLATES[0]
    guide_form: str = "question"
    rejection_token: str | None = None
    left_out: str | None = None

    def chat_template(self, conversation: str, image_marks: bool) -> str:
        """The template of a form of conversations, with or without the tokens that stand around an image."""
        opening = self.opening if image_marks else self.opening.replace("<im_start><image><im_end>", "<image>")
        return CONVERSATIONS[conversation].replace(Preset.opening, opening)


PRESETS = {
    "lisa": Preset(),
    "glamm": Preset(opening=r"The <im_start><image><im_end> provides an overview of the picture.\n"),
    "sesame": Preset(
        question_template="Can you spot {} in this image? If it's there, please provide the segmentation map. If not, "
        "deny and, if you see fit, mention any similar items.",
        guide_form="expression",
    ),
    "gsva": Preset(rejection_token="[REJ]"),
    "lisa-plus": Preset(
        question_template="Can you segment {} separately in this image? Generate instance segmentation masks. Each "
        "countable object within the same category should have a separate mask. Ignore uncountable categories for "
        "individual masking.",
        guide_form="expression",
    ),
    "read": Preset(
        question_template=QUESTION_TEMPLATES[3],
        left_out="READ prompts SAM with points of a similarity map too; here SAM has the embedding of [SEG] alone, so "
        "that masks differ from READ's",
    ),
}


__all__ = ["CONVERSATIONS", "IMAGE_MARKS", "LLAMA_2_CHAT_TEMPLATE", "PRESETS", "Preset"]

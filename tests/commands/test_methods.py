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
"""`litelvlm methods`: what can be named, where it prunes and where it was published."""

import json

from litelvlm.commands.main import main


def test_methods_are_listed_with_where_they_prune_and_their_source(capsys):
    assert main(["methods", "--json"]) == 0
    methods = {method["name"]: method for method in json.loads(capsys.readouterr().out)["methods"]}
    assert {"litelvlm", "fastv", "sparsevlm", "trim", "visionzip", "random"} <= methods.keys()
    assert methods["fastv"]["where"] == "inside the language model" and methods["fastv"]["reads_text"]
    assert methods["visionzip"]["where"] == "before the language model" and not methods["visionzip"]["reads_text"]
    assert "arXiv 2409.10994" in methods["trim"]["source"] and "lowest similarity" in methods["trim"]["summary"]
    assert methods["litelvlm"]["selection_rules"].keys() == {"paper", "released"}
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert "litelvlm: before the language model, reads the text" in printed
    assert "random: before the language model" in printed and "its texts are the seed, and say no more" in printed
    assert "selection_rule=paper: the default" in printed and "selection_rule=released: the authors'" in printed

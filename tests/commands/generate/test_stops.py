"""What ends a completion, and whether one has ended."""

from pathlib import Path

from llama_recipes_local.answers.stopping import Stops, cut_off, find_stops
from llama_recipes_local.datasets.prompt_template import PROMPT, PromptTemplate
from llama_recipes_local.datasets.templates import TEMPLATES
from llama_recipes_local.models import AutoTokenizer


def test_a_completion_has_ended_at_a_token_or_a_text() -> None:
    stops = Stops((2, 5), ("### Human:",))
    assert stops.ended([7, 5, 0, 0], "Yes")
    assert stops.ended([7, 8], "Yes### Human: and")
    assert not stops.ended([7, 8], "Yes### Hu")
    assert not Stops().ended([2], "Yes")
    said = "--> 2 of 3 completions were cut off at --max_new_tokens 1,000"
    assert cut_off([True, False, False], 1000) == said


def test_an_instruct_models_own_end_of_turn_stops_after_any_prompt(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    prompt = PromptTemplate(PROMPT, "Correct: {}")
    for template in (None, prompt):
        assert find_stops(template, tokenizer, [7]).ids == (7, tokenizer.eos_token_id)
    tokenizer.chat_template = TEMPLATES["chatml"].text
    for template in (None, prompt):
        assert find_stops(template, tokenizer, [7]) == Stops((7, tokenizer.eos_token_id, end))
    tokenizer.chat_template = "{{ raise_exception('no turns') }}"
    assert find_stops(prompt, tokenizer, [7]).ids == (7, tokenizer.eos_token_id)

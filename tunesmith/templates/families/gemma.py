"""Gemma's formats."""

from dataclasses import replace

from tunesmith.templates.template import Template

GEMMA = Template(
    name="gemma",
    prefix="{{bos}}",
    system="{{content}}\n\n",
    system_in_user=True,
    user="<start_of_turn>user\n{{content}}<end_of_turn>\n{{answer}}<start_of_turn>model\n",
    observation="<start_of_turn>tool\n{{content}}<end_of_turn>\n{{answer}}<start_of_turn>model\n",
    assistant="{{content}}<end_of_turn>\n",
    stop_words=("<end_of_turn>",),
    replace_eos=True,
)
GEMMA2 = replace(
    GEMMA,
    name="gemma2",
    assistant="{{content}}<end_of_turn>\n{{eos}}",
    stop_words=("<eos>", "<end_of_turn>"),
    replace_eos=False,
)
GEMMA3 = replace(GEMMA, name="gemma3")
GEMMA3N = replace(GEMMA, name="gemma3n")
PALIGEMMA_CHAT = replace(GEMMA, name="paligemma_chat", system="{{content}}")

GEMMA4 = Template(
    name="gemma4",
    prefix="{{bos}}",
    default_system="You are a helpful assistant.",
    system="<|turn>system\n<|think|>{{content}}<turn|>\n",
    user="<|turn>user\n{{content}}<turn|>\n{{answer}}<|turn>model\n",
    observation="<|turn>tool\n{{content}}<turn|>\n{{answer}}<|turn>model\n",
    assistant="{{content}}<turn|>\n",
    function="<|tool>{{content}}<tool|>",
    tool_format="gemma4",
    stop_words=("<turn|>",),
    replace_eos=True,
    reasoning=True,
    thought_words=("<|channel>thought\n", "<channel|>"),
)
GEMMA4N = replace(GEMMA4, name="gemma4n")

"""Mistral's formats: the system prompt goes into the first instruction, tools and their results between marks."""

from dataclasses import replace

from tunesmith.templates.template import Template

MISTRAL = Template(
    name="mistral",
    prefix="{{bos}}",
    system="{{content}}\n\n",
    system_in_user=True,
    user="[INST] {{content}}[/INST]",
    observation='[TOOL_RESULTS] {"content": {{content}}}[/TOOL_RESULTS]',
    assistant=" {{content}}{{eos}}",
    function="[TOOL_CALLS] {{content}}{{eos}}",
    tool_format="mistral",
)
LLAVA_NEXT_MISTRAL = replace(MISTRAL, name="llava_next_mistral")
LLAVA_NEXT_VIDEO_MISTRAL = replace(MISTRAL, name="llava_next_video_mistral")

MINISTRAL = replace(
    MISTRAL,
    name="ministral",
    user="[INST]{{content}}[/INST]",
    observation='[TOOL_RESULTS]{"content": {{content}}}[/TOOL_RESULTS]',
    assistant="{{content}}{{eos}}",
    function="[TOOL_CALLS]{{content}}{{eos}}",
)
MINISTRAL3 = replace(MINISTRAL, name="ministral3")
PIXTRAL = replace(MINISTRAL, name="pixtral")
MISTRAL_SMALL = replace(
    MINISTRAL,
    name="mistral_small",
    system="[SYSTEM_PROMPT]{{content}}[/SYSTEM_PROMPT]",
    system_in_user=False,
)

"""Llama's formats, and those that write the same marks."""

from dataclasses import replace

from tunesmith.templates.template import Template

LLAMA2 = Template(
    name="llama2",
    system="<<SYS>>\n{{content}}\n<</SYS>>\n\n",
    system_in_user=True,
    user="{{bos}}[INST] {{content}} [/INST]",
    assistant="{{content}}{{eos}}",
)
LLAMA2_ZH = replace(
    LLAMA2,
    name="llama2_zh",
    default_system="You are a helpful assistant. 你是一个乐于助人的助手。",
)

LLAMA3 = Template(
    name="llama3",
    prefix="{{bos}}",
    system="<|start_header_id|>system<|end_header_id|>\n\n{{content}}<|eot_id|>",
    user="<|start_header_id|>user<|end_header_id|>\n\n{{content}}<|eot_id|>"
    "{{answer}}<|start_header_id|>assistant<|end_header_id|>\n\n",
    observation="<|start_header_id|>ipython<|end_header_id|>\n\n{{content}}<|eot_id|>"
    "{{answer}}<|start_header_id|>assistant<|end_header_id|>\n\n",
    assistant="{{content}}<|eot_id|>",
    tool_format="llama3",
    stop_words=("<|eot_id|>", "<|eom_id|>"),
    replace_eos=True,
)
MLLAMA = replace(LLAMA3, name="mllama")
LLAVA_NEXT_LLAMA3 = replace(LLAMA3, name="llava_next_llama3")

LLAMA4 = Template(
    name="llama4",
    prefix="{{bos}}",
    system="<|header_start|>system<|header_end|>\n\n{{content}}<|eot|>",
    user="<|header_start|>user<|header_end|>\n\n{{content}}<|eot|>"
    "{{answer}}<|header_start|>assistant<|header_end|>\n\n",
    observation="<|header_start|>ipython<|header_end|>\n\n{{content}}<|eot|>"
    "{{answer}}<|header_start|>assistant<|header_end|>\n\n",
    assistant="{{content}}<|eot|>",
    tool_format="llama3",
    stop_words=("<|eot|>", "<|eom|>"),
    replace_eos=True,
)

OPENCHAT_3_6 = Template(
    name="openchat-3.6",
    prefix="{{bos}}",
    user="<|start_header_id|>GPT4 Correct User<|end_header_id|>\n\n{{content}}<|eot_id|>"
    "{{answer}}<|start_header_id|>GPT4 Correct Assistant<|end_header_id|>\n\n",
    assistant="{{content}}{{eos}}",
    stop_words=("<|eot_id|>",),
)

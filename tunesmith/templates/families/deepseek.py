"""DeepSeek's formats, and Hunyuan's and Youtu's that resemble them."""

from dataclasses import replace

from tunesmith.templates.template import Template

DEEPSEEK = Template(
    name="deepseek",
    prefix="{{bos}}",
    system="{{content}}\n\n",
    user="User: {{content}}\n\n{{answer}}Assistant:",
    assistant="{{content}}{{eos}}",
)

DEEPSEEK3 = Template(
    name="deepseek3",
    prefix="{{bos}}",
    user="<｜User｜>{{content}}{{answer}}<｜Assistant｜>",
    assistant="{{content}}{{eos}}",
)
DEEPSEEKR1 = replace(DEEPSEEK3, name="deepseekr1", reasoning=True)

DEEPSEEKCODER = Template(
    name="deepseekcoder",
    prefix="{{bos}}",
    default_system="You are an AI programming assistant, utilizing the DeepSeek Coder model, "
    "developed by DeepSeek Company, and you only answer questions related to computer science. "
    "For politically sensitive questions, security and privacy issues, "
    "and other non-computer science questions, you will refuse to answer.\n",
    user="### Instruction:\n{{content}}\n{{answer}}### Response:",
    assistant="\n{{content}}\n<|EOT|>\n",
)

HUNYUAN = Template(
    name="hunyuan",
    prefix="<|startoftext|>",
    system="{{content}}<|extra_4|>",
    user="{{content}}{{answer}}<|extra_0|>",
    assistant="{{content}}<|eos|>",
    stop_words=("<|eos|>",),
)
HUNYUAN_SMALL = Template(
    name="hunyuan_small",
    prefix="<｜hy_begin▁of▁sentence｜>",
    system="{{content}}<｜hy_place▁holder▁no▁3｜>",
    user="<｜hy_User｜>{{content}}{{answer}}<｜hy_place▁holder▁no▁8｜>",
    assistant="{{content}}<｜hy_place▁holder▁no▁2｜>",
    stop_words=("<｜hy_place▁holder▁no▁2｜>",),
)
HY3 = Template(
    name="hy3",
    prefix="{{bos}}",
    user="<｜hy_User｜>{{content}}{{answer}}<｜hy_Assistant｜>",
    assistant="{{content}}<｜hy_eos｜>",
    stop_words=("<｜hy_eos｜>",),
    replace_eos=True,
    reasoning=True,
    thought_words=("<think>", "</think>"),
)

YOUTU = Template(
    name="youtu",
    prefix="{{bos}}",
    user="<|User|>{{content}}{{answer}}<|Assistant|>",
    observation="<tool_response>\n{{content}}\n</tool_response>{{answer}}<|Assistant|>",
    observation_separator="\n</tool_response>\n<tool_response>\n",
    assistant="{{content}}<|end_of_text|>",
    function="{{content}}",
    stop_words=("<|end_of_text|>",),
    replace_eos=True,
    reasoning=True,
)
YOUTU_VL = Template(
    name="youtu_vl",
    default_system="You are a helpful assistant.",
    system="<|begin_of_text|>system\n{{content}}<|end_of_text|>\n",
    user="<|begin_of_text|>user\n{{content}}<|end_of_text|>\n{{answer}}<|begin_of_text|>assistant\n",
    assistant="{{content}}<|end_of_text|>\n",
    stop_words=("<|end_of_text|>",),
)

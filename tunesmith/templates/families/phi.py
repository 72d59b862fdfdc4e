"""Phi's formats, and others with one mark before each turn and one after it."""

from dataclasses import replace

from tunesmith.templates.template import Template

PHI = Template(
    name="phi",
    system="<|system|>\n{{content}}<|end|>\n",
    user="<|user|>\n{{content}}<|end|>\n{{answer}}<|assistant|>\n",
    assistant="{{content}}<|end|>\n",
    stop_words=("<|end|>",),
    replace_eos=True,
)
PHI_SMALL = replace(PHI, name="phi_small")
PHI4_MINI = replace(
    PHI,
    name="phi4_mini",
    system="<|system|>{{content}}<|end|>",
    user="<|user|>{{content}}<|end|>{{answer}}<|assistant|>",
    assistant="{{content}}<|end|>",
    tool_format="phi4_mini",
)
PHI4 = Template(
    name="phi4",
    system="<|im_start|>system<|im_sep|>{{content}}<|im_end|>",
    user="<|im_start|>user<|im_sep|>{{content}}<|im_end|>{{answer}}<|im_start|>assistant<|im_sep|>",
    assistant="{{content}}<|im_end|>",
    stop_words=("<|im_end|>",),
    replace_eos=True,
)
STARCHAT = replace(
    PHI,
    name="starchat",
    user="<|user|>\n{{content}}<|end|>\n{{answer}}<|assistant|>",
    replace_eos=False,
)

ZEPHYR = Template(
    name="zephyr",
    default_system="You are Zephyr, a helpful assistant.",
    system="<|system|>\n{{content}}{{eos}}",
    user="<|user|>\n{{content}}{{eos}}{{answer}}<|assistant|>\n",
    assistant="{{content}}{{eos}}",
)
OLMO = Template(
    name="olmo",
    prefix="{{eos}}",
    user="<|user|>\n{{content}}{{answer}}<|assistant|>\n",
    assistant="{{content}}{{eos}}",
)
GRANITE3_VISION = Template(
    name="granite3_vision",
    default_system="A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    system="<|system|>\n{{content}}\n",
    user="<|user|>\n{{content}}\n{{answer}}<|assistant|>\n",
    assistant="{{content}}{{eos}}",
)
DOTS_OCR = Template(
    name="dots_ocr",
    system="<|system|>{{content}}<|endofsystem|>\n",
    user="<|user|>{{content}}<|endofuser|>{{answer}}<|assistant|>",
    assistant="{{content}}<|endofassistant|>{{eos}}",
    stop_words=("<|endofassistant|>",),
)
EXAONE = Template(
    name="exaone",
    system="[|system|]{{content}}[|endofturn|]\n",
    user="[|user|]{{content}}\n{{answer}}[|assistant|]",
    assistant="{{content}}{{eos}}\n",
)
